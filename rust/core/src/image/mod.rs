//! Decodes images to samples, one file a codec, reduces them to gray levels, and resizes them.

pub mod bands;
mod formats;
pub mod gray;
mod gray_levels;
mod input;
pub mod jpeg;
mod jpeg2000;
mod memory;
mod png;
pub mod quantize;
pub mod resize;
mod tiff;
mod values;
mod webp;

pub use gray_levels::{GrayOptions, Header, LevelSink};
pub use input::{Input, Rgb, rgb_from_inputs};
pub use jpeg::Output;
pub use values::{Values, values_from_inputs};

use crate::error::ImageError;
use crate::runtime::parallel::cancelled;
use memory::Memory;

/// The result of decoding.
pub type Result<T, E = ImageError> = std::result::Result<T, E>;

/// Decoded samples, interleaved: `samples[(y * width + x) * bands + band]`.
#[derive(Debug, Clone, PartialEq)]
pub struct Image {
    /// Pixels in a row.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// Samples in a pixel, an alpha band not counted: it is dropped by the codecs that know it for one.
    pub bands: usize,
    /// The samples.
    pub samples: Samples,
}

/// Samples as wide as the file holds them.
#[derive(Debug, Clone, PartialEq)]
pub enum Samples {
    /// 8 bits a sample, or fewer, scaled to 0..=255 where the format says so.
    U8(Vec<u8>),
    /// 9 to 16 bits a sample, as stored.
    U16(Vec<u16>),
    /// 16 bits with a sign.
    I16(Vec<i16>),
    /// Floating point of 16 or 32 bits.
    F32(Vec<f32>),
    /// Floating point of 64 bits.
    F64(Vec<f64>),
}

/// An image's samples, borrowed from wherever they lie.
#[derive(Debug, Clone, Copy)]
pub struct ImageRef<'a> {
    /// Pixels in a row.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// Samples in a pixel.
    pub bands: usize,
    /// The samples, interleaved.
    pub samples: SamplesRef<'a>,
}

/// Borrowed samples.
#[derive(Debug, Clone, Copy)]
pub enum SamplesRef<'a> {
    /// 8 bits a sample.
    U8(&'a [u8]),
    /// 16 bits a sample.
    U16(&'a [u16]),
    /// 16 bits with a sign.
    I16(&'a [i16]),
    /// Floating point of 32 bits.
    F32(&'a [f32]),
    /// Floating point of 64 bits.
    F64(&'a [f64]),
}

impl<'a> SamplesRef<'a> {
    /// Those at `places`.
    pub fn part(self, places: std::ops::Range<usize>) -> Self {
        match self {
            Self::U8(samples) => Self::U8(&samples[places]),
            Self::U16(samples) => Self::U16(&samples[places]),
            Self::I16(samples) => Self::I16(&samples[places]),
            Self::F32(samples) => Self::F32(&samples[places]),
            Self::F64(samples) => Self::F64(&samples[places]),
        }
    }
}

impl Image {
    /// The image, borrowed.
    pub fn as_ref(&self) -> ImageRef<'_> {
        let samples = match &self.samples {
            Samples::U8(samples) => SamplesRef::U8(samples),
            Samples::U16(samples) => SamplesRef::U16(samples),
            Samples::I16(samples) => SamplesRef::I16(samples),
            Samples::F32(samples) => SamplesRef::F32(samples),
            Samples::F64(samples) => SamplesRef::F64(samples),
        };
        ImageRef { width: self.width, height: self.height, bands: self.bands, samples }
    }
}

/// The size that a file may have or declare without being refused.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// The largest number of pixels, width times height, of an image of up to four bands. More bands are allowed fewer
    /// pixels: an image holds no more than four times as many samples.
    pub max_pixels: u64,
    /// The largest encoded image, in bytes. A larger one is not read.
    pub max_bytes: u64,
}

impl Default for Limits {
    /// Twice Pillow's `MAX_IMAGE_PIXELS`, where Pillow stops warning and refuses; and a gigabyte.
    fn default() -> Self {
        Limits { max_pixels: 2 * 89_478_485, max_bytes: 1_000_000_000 }
    }
}

impl Limits {
    /// Fails when `bytes` is more than the limit.
    pub fn check_bytes(&self, bytes: u64) -> Result<()> {
        let limit = self.max_bytes;
        if bytes > limit { Err(ImageError::TooManyBytes { bytes, limit }) } else { Ok(()) }
    }

    /// Fails when `width` x `height` is more than the limit.
    pub fn check(&self, width: u64, height: u64) -> Result<()> {
        self.check_bands(width, height, 1)
    }

    /// Fails when `width` x `height` is more than the limit for an image of that many bands.
    pub fn check_bands(&self, width: u64, height: u64, bands: u64) -> Result<()> {
        let limit = if bands <= 4 { self.max_pixels } else { self.max_pixels.saturating_mul(4) / bands };
        match width.checked_mul(height) {
            Some(pixels) if pixels <= limit => Ok(()),
            _ => Err(ImageError::TooLarge { width, height, limit }),
        }
    }
}

/// The memory that decoding an image leaves to the next one, so that a long row of them allocates little.
#[derive(Debug, Default)]
pub struct Scratch {
    jpeg: jpeg::Scratch,
    file: Vec<u8>,
    memory: Memory,
}

impl Scratch {
    /// Gives back the memory that was counted for the last image.
    fn release(&mut self) {
        self.memory.release();
        self.jpeg.memory.release();
    }
}

/// The formats that are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// JPEG.
    Jpeg,
    /// PNG.
    Png,
    /// TIFF and BigTIFF.
    Tiff,
    /// WebP.
    WebP,
    /// JPEG 2000.
    Jpeg2000,
}

impl Format {
    /// Finds the format by the first bytes. A file's name plays no part.
    pub fn sniff(bytes: &[u8]) -> Result<Self> {
        match bytes {
            [] => Err(ImageError::Empty),
            [0xff, 0xd8, 0xff, ..] => Ok(Self::Jpeg),
            [0x89, b'P', b'N', b'G', 0x0d, 0x0a, 0x1a, 0x0a, ..] => Ok(Self::Png),
            [b'I', b'I', 42 | 43, 0, ..] | [b'M', b'M', 0, 42 | 43, ..] => Ok(Self::Tiff),
            [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => Ok(Self::WebP),
            _ if jpeg2000::MAGICS.iter().any(|magic| bytes.starts_with(magic)) => Ok(Self::Jpeg2000),
            _ => Err(ImageError::UnknownFormat { name: formats::describe(bytes) }),
        }
    }
}

/// Fails once the caller of [`Par::map`](crate::runtime::parallel::Par::map) has asked to stop; decoders ask for each row or
/// tile, as a large image takes seconds.
///
/// # Errors
///
/// [`ImageError::Interrupted`].
fn check_cancelled() -> Result<()> {
    if cancelled() { Err(ImageError::Interrupted) } else { Ok(()) }
}

/// Decodes an image of any format that is read. `output` matters to JPEG alone.
///
/// # Errors
///
/// Every [`ImageError`] but those of reduction: nodata and bands.
pub fn decode(bytes: &[u8], output: Output, limits: &Limits, scratch: &mut Scratch) -> Result<Image> {
    scratch.release();
    match Format::sniff(bytes)? {
        Format::Jpeg => jpeg::decode(bytes, output, limits, &mut scratch.jpeg),
        Format::Png => png::decode(bytes, limits, &mut scratch.memory),
        Format::Tiff => tiff::decode(bytes, limits, &mut scratch.memory, &mut scratch.jpeg),
        Format::Jpeg2000 => jpeg2000::decode(bytes, limits, &mut scratch.memory),
        Format::WebP => webp::decode(bytes, limits, &mut scratch.memory),
    }
}

/// Hands the gray levels of an encoded image's valid pixels to `sink`.
///
/// # Errors
///
/// Every [`ImageError`] but the lack of valid pixels; levels may have been handed out before.
pub fn gray_levels(
    bytes: &[u8],
    options: &GrayOptions,
    limits: &Limits,
    scratch: &mut Scratch,
    sink: &mut impl LevelSink,
) -> Result<()> {
    scratch.release();
    match Format::sniff(bytes)? {
        Format::Jpeg => jpeg::gray_levels(bytes, options, limits, &mut scratch.jpeg, sink),
        _ => options.gray_levels(decode(bytes, options.output(), limits, scratch)?.as_ref(), sink),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_content_decides_the_format() {
        assert_eq!(Format::sniff(b"\xff\xd8\xff\xe0"), Ok(Format::Jpeg));
        assert_eq!(Format::sniff(b"II\x2a\0...."), Ok(Format::Tiff));
        assert_eq!(Format::sniff(b"MM\0\x2b...."), Ok(Format::Tiff));
        assert_eq!(Format::sniff(b"RIFF\0\0\0\0WEBPVP8 "), Ok(Format::WebP));
        assert_eq!(Format::sniff(b""), Err(ImageError::Empty));
        let text = Format::sniff(b"<html>\n<body>").unwrap_err();
        assert_eq!(text, ImageError::UnknownFormat { name: "HTML".into() });
    }

    #[test]
    fn limits_hold_for_pixels_and_for_bands() {
        let limits = Limits { max_pixels: 100, ..Limits::default() };
        assert!(limits.check(10, 10).is_ok());
        assert!(limits.check(10, 11).is_err());
        assert!(limits.check(u64::MAX, u64::MAX).is_err());
        assert!(limits.check_bands(10, 10, 4).is_ok());
        assert!(limits.check_bands(10, 10, 5).is_err());
        assert!(limits.check_bands(10, 8, 5).is_ok());
    }
}
