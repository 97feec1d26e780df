//! PNG.

use std::io::Cursor;

use png::{BitDepth, ColorType, Decoder, DecodingError, Transformations};

use super::{Image, Limits, Result, Samples};
use crate::error::ImageError;

const FORMAT: &str = "PNG";

/// Decodes a PNG image of any kind: palettes become RGB, alpha is dropped without blending, 1, 2 and 4 bits a sample are
/// scaled to 0..=255, 16 bits are kept.
pub fn decode(bytes: &[u8], limits: &Limits) -> Result<Image> {
    let mut decoder = Decoder::new(Cursor::new(bytes));
    decoder.set_transformations(Transformations::EXPAND);
    decoder.set_ignore_text_chunk(true);
    decoder.set_ignore_iccp_chunk(true);
    let (width, height) = decoder.read_header_info().map_err(cause)?.size();
    limits.check(width.into(), height.into())?;

    let mut reader = decoder.read_info().map_err(cause)?;
    let size = reader.output_buffer_size().ok_or(DecodingError::LimitsExceeded).map_err(cause)?;
    let mut data = vec![0; size];
    reader.next_frame(&mut data).map_err(cause)?;

    let (color, depth) = reader.output_color_type();
    let (stored, bands) = match color {
        ColorType::Grayscale => (1, 1),
        ColorType::GrayscaleAlpha => (2, 1),
        ColorType::Rgba => (4, 3),
        ColorType::Rgb | ColorType::Indexed => (3, 3),
    };
    let samples = match depth {
        BitDepth::Sixteen => {
            let wide = data.chunks_exact(2).map(|s| u16::from_be_bytes([s[0], s[1]])).collect();
            Samples::U16(drop_trailing(wide, stored, bands))
        }
        _ => Samples::U8(drop_trailing(data, stored, bands)),
    };
    Ok(Image { width: width as usize, height: height as usize, bands, samples })
}

/// Keeps the first `kept` of every `stored` samples.
pub(super) fn drop_trailing<T: Copy>(mut samples: Vec<T>, stored: usize, kept: usize) -> Vec<T> {
    if stored == kept {
        return samples;
    }
    let pixels = samples.len() / stored;
    for pixel in 1..pixels {
        samples.copy_within(pixel * stored..pixel * stored + kept, pixel * kept);
    }
    samples.truncate(pixels * kept);
    samples
}

fn cause(error: DecodingError) -> ImageError {
    let detail = error.to_string();
    match error {
        DecodingError::IoError(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => {
            ImageError::Truncated { format: FORMAT, detail: "the data ends before the last row".into() }
        }
        DecodingError::LimitsExceeded => ImageError::Unsupported { format: FORMAT, detail },
        _ => ImageError::Corrupt { format: FORMAT, detail },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trailing_samples_are_dropped_in_place() {
        assert_eq!(drop_trailing(vec![1, 2, 3, 0, 4, 5, 6, 0], 4, 3), [1, 2, 3, 4, 5, 6]);
        assert_eq!(drop_trailing(vec![7, 0, 8, 0, 9, 0], 2, 1), [7, 8, 9]);
        assert_eq!(drop_trailing(vec![1, 2], 1, 1), [1, 2]);
    }
}
