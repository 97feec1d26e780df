//! Decoding of encoded images to samples, one file a codec.

pub mod jpeg;

use crate::error::ImageError;

/// The result of decoding.
pub type Result<T, E = ImageError> = std::result::Result<T, E>;

/// Decoded samples, interleaved: `samples[(y * width + x) * bands + band]`.
#[derive(Debug, Clone, PartialEq, Eq)]
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
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Samples {
    /// 8 bits a sample, or fewer, scaled to 0..=255 where the format says so.
    U8(Vec<u8>),
    /// 9 to 16 bits a sample, as stored.
    U16(Vec<u16>),
}

/// What a file may declare before it is refused.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// The largest number of pixels, width times height.
    pub max_pixels: u64,
}

impl Default for Limits {
    /// Twice Pillow's `MAX_IMAGE_PIXELS`: where Pillow stops warning and refuses.
    fn default() -> Self {
        Limits { max_pixels: 2 * 89_478_485 }
    }
}

impl Limits {
    /// Fails when `width` x `height` is more than the limit.
    pub fn check(&self, width: u64, height: u64) -> Result<()> {
        match width.checked_mul(height) {
            Some(pixels) if pixels <= self.max_pixels => Ok(()),
            _ => Err(ImageError::TooLarge { width, height, limit: self.max_pixels }),
        }
    }
}
