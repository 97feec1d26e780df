//! PNG.

use std::io::Cursor;

use png::{BitDepth, ColorType, Decoder, DecodingError, InterlaceInfo, Reader, Transformations, expand_interlaced_row};

use super::memory::Memory;
use super::{Image, Limits, Result, Samples};
use crate::error::ImageError;

const FORMAT: &str = "PNG";

/// The most bytes that DEFLATE makes of one: a match of 258 bytes takes two bits.
const MAX_RATIO: u64 = 258 * 4;

/// Decodes a PNG image of any kind: palettes become RGB, alpha is dropped without blending, 1, 2 and 4 bits a sample are
/// scaled to 0..=255, 16 bits are kept.
pub fn decode(bytes: &[u8], limits: &Limits, memory: &mut Memory) -> Result<Image> {
    let mut decoder = decoder(bytes);
    let (width, height) = decoder.read_header_info().map_err(cause)?.size();
    limits.check(width.into(), height.into())?;

    let mut reader = decoder.read_info().map_err(cause)?;
    let size = reader.output_buffer_size().ok_or(DecodingError::LimitsExceeded).map_err(cause)?;
    // No byte of a file stands for more than this many: memory is asked for after that.
    if (reader.info().raw_bytes() as u64) / MAX_RATIO > bytes.len() as u64 {
        return Err(truncated());
    }
    let (color, depth) = reader.output_color_type();
    let (stored, bands) = match color {
        ColorType::Grayscale => (1, 1),
        ColorType::GrayscaleAlpha => (2, 1),
        ColorType::Rgba => (4, 3),
        ColorType::Rgb | ColorType::Indexed => (3, 3),
    };
    let samples = if depth == BitDepth::Sixteen {
        let mut samples: Vec<u16> = memory.zeroed(size / 2)?;
        read_frame(&mut reader, bytes, bytes_of(&mut samples))?;
        samples.iter_mut().for_each(|sample| *sample = u16::from_be(*sample));
        Samples::U16(drop_trailing(samples, stored, bands))
    } else {
        let mut samples = memory.zeroed(size)?;
        read_frame(&mut reader, bytes, &mut samples)?;
        Samples::U8(drop_trailing(samples, stored, bands))
    };
    Ok(Image { width: width as usize, height: height as usize, bands, samples })
}

/// Reads all rows into `data`.
fn read_frame(reader: &mut Reader<Cursor<&[u8]>>, bytes: &[u8], data: &mut [u8]) -> Result<()> {
    match reader.next_frame(data) {
        Ok(_) => Ok(()),
        // All rows may be there, though nothing that belongs behind them is.
        Err(error) if ends_early(&error) && read_rows(bytes, data)? => Ok(()),
        Err(error) => Err(cause(error)),
    }
}

/// The bytes that samples lie in.
fn bytes_of(samples: &mut [u16]) -> &mut [u8] {
    // SAFETY: any bytes are samples, bytes need no alignment, and the slice covers the same memory, borrowed as long.
    unsafe { std::slice::from_raw_parts_mut(samples.as_mut_ptr().cast(), size_of_val(samples)) }
}

fn decoder(bytes: &[u8]) -> Decoder<Cursor<&[u8]>> {
    let mut decoder = Decoder::new(Cursor::new(bytes));
    decoder.set_transformations(Transformations::EXPAND);
    decoder.set_ignore_text_chunk(true);
    decoder.set_ignore_iccp_chunk(true);
    decoder
}

fn ends_early(error: &DecodingError) -> bool {
    matches!(error, DecodingError::IoError(e) if e.kind() == std::io::ErrorKind::UnexpectedEof)
}

/// Reads row by row, and nothing behind the last one. Returns whether all rows are there.
fn read_rows(bytes: &[u8], data: &mut [u8]) -> Result<bool> {
    let mut reader = decoder(bytes).read_info().map_err(cause)?;
    let (color, depth) = reader.output_color_type();
    let bits = (color.samples() * depth as usize) as u8;
    let (width, height) = reader.info().size();
    let (Some(stride), interlaced) = (reader.output_line_size(width), reader.info().interlaced) else {
        return Ok(false);
    };
    let rows = if interlaced {
        (1..=7).map(|pass| rows_of_pass(pass, width as usize, height as usize)).sum()
    } else {
        height as usize
    };
    for y in 0..rows {
        match reader.next_interlaced_row() {
            Ok(Some(row)) => match row.interlace() {
                InterlaceInfo::Adam7(info) => expand_interlaced_row(data, stride, row.data(), info, bits),
                InterlaceInfo::Null(_) => data[y * stride..][..stride].copy_from_slice(row.data()),
            },
            _ => return Ok(false),
        }
    }
    Ok(true)
}

/// Rows of one pass of Adam7 interlacing.
fn rows_of_pass(pass: usize, width: usize, height: usize) -> usize {
    let (x, y, dx, dy) =
        [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)][pass - 1];
    let along = |length: usize, start: usize, step: usize| length.saturating_sub(start).div_ceil(step);
    if along(width, x, dx) == 0 { 0 } else { along(height, y, dy) }
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

fn truncated() -> ImageError {
    ImageError::Truncated { format: FORMAT, detail: "the data ends before the last row".into() }
}

fn cause(error: DecodingError) -> ImageError {
    let detail = error.to_string();
    match error {
        _ if ends_early(&error) => truncated(),
        DecodingError::LimitsExceeded => ImageError::Unsupported { format: FORMAT, detail },
        _ => ImageError::Corrupt { format: FORMAT, detail },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_belongs_behind_the_rows_may_be_missing() {
        for (file, adam7) in [
            (&include_bytes!("../../tests/images/rgba.png")[..], false),
            (include_bytes!("../../tests/images/interlaced16.png"), true),
        ] {
            let whole = decode(file, &Limits::default(), &mut Memory::default()).unwrap();
            assert_eq!(decoder(file).read_header_info().unwrap().interlaced, adam7);
            let rows = |end: usize| decode(&file[..end], &Limits::default(), &mut Memory::default());
            // Without IEND; without the checksum of the last IDAT and that of its stream besides.
            for missing in [1, 4, 12, 13, 16, 17, 20] {
                assert_eq!(rows(file.len() - missing), Ok(whole.clone()), "{missing}");
            }
            assert_eq!(rows(file.len() / 2).unwrap_err().kind(), "truncated");
        }
    }

    #[test]
    fn trailing_samples_are_dropped_in_place() {
        assert_eq!(drop_trailing(vec![1, 2, 3, 0, 4, 5, 6, 0], 4, 3), [1, 2, 3, 4, 5, 6]);
        assert_eq!(drop_trailing(vec![7, 0, 8, 0, 9, 0], 2, 1), [7, 8, 9]);
        assert_eq!(drop_trailing(vec![1, 2], 1, 1), [1, 2]);
    }
}
