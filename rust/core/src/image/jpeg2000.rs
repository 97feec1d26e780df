//! JPEG 2000 of 9 to 16 bits a sample.

use hayro_jpeg2000::{DecodeSettings, DecoderContext, Image as Decoder};

use super::memory::Memory;
use super::{Image, Limits, Result, Samples};
use crate::error::ImageError;

const FORMAT: &str = "JPEG 2000";

/// The first bytes of a file of boxes, and of a bare codestream.
pub const MAGICS: [&[u8]; 2] = [b"\0\0\0\x0cjP  \r\n\x87\n", CODESTREAM];

/// The markers SOC and SIZ.
const CODESTREAM: &[u8] = b"\xff\x4f\xff\x51";

/// The most bands, and tiles, of an image: decoding costs time for each, whatever it holds.
const MAX_BANDS: usize = 32;
const MAX_TILES: u64 = 1 << 16;

/// Decodes an image of 9 to 16 unsigned bits a sample, all of its bands.
///
/// Samples of up to 8 bits are [`ImageError::Unsupported`]: where coding loses something, the pixels of decoders differ, and
/// those of Pillow are the ones that entropies are measured by.
pub fn decode(bytes: &[u8], limits: &Limits, memory: &mut Memory) -> Result<Image> {
    let header = Header::read(bytes)?;
    let (width, height, bands) = (header.width, header.height, header.components.len());
    limits.check_bands(width, height, bands as u64)?;
    header.check()?;
    let pixels = (width * height) as usize;
    // The decoder does not ask: it holds coefficients, and samples of 32 bits.
    memory.probe(12 * pixels * bands)?;
    // What a file lacks at its end is not made up.
    let settings = DecodeSettings { resolve_palette_indices: false, strict: true, target_resolution: None };
    let cause = |error: hayro_jpeg2000::error::DecodeError| corrupt(error.to_string());
    let decoder = Decoder::new(bytes, &settings).map_err(cause)?;
    let mut context = DecoderContext::default();
    let decoded = decoder.decode(&mut context).map_err(cause)?;
    let components = decoded.components();
    if components.len() != bands || components.iter().any(|component| component.samples().len() != pixels) {
        return Err(corrupt("bands that are missing, or of different sizes"));
    }
    let highest = f32::from(u16::MAX >> (16 - header.components[0].bits));
    let mut samples: Vec<u16> = memory.zeroed(pixels * bands)?;
    for (band, component) in components.iter().enumerate() {
        let places = samples.iter_mut().skip(band).step_by(bands);
        places.zip(component.samples()).for_each(|(to, &from)| *to = from.round().clamp(0.0, highest) as u16);
    }
    Ok(Image { width: width as usize, height: height as usize, bands, samples: Samples::U16(samples) })
}

/// What the segment SIZ says (ISO/IEC 15444-1 A.5.1).
struct Header {
    width: u64,
    height: u64,
    tiles: u64,
    components: Vec<Component>,
}

#[derive(Clone, Copy, PartialEq)]
struct Component {
    bits: u32,
    signed: bool,
    /// Pixels to a sample, across and down.
    steps: [u8; 2],
}

impl Header {
    fn read(bytes: &[u8]) -> Result<Self> {
        let start = bytes.windows(CODESTREAM.len()).position(|window| window == CODESTREAM);
        let segment = start.map(|start| &bytes[start + CODESTREAM.len()..]).ok_or_else(|| corrupt("no codestream"))?;
        let number = |at: usize| segment[at..at + 4].iter().fold(0, |sum, &byte| sum << 8 | u64::from(byte));
        let cut = || ImageError::Truncated { format: FORMAT, detail: "the file ends within its headers".into() };
        if segment.len() < 38 {
            return Err(cut());
        }
        let [right, bottom, left, top, tile_width, tile_height, tile_left, tile_top] =
            std::array::from_fn(|i| number(4 + 4 * i));
        let count = usize::from(u16::from_be_bytes([segment[36], segment[37]]));
        let components = segment[38..].chunks_exact(3).take(count).map(|entry| Component {
            bits: u32::from(entry[0] & 0x7f) + 1,
            signed: entry[0] & 0x80 != 0,
            steps: [entry[1], entry[2]],
        });
        let components: Vec<_> = components.collect();
        if components.len() < count {
            return Err(cut());
        }
        if left >= right || top >= bottom || tile_width == 0 || tile_height == 0 || tile_left > left || tile_top > top {
            return Err(corrupt("an image or tiles without pixels"));
        }
        let tiles = (right - tile_left).div_ceil(tile_width) * (bottom - tile_top).div_ceil(tile_height);
        Ok(Header { width: right - left, height: bottom - top, tiles, components })
    }

    /// Fails for what is not read.
    fn check(&self) -> Result<()> {
        let unsupported = |detail: String| Err(ImageError::Unsupported { format: FORMAT, detail });
        let Some(&first) = self.components.first() else { return Err(corrupt("no bands")) };
        if self.components.iter().any(|&component| component != first) {
            return unsupported("bands that differ in depth or size; convert it to TIFF".into());
        }
        if first.steps != [1, 1] {
            return unsupported("bands of fewer samples than the image has pixels; convert it to TIFF".into());
        }
        if !(9..=16).contains(&first.bits) || first.signed {
            let signed = if first.signed { "signed " } else { "" };
            return unsupported(format!("samples of {} {signed}bits; convert it to TIFF", first.bits));
        }
        if self.components.len() > MAX_BANDS || self.tiles > MAX_TILES {
            let (bands, tiles) = (self.components.len(), self.tiles);
            return unsupported(format!("{bands} bands in {tiles} tiles; convert it to TIFF"));
        }
        Ok(())
    }
}

fn corrupt(detail: impl Into<String>) -> ImageError {
    ImageError::Corrupt { format: FORMAT, detail: detail.into() }
}
