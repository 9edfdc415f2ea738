use super::*;

fn png_of(colour: png::ColorType, depth: png::BitDepth, size: [u32; 2], data: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut encoder = png::Encoder::new(&mut out, size[1], size[0]);
    encoder.set_color(colour);
    encoder.set_depth(depth);
    if colour == png::ColorType::Indexed {
        encoder.set_palette(vec![1, 2, 3, 40, 50, 60]);
    }
    let mut writer = encoder.write_header().unwrap();
    writer.write_image_data(data).unwrap();
    writer.finish().unwrap();
    out
}

#[test]
fn every_kind_of_png_becomes_grey_or_colour() {
    use png::{BitDepth as Depth, ColorType as Colour};
    for (colour, depth, data, channels, expected) in [
        (Colour::Grayscale, Depth::Eight, &[7, 8][..], 1, &[7, 8][..]),
        (Colour::Grayscale, Depth::One, &[0b0100_0000], 1, &[0, 255]),
        (Colour::GrayscaleAlpha, Depth::Eight, &[7, 0, 8, 255], 1, &[7, 8]),
        (Colour::Rgb, Depth::Eight, &[1, 2, 3, 4, 5, 6], 3, &[1, 2, 3, 4, 5, 6]),
        (Colour::Rgba, Depth::Eight, &[1, 2, 3, 0, 4, 5, 6, 9], 3, &[1, 2, 3, 4, 5, 6]),
        (Colour::Indexed, Depth::Eight, &[1, 0], 3, &[40, 50, 60, 1, 2, 3]),
    ] {
        let found = decode(&png_of(colour, depth, [1, 2], data)).unwrap();
        assert_eq!(found, Image { pixels: expected.to_vec(), height: 1, width: 2, channels }, "{colour:?}");
    }
    let deep = png_of(Colour::Grayscale, Depth::Sixteen, [1, 2], &[1, 2, 3, 4]);
    assert_eq!(decode(&deep), Err(ImageError::Deep));
}

/// Pillow 13.0.0: `Image.frombytes("L", (8, 8), bytes(i * 4 for i in range(64))).save(..., "JPEG", quality=90, optimize=True)`, and the same as
/// RGB with `(i * 4, 255 - i * 4, 100)`; base64.
const GREY: &str = "/9j/4AAQSkZJRgABAQAAAQABAAD/2wBDAAMCAgMCAgMDAwMEAwMEBQgFBQQEBQoHBwYIDAoMDAsKCwsNDhIQDQ4RDgsLEBYQERMUFRUVDA8XGB\
    YUGBIUFRT/wAALCAAIAAgBAREA/8QAFAABAAAAAAAAAAAAAAAAAAAAA//EABkQAAEFAAAAAAAAAAAAAAAAAAAGCSUyo//aAAgBAQAAPwAk023S\
    LzP/2Q==";
const COLOUR: &str = "/9j/4AAQSkZJRgABAQAAAQABAAD/2wBDAAMCAgMCAgMDAwMEAwMEBQgFBQQEBQoHBwYIDAoMDAsKCwsNDhIQDQ4RDgsLEBYQERMUFRUVDA8XGB\
    YUGBIUFRT/2wBDAQMEBAUEBQkFBQkUDQsNFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBT/wAARCAAI\
    AAgDASIAAhEBAxEB/8QAFQABAQAAAAAAAAAAAAAAAAAAAAT/xAAZEAEAAgMAAAAAAAAAAAAAAAAABAcjMaH/xAAVAQEBAAAAAAAAAAAAAAAAAA\
    AECP/EACARAAACCwAAAAAAAAAAAAAAAAAEAQIFBgcREyQysdH/2gAMAwEAAhEDEQA/AJpVqbzdABVZhaWIokhBRy6CLXXB/9k=";

#[test]
fn jpeg_files_become_grey_or_colour() {
    let grey = decode_base64(GREY).unwrap();
    assert_eq!((grey.height, grey.width, grey.channels), (8, 8, 1));
    let near = |found: u8, expected: usize, within: i32| (i32::from(found) - expected as i32).abs() <= within;
    for (index, &value) in grey.pixels.iter().enumerate() {
        assert!(near(value, index * 4, 8), "{index}: {value}");
    }
    let colour = decode_base64(COLOUR).unwrap();
    assert_eq!((colour.height, colour.width, colour.channels), (8, 8, 3));
    for (index, pixel) in colour.pixels.chunks_exact(3).enumerate() {
        let [red, green, blue] = [pixel[0], pixel[1], pixel[2]];
        assert!(
            near(red, index * 4, 24) && near(green, 255 - index * 4, 24) && near(blue, 100, 24),
            "{index}: {pixel:?}"
        );
    }
}

#[test]
fn damage_is_named() {
    let whole = png_of(png::ColorType::Rgb, png::BitDepth::Eight, [4, 4], &[9; 48]);
    let said = |bytes: &[u8]| decode(bytes).map_or_else(|error| error.to_string(), |_| "read".to_owned());
    assert_eq!(said(&whole), "read");
    assert!(said(b"GIF89a").contains("neither a PNG nor a JPEG"));
    assert!(said(&[]).contains("neither"));
    for cut in [10, 30, whole.len() / 2] {
        assert!(said(&whole[..cut]).contains("damaged PNG"), "{cut}: {}", said(&whole[..cut]));
    }
    let mut flipped = whole.clone();
    let middle = flipped.len() - 20;
    flipped[middle] ^= 0x55;
    assert!(said(&flipped).contains("damaged PNG"), "{}", said(&flipped));
    // A header that asks for 16 GB: width and height of IHDR, with its checksum made right by the encoder.
    let mut huge = Vec::new();
    png::Encoder::new(&mut huge, 1 << 17, 1 << 17).write_header().unwrap();
    assert!(said(&huge).contains("131072 x 131072"), "{}", said(&huge));
    let jpeg = base64::decode(COLOUR).unwrap();
    assert!(said(&jpeg[..jpeg.len() / 3]).contains("damaged JPEG"));
    assert!(said(&jpeg[..jpeg.len() - 12]).contains("damaged JPEG"), "{}", said(&jpeg[..jpeg.len() - 12]));
    assert_eq!(decode_base64("Zm9v*"), Err(ImageError::Base64 { at: 4 }));
}

#[test]
fn a_file_is_read_by_its_content_and_an_error_names_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("photo.jpg");
    std::fs::write(&path, png_of(png::ColorType::Grayscale, png::BitDepth::Eight, [1, 1], &[5])).unwrap();
    assert_eq!(read(&path).unwrap().pixels, [5]);
    std::fs::write(&path, "no image").unwrap();
    let said = read(&path).unwrap_err().to_string();
    assert!(said.contains("photo.jpg") && said.contains("neither"), "{said}");
    assert!(read(&folder.path().join("none.png")).unwrap_err().to_string().contains("none.png"));
}
