//! Images: PNG and JPEG files, base64 text that holds one, and IDX files that hold many ([`idx`]).

mod base64;
pub mod idx;
#[cfg(test)]
mod packed;

use std::path::Path;

use zune_jpeg::JpegDecoder;
use zune_jpeg::zune_core::bit_depth::BitDepth;
use zune_jpeg::zune_core::bytestream::ZCursor;
use zune_jpeg::zune_core::colorspace::ColorSpace;
use zune_jpeg::zune_core::options::DecoderOptions;
use zune_png::PngDecoder;

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

/// Strict: what is cut off or flipped must not come out as another image.
fn options() -> DecoderOptions {
    let sides = DecoderOptions::default().set_max_width(LONGEST).set_max_height(LONGEST);
    sides.set_strict_mode(true).png_set_confirm_crc(true).inflate_set_confirm_adler(true)
}

fn png(bytes: &[u8]) -> Result<Image, ImageError> {
    let damaged = |problem: String| ImageError::Damaged { format: "PNG", problem };
    // The decoder asks for the size that the header says before it looks at it.
    let sides = bytes.get(16..24).ok_or_else(|| damaged("it ends in its header".to_owned()))?;
    let side = |at: usize| sides[at..at + 4].iter().fold(0, |sum, &byte| sum << 8 | usize::from(byte));
    let (width, height) = (side(0), side(4));
    admit(height, width)?;
    let mut decoder = PngDecoder::new_with_options(ZCursor::new(bytes), options());
    let decoded = decoder.decode_raw().map_err(|error| damaged(format!("{error:?}")))?;
    if decoder.depth() != Some(BitDepth::Eight) {
        return Err(ImageError::Deep);
    }
    let (stored, channels) = match decoder.colorspace() {
        Some(ColorSpace::Luma) => (1, 1),
        Some(ColorSpace::LumaA) => (2, 1),
        Some(ColorSpace::RGB) => (3, 3),
        Some(ColorSpace::RGBA) => (4, 3),
        other => return Err(damaged(format!("its colours are {other:?}"))),
    };
    if decoded.len() != height * width * stored {
        return Err(damaged(format!("{} values for {height} x {width}", decoded.len())));
    }
    let pixels = match stored == channels {
        true => decoded,
        false => decoded.chunks_exact(stored).flat_map(|pixel| &pixel[..channels]).copied().collect(),
    };
    Ok(Image { pixels, height, width, channels })
}

fn jpeg(bytes: &[u8]) -> Result<Image, ImageError> {
    let damaged = |problem: String| ImageError::Damaged { format: "JPEG", problem };
    // The decoder fills up what is cut off with grey. No other data hold the marker of the end behind the last scan's.
    let last = |marker: u8| bytes.windows(2).rposition(|pair| pair == [0xff, marker]);
    if last(0xd9) <= last(0xda) {
        return Err(damaged("it ends before its end".to_owned()));
    }
    let mut decoder = JpegDecoder::new_with_options(ZCursor::new(bytes), options());
    decoder.decode_headers().map_err(|error| damaged(error.to_string()))?;
    let (width, height) = decoder.dimensions().ok_or_else(|| damaged("it has no size".to_owned()))?;
    admit(height, width)?;
    let (channels, colours) = match decoder.input_colorspace() {
        Some(ColorSpace::Luma) => (1, ColorSpace::Luma),
        _ => (3, ColorSpace::RGB),
    };
    decoder.set_options(options().jpeg_set_out_colorspace(colours));
    let pixels = decoder.decode().map_err(|error| damaged(error.to_string()))?;
    if pixels.len() != height * width * channels {
        return Err(damaged(format!("{} values for {height} x {width}", pixels.len())));
    }
    Ok(Image { pixels, height, width, channels })
}

#[cfg(test)]
mod tests;
