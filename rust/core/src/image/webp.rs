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
    let mut there = 0;
    let mut at = 12;
    while let Some(&[a, b, c, d, l0, l1, l2, l3]) = bytes.get(at..).and_then(<[u8]>::first_chunk) {
        there |= match &[a, b, c, d] {
            // A lossless picture holds its alpha itself.
            b"ALPH" | b"VP8L" => ALPHA,
            b"EXIF" => EXIF,
            b"XMP " => XMP,
            b"ANIM" | b"ANMF" => ANIMATION | ALPHA,
            _ => 0,
        };
        let length = u32::from_le_bytes([l0, l1, l2, l3]) as usize;
        at = at.saturating_add(8).saturating_add(length).saturating_add(length % 2);
    }
    let kept = flags & (there | !(ALPHA | EXIF | XMP | ANIMATION));
    (kept != flags).then(|| {
        let mut patched = bytes.to_vec();
        patched[FLAGS] = kept;
        patched
    })
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
}
