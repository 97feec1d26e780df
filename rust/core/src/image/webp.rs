//! WebP.

use std::io::Cursor;

use image_webp::{DecodingError, WebPDecoder};

use super::png::drop_trailing;
use super::{Image, Limits, Result, Samples};
use crate::error::ImageError;

const FORMAT: &str = "WebP";

/// Decodes a still WebP image, lossy or lossless, to RGB. Alpha is dropped without blending.
pub fn decode(bytes: &[u8], limits: &Limits) -> Result<Image> {
    check_length(bytes)?;
    let mut decoder = WebPDecoder::new(Cursor::new(bytes)).map_err(cause)?;
    if decoder.is_animated() {
        return Err(ImageError::Unsupported {
            format: FORMAT,
            detail: "an animation; save one frame as a still".into(),
        });
    }
    let (width, height) = decoder.dimensions();
    limits.check(width.into(), height.into())?;
    let size = decoder.output_buffer_size().ok_or(DecodingError::ImageTooLarge).map_err(cause)?;
    let mut data = vec![0; size];
    decoder.read_image(&mut data).map_err(cause)?;
    let stored = if decoder.has_alpha() { 4 } else { 3 };
    let samples = Samples::U8(drop_trailing(data, stored, 3));
    Ok(Image { width: width as usize, height: height as usize, bands: 3, samples })
}

/// Fails when the file is shorter than its header says. The decoder alone would call such a file corrupt.
fn check_length(bytes: &[u8]) -> Result<()> {
    // Format::sniff has seen the twelve bytes of the RIFF header.
    let declared = u64::from(u32::from_le_bytes([bytes[4], bytes[5], bytes[6], bytes[7]])) + 8;
    if (bytes.len() as u64) < declared {
        let detail = format!("{} bytes of {declared}", bytes.len());
        return Err(ImageError::Truncated { format: FORMAT, detail });
    }
    Ok(())
}

fn cause(error: DecodingError) -> ImageError {
    let detail = error.to_string();
    match error {
        DecodingError::IoError(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => {
            ImageError::Truncated { format: FORMAT, detail: "the data ends before the last row".into() }
        }
        DecodingError::UnsupportedFeature(_) => ImageError::Unsupported { format: FORMAT, detail },
        _ => ImageError::Corrupt { format: FORMAT, detail },
    }
}
