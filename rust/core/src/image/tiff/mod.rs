//! TIFF and BigTIFF: 1, 2, 4, 8 and 16 unsigned bits a sample, any number of bands, strips and tiles, interleaved and planar,
//! in either byte order.
//!
//! The reader is our own because every band of a raster has to come through: readers made for pictures take a fourth band
//! for alpha, or drop it, and few read planes. Of a file of several pages the first is read.

mod compression;
mod directory;
mod layout;
mod sample;

use directory::{Directory, File};
use layout::{Layout, Photometric};
use sample::Sample;

use super::{Image, Limits, Result, Samples};
use crate::error::ImageError;

const FORMAT: &str = "TIFF";

fn truncated(detail: impl Into<String>) -> ImageError {
    ImageError::Truncated { format: FORMAT, detail: detail.into() }
}

fn corrupt(detail: impl Into<String>) -> ImageError {
    ImageError::Corrupt { format: FORMAT, detail: detail.into() }
}

fn unsupported(detail: impl Into<String>) -> ImageError {
    ImageError::Unsupported { format: FORMAT, detail: detail.into() }
}

/// Decodes the first page of a TIFF file. All its bands are kept, whatever its ExtraSamples call them; a palette becomes
/// RGB; fewer than 8 bits a sample are scaled to 0..=255.
pub fn decode(bytes: &[u8], limits: &Limits) -> Result<Image> {
    let (file, first) = File::open(bytes)?;
    let layout = Layout::read(&Directory::read(file, first)?, limits)?;
    let samples = match layout.bits {
        16 => Samples::U16(assemble(&layout, file)?),
        _ => Samples::U8(assemble(&layout, file)?),
    };
    let (bands, samples) = match (&layout.photometric, samples) {
        (Photometric::Palette(colours), Samples::U8(indices)) => {
            (3, Samples::U8(indices.iter().flat_map(|&index| colours[usize::from(index)]).collect()))
        }
        (_, samples) => (layout.bands, samples),
    };
    Ok(Image { width: layout.width, height: layout.height, bands, samples })
}

/// Reads all strips or tiles of all planes into one interleaved array.
fn assemble<T: Sample>(layout: &Layout, file: File<'_>) -> Result<Vec<T>> {
    let mut image = vec![T::default(); layout.width * layout.height * layout.bands];
    let mut row = Vec::new();
    let mut decompressed = Vec::new();
    for chunk in layout.chunks() {
        // A hole in a sparse file reads as zero.
        let Some(data) = layout.locate(file, &chunk)? else { continue };
        let data = layout.compression.decompress(data, layout.chunk_bytes(&chunk), &mut decompressed)?;
        for (y, line) in (chunk.y..layout.height).zip(data.chunks_exact(layout.row_bytes)) {
            T::unpack(line, layout, &mut row);
            if layout.differenced {
                accumulate(&mut row, layout.bands_in_chunk);
            }
            if let Some(white) = layout.white_is_zero() {
                row.iter_mut().for_each(|sample| *sample = sample.inverted(white));
            }
            if layout.scales() {
                row.iter_mut().for_each(|sample| *sample = sample.scaled(layout.bits));
            }
            let columns = layout.chunk_width.min(layout.width - chunk.x);
            let place = &mut image[(y * layout.width + chunk.x) * layout.bands..][..columns * layout.bands];
            if layout.bands_in_chunk == layout.bands {
                place.copy_from_slice(&row[..place.len()]);
            } else {
                place.iter_mut().skip(chunk.plane).step_by(layout.bands).zip(&row).for_each(|(to, &from)| *to = from);
            }
        }
    }
    Ok(image)
}

/// Undoes horizontal differencing: every sample was stored as its difference from its left neighbour of the same band.
fn accumulate<T: Sample>(row: &mut [T], bands: usize) {
    for i in bands..row.len() {
        row[i] = row[i].plus(row[i - bands]);
    }
}
