//! Images: PNG and JPEG files, base64 text that holds one, and IDX files that hold many ([`idx`]).

mod base64;
pub mod idx;

use std::io::Cursor;
use std::path::Path;

use zune_jpeg::JpegDecoder;
use zune_jpeg::zune_core::bytestream::ZCursor;
use zune_jpeg::zune_core::colorspace::ColorSpace;
use zune_jpeg::zune_core::options::DecoderOptions;

use crate::StoreError;

/// Rows and columns up to which an image is read, and pixels: a header of a few bytes must not ask for all memory.
const LONGEST: usize = 1 << 15;
const PIXELS: usize = 1 << 26;

/// A decoded image of 8 bits a channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// Row-major `[height, width, channels]`.
    pub pixels: Vec<u8>,
    /// Rows.
    pub height: usize,
    /// Columns.
    pub width: usize,
    /// 1 is grey, 3 is red, green and blue.
    pub channels: usize,
}

/// What is wrong with the content of an image.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ImageError {
    /// Neither format.
    #[error("neither a PNG nor a JPEG image; convert it to one of them")]
    Unknown,
    /// The decoder refuses it.
    #[error("a damaged {format} image: {problem}")]
    Damaged {
        /// The format that it begins as.
        format: &'static str,
        /// What the decoder says.
        problem: String,
    },
    /// Larger than any training image, or than the limit on memory.
    #[error("an image of {height} x {width}; at most {LONGEST} a side and {PIXELS} pixels are read")]
    TooLarge {
        /// Rows.
        height: usize,
        /// Columns.
        width: usize,
    },
    /// A format that 8 bits would change.
    #[error("an image of 16 bits a channel; save it with 8")]
    Deep,
    /// Not base64.
    #[error("not base64 at character {at}")]
    Base64 {
        /// The first character that does not belong, from 0.
        at: usize,
    },
}

/// Reads a PNG or JPEG file; its first bytes say which, not its name. Transparency is dropped, as Pillow's conversion to RGB
/// does.
///
/// # Errors
/// [`StoreError::Io`], [`StoreError::Image`].
pub fn read(path: &Path) -> Result<Image, StoreError> {
    let bytes = std::fs::read(path).map_err(StoreError::io(path, "read"))?;
    decode(&bytes).map_err(|cause| StoreError::Image { path: path.to_owned(), cause })
}

/// Decodes the bytes of a PNG or JPEG file, as [`read`].
///
/// # Errors
/// [`ImageError`].
pub fn decode(bytes: &[u8]) -> Result<Image, ImageError> {
    match bytes {
        [0x89, b'P', b'N', b'G', ..] => png(bytes),
        [0xff, 0xd8, 0xff, ..] => jpeg(bytes),
        _ => Err(ImageError::Unknown),
    }
}

/// Decodes an image that a text holds as base64, as BIG-bench has them.
///
/// # Errors
/// [`ImageError`].
pub fn decode_base64(text: &str) -> Result<Image, ImageError> {
    decode(&base64::decode(text).map_err(|at| ImageError::Base64 { at })?)
}

fn admit(height: usize, width: usize) -> Result<(), ImageError> {
    let fits = height <= LONGEST && width <= LONGEST && height * width <= PIXELS;
    if fits { Ok(()) } else { Err(ImageError::TooLarge { height, width }) }
}

fn png(bytes: &[u8]) -> Result<Image, ImageError> {
    let damaged =
        |error: png::DecodingError| ImageError::Damaged { format: "PNG", problem: error.to_string() };
    let mut decoder = png::Decoder::new(Cursor::new(bytes));
    // Palettes and few bits become 8-bit colours; 16 bits stay and are refused.
    decoder.set_transformations(png::Transformations::EXPAND);
    let info = decoder.read_header_info().map_err(damaged)?;
    let (height, width) = (info.height as usize, info.width as usize);
    admit(height, width)?;
    let mut reader = decoder.read_info().map_err(damaged)?;
    let size = reader.output_buffer_size().ok_or(ImageError::TooLarge { height, width })?;
    let mut pixels = vec![0; size];
    let frame = reader.next_frame(&mut pixels).map_err(damaged)?;
    if frame.bit_depth != png::BitDepth::Eight {
        return Err(ImageError::Deep);
    }
    let (stored, channels) = match frame.color_type {
        png::ColorType::Grayscale => (1, 1),
        png::ColorType::GrayscaleAlpha => (2, 1),
        png::ColorType::Rgb => (3, 3),
        png::ColorType::Rgba => (4, 3),
        png::ColorType::Indexed => {
            return Err(ImageError::Damaged { format: "PNG", problem: "a palette that is not there".into() });
        }
    };
    pixels.truncate(frame.buffer_size());
    if stored != channels {
        pixels = pixels.chunks_exact(stored).flat_map(|pixel| &pixel[..channels]).copied().collect();
    }
    Ok(Image { pixels, height, width, channels })
}

fn jpeg(bytes: &[u8]) -> Result<Image, ImageError> {
    let damaged = |problem: String| ImageError::Damaged { format: "JPEG", problem };
    // Strict: what is cut off must not come out as grey.
    let options =
        DecoderOptions::default().set_strict_mode(true).set_max_width(LONGEST).set_max_height(LONGEST);
    let mut decoder = JpegDecoder::new_with_options(ZCursor::new(bytes), options);
    decoder.decode_headers().map_err(|error| damaged(error.to_string()))?;
    let (width, height) = decoder.dimensions().ok_or_else(|| damaged("it has no size".to_owned()))?;
    admit(height, width)?;
    let (channels, colours) = match decoder.input_colorspace() {
        Some(ColorSpace::Luma) => (1, ColorSpace::Luma),
        _ => (3, ColorSpace::RGB),
    };
    decoder.set_options(options.jpeg_set_out_colorspace(colours));
    let pixels = decoder.decode().map_err(|error| damaged(error.to_string()))?;
    if pixels.len() != height * width * channels {
        return Err(damaged(format!("{} values for {height} x {width}", pixels.len())));
    }
    Ok(Image { pixels, height, width, channels })
}

#[cfg(test)]
mod tests;
