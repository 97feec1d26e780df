//! WebP.

use std::io::Cursor;

use image_webp::{DecodingError, WebPDecoder};

use super::memory::Memory;
use super::png::drop_trailing;
use super::{Image, Limits, Result, Samples};
use crate::error::ImageError;

const FORMAT: &str = "WebP";

/// Decodes a still WebP image, lossy or lossless, to RGB. Alpha is dropped without blending.
pub fn decode(bytes: &[u8], limits: &Limits, memory: &mut Memory) -> Result<Image> {
    check_length(bytes)?;
    let patched = without_false_promises(bytes);
    let bytes = patched.as_deref().unwrap_or(bytes);
    let mut decoder = WebPDecoder::new(Cursor::new(bytes)).map_err(cause)?;
    if decoder.is_animated() {
        return Err(ImageError::Unsupported {
            format: FORMAT,
            detail: "an animation; save one frame as a still".into(),
        });
    }
    let (width, height) = decoder.dimensions();
    limits.check(width.into(), height.into())?;
    check_frames(bytes, (width, height))?;
    let size = decoder.output_buffer_size().ok_or(DecodingError::ImageTooLarge).map_err(cause)?;
    // The decoder holds planes, or pixels of four bytes, beside what it returns, and does not ask for them.
    memory.probe(2 * size)?;
    let mut data = memory.zeroed(size)?;
    decoder.read_image(&mut data).map_err(cause)?;
    let stored = if decoder.has_alpha() { 4 } else { 3 };
    let samples = Samples::U8(drop_trailing(data, stored, 3));
    Ok(Image { width: width as usize, height: height as usize, bands: 3, samples })
}

/// Where the flags of the chunk VP8X stand, if that is a file's first one.
const FLAGS: usize = 20;
const ALPHA: u8 = 0x10;
const EXIF: u8 = 0x08;
const XMP: u8 = 0x04;
const ANIMATION: u8 = 0x02;

/// A copy whose flags promise only chunks that are there, if the file's own promise others. libwebp goes by the chunks;
/// the decoder by the flags.
fn without_false_promises(bytes: &[u8]) -> Option<Vec<u8>> {
    let flags = *bytes.get(FLAGS).filter(|_| bytes[12..].starts_with(b"VP8X"))?;
    let there = chunks(bytes).fold(0, |there, (kind, _)| {
        there
            | match kind {
                // A lossless picture holds its alpha itself.
                b"ALPH" | b"VP8L" => ALPHA,
                b"EXIF" => EXIF,
                b"XMP " => XMP,
                b"ANIM" | b"ANMF" => ANIMATION | ALPHA,
                _ => 0,
            }
    });
    let kept = flags & (there | !(ALPHA | EXIF | XMP | ANIMATION));
    (kept != flags).then(|| {
        let mut patched = bytes.to_vec();
        patched[FLAGS] = kept;
        patched
    })
}

/// The chunks of a file by their names; the last one may be cut short.
fn chunks(bytes: &[u8]) -> impl Iterator<Item = (&[u8; 4], &[u8])> {
    let mut rest = bytes.get(12..).unwrap_or_default();
    std::iter::from_fn(move || {
        let (kind, after) = rest.split_first_chunk::<4>()?;
        let (length, content) = after.split_first_chunk::<4>()?;
        let length = u32::from_le_bytes(*length) as usize;
        rest = content.get(length.saturating_add(length % 2)..).unwrap_or_default();
        Some((kind, &content[..length.min(content.len())]))
    })
}

/// Fails where a frame has another size than the picture. The decoder would ask for the frame's memory before it looked.
fn check_frames(bytes: &[u8], size: (u32, u32)) -> Result<()> {
    for (kind, content) in chunks(bytes) {
        let frame = match (kind, content) {
            // A tag of three bytes, and the start code; 14 bits a side, of which the others scale.
            (b"VP8 ", [_, _, _, 0x9d, 0x01, 0x2a, w0, w1, h0, h1, ..]) => {
                let side = |low: u8, high: u8| u32::from(u16::from_le_bytes([low, high]) & 0x3fff);
                (side(*w0, *w1), side(*h0, *h1))
            }
            (b"VP8L", [0x2f, a, b, c, d, ..]) => {
                let bits = u32::from_le_bytes([*a, *b, *c, *d]);
                (1 + (bits & 0x3fff), 1 + (bits >> 14 & 0x3fff))
            }
            _ => continue,
        };
        if frame != size {
            let detail = format!("a frame of {} x {} for a picture of {} x {}", frame.0, frame.1, size.0, size.1);
            return Err(ImageError::Corrupt { format: FORMAT, detail });
        }
    }
    Ok(())
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

#[cfg(test)]
mod tests {
    use super::*;

    /// A still in the extended format, with these flags.
    fn extended(still: &[u8], flags: u8) -> Vec<u8> {
        let image = decode(still, &Limits::default(), &mut Memory::default()).unwrap();
        let (width, height) = (image.width as u32 - 1, image.height as u32 - 1);
        let header = [&[flags, 0, 0, 0][..], &width.to_le_bytes()[..3], &height.to_le_bytes()[..3]].concat();
        let chunks = [b"WEBPVP8X\x0a\0\0\0", &header[..], &still[12..]].concat();
        [b"RIFF", &(chunks.len() as u32).to_le_bytes()[..], &chunks].concat()
    }

    #[test]
    fn flags_of_missing_chunks_change_nothing() {
        for still in
            [&include_bytes!("../../tests/images/lossy.webp")[..], include_bytes!("../../tests/images/lossless.webp")]
        {
            let whole = decode(still, &Limits::default(), &mut Memory::default());
            for flags in 0..64 {
                assert_eq!(
                    decode(&extended(still, flags), &Limits::default(), &mut Memory::default()),
                    whole,
                    "flags {flags:#x}"
                );
            }
        }
    }

    #[test]
    fn a_frame_of_another_size_is_refused_before_it_has_memory() {
        for (still, at) in [
            (&include_bytes!("../../tests/images/lossy.webp")[..], 8 + 6),
            (include_bytes!("../../tests/images/lossless.webp"), 8 + 1),
        ] {
            let mut file = extended(still, 0);
            file[30 + at..30 + at + 4].copy_from_slice(&[0x38, 0x38, 0x38, 0x38]);
            let error = decode(&file, &Limits::default(), &mut Memory::default()).unwrap_err();
            assert!(error.to_string().starts_with("corrupt WebP: a frame of "), "{error}");
        }
    }
}
