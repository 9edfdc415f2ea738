use super::*;

/// Kinds of colour as PNG numbers them.
const GREY_KIND: u8 = 0;
const RGB_KIND: u8 = 2;
const PALETTE_KIND: u8 = 3;

fn chunk(kind: &[u8; 4], content: &[u8]) -> Vec<u8> {
    let summed = [kind, content].concat();
    let length = (content.len() as u32).to_be_bytes();
    [&length[..], &summed, &packed::crc32(&summed).to_be_bytes()].concat()
}

/// A PNG file of these rows, unfiltered.
fn png_of(kind: u8, bits: u8, [height, width]: [u32; 2], rows: &[&[u8]]) -> Vec<u8> {
    let sides = [width.to_be_bytes(), height.to_be_bytes()].concat();
    let header = chunk(b"IHDR", &[&sides[..], &[bits, kind, 0, 0, 0]].concat());
    let palette = if kind == PALETTE_KIND { chunk(b"PLTE", &[1, 2, 3, 40, 50, 60]) } else { Vec::new() };
    let filtered: Vec<u8> = rows.iter().flat_map(|row| [&[0], *row].concat()).collect();
    let data = chunk(b"IDAT", &packed::zlib(&filtered));
    [&b"\x89PNG\r\n\x1a\n"[..], &header, &palette, &data, &chunk(b"IEND", &[])].concat()
}

#[test]
fn every_kind_of_png_becomes_grey_or_colour() {
    for (kind, bits, row, channels, expected) in [
        (GREY_KIND, 8, &[7, 8][..], 1, &[7, 8][..]),
        (GREY_KIND, 1, &[0b0100_0000], 1, &[0, 255]),
        (4, 8, &[7, 0, 8, 255], 1, &[7, 8]),
        (RGB_KIND, 8, &[1, 2, 3, 4, 5, 6], 3, &[1, 2, 3, 4, 5, 6]),
        (6, 8, &[1, 2, 3, 0, 4, 5, 6, 9], 3, &[1, 2, 3, 4, 5, 6]),
        (PALETTE_KIND, 8, &[1, 0], 3, &[40, 50, 60, 1, 2, 3]),
        (PALETTE_KIND, 1, &[0b1000_0000], 3, &[40, 50, 60, 1, 2, 3]),
    ] {
        let found = decode(&png_of(kind, bits, [1, 2], &[row])).unwrap();
        assert_eq!(
            found,
            Image { pixels: expected.to_vec(), height: 1, width: 2, channels },
            "{kind}, {bits}"
        );
    }
    let tall = decode(&png_of(GREY_KIND, 8, [2, 3], &[&[1, 2, 3], &[4, 5, 6]])).unwrap();
    assert_eq!((tall.height, tall.width, tall.pixels), (2, 3, vec![1, 2, 3, 4, 5, 6]));
    assert_eq!(decode(&png_of(GREY_KIND, 16, [1, 2], &[&[1, 2, 3, 4]])), Err(ImageError::Deep));
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
            near(red, index * 4, 32) && near(green, 255 - index * 4, 32) && near(blue, 100, 24),
            "{index}: {pixel:?}"
        );
    }
}

#[test]
fn damage_is_named() {
    let whole = png_of(RGB_KIND, 8, [4, 4], &[&[9; 12][..]; 4]);
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
    // A header that asks for 16 GB, with its checksum right.
    let huge = png_of(GREY_KIND, 8, [1 << 17, 1 << 17], &[&[0]]);
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
    std::fs::write(&path, png_of(GREY_KIND, 8, [1, 1], &[&[5]])).unwrap();
    assert_eq!(read(&path).unwrap().pixels, [5]);
    std::fs::write(&path, "no image").unwrap();
    let said = read(&path).unwrap_err().to_string();
    assert!(said.contains("photo.jpg") && said.contains("neither"), "{said}");
    assert!(read(&folder.path().join("none.png")).unwrap_err().to_string().contains("none.png"));
}
