//! TIFF and BigTIFF: 1, 2, 4, 8 and 16 unsigned bits a sample, any number of bands, strips and tiles, interleaved and planar,
//! in either byte order.
//!
//! The reader is our own because every band of a raster has to come through: readers made for pictures take a fourth band
//! for alpha, or drop it, and few read planes. [`pages`] tells which of a file's directories are the image.

mod compression;
mod directory;
mod layout;
mod pages;
mod sample;

use compression::Unpacker;
use directory::File;
use layout::{Layout, Photometric};
use sample::Sample;

use super::memory::Memory;
use super::png::drop_trailing;
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

/// Decodes the image of a TIFF file: all its bands, whatever its ExtraSamples call them, but an alpha band beside a single
/// gray one. A palette becomes RGB; fewer than 8 bits a sample are scaled to 0..=255.
pub fn decode(bytes: &[u8], limits: &Limits, memory: &mut Memory) -> Result<Image> {
    let (file, first) = File::open(bytes)?;
    let pages = pages::of_image(file, first)?;
    let layouts: Vec<_> = pages.iter().map(|page| Layout::read(page, limits)).collect::<Result<_>>()?;
    let [layout, more @ ..] = &layouts[..] else { return Err(corrupt("no image")) };
    if !more.is_empty() {
        limits.check_bands(layout.width as u64, layout.height as u64, layouts.len() as u64)?;
        pages::check_bands(&layouts)?;
    }
    layouts.iter().try_for_each(|layout| layout.check_size(file))?;
    let bands = if more.is_empty() { layout.bands } else { layouts.len() };
    let samples = match layout.bits {
        16 => Samples::U16(assemble(&layouts, bands, file, memory)?),
        _ => Samples::U8(assemble(&layouts, bands, file, memory)?),
    };
    let (bands, samples) = match (&layout.photometric, samples) {
        (Photometric::Palette(colors), Samples::U8(indices)) => {
            let mut rgb = memory.zeroed(3 * indices.len())?;
            let pixels = rgb.as_chunks_mut::<3>().0.iter_mut();
            pixels.zip(indices).for_each(|(pixel, index)| *pixel = colors[usize::from(index)]);
            (3, Samples::U8(rgb))
        }
        (_, Samples::U8(samples)) if layout.gray_alpha => (1, Samples::U8(drop_trailing(samples, 2, 1))),
        (_, Samples::U16(samples)) if layout.gray_alpha => (1, Samples::U16(drop_trailing(samples, 2, 1))),
        (_, samples) => (bands, samples),
    };
    Ok(Image { width: layout.width, height: layout.height, bands, samples })
}

/// Reads all strips or tiles of one page, or of one a band, into one interleaved array.
fn assemble<T: Sample>(pages: &[Layout], bands: usize, file: File<'_>, memory: &mut Memory) -> Result<Vec<T>> {
    let mut image = memory.zeroed(pages[0].width * pages[0].height * bands)?;
    let mut row = Vec::new();
    for (first, layout) in pages.iter().enumerate() {
        let finish = |sample: T| {
            let sample = layout.white_is_zero().map_or(sample, |white| sample.inverted(white));
            if layout.scales() { sample.scaled(layout.bits) } else { sample }
        };
        let mut unpacker = Unpacker::new(layout.compression);
        let hole = finish(T::nearest(layout.hole, layout.bits));
        for chunk in layout.chunks() {
            let columns = layout.chunk_width.min(layout.width - chunk.x);
            let mut put = |y: usize, row: Option<&[T]>| {
                let place = &mut image[(y * layout.width + chunk.x) * bands..][..columns * bands];
                match row {
                    Some(row) if layout.bands_in_chunk == bands => place.copy_from_slice(&row[..place.len()]),
                    None if layout.bands_in_chunk == bands => place.fill(hole),
                    _ => {
                        let places = place.iter_mut().skip(first + chunk.plane).step_by(bands);
                        match row {
                            Some(row) => places.zip(row).for_each(|(to, &from)| *to = from),
                            None => places.for_each(|to| *to = hole),
                        }
                    }
                }
            };
            let rows = chunk.y..layout.height.min(chunk.y + layout.chunk_height);
            let Some(data) = layout.locate(file, &chunk)? else {
                rows.for_each(|y| put(y, None));
                continue;
            };
            let data = unpacker.unpack(data, layout.chunk_bytes(&chunk), memory)?;
            for (y, line) in rows.zip(data.chunks_exact(layout.row_bytes)) {
                T::unpack(line, layout, &mut row);
                if layout.differenced {
                    accumulate(&mut row, layout.bands_in_chunk);
                }
                if layout.white_is_zero().is_some() || layout.scales() {
                    row.iter_mut().for_each(|sample| *sample = finish(*sample));
                }
                put(y, Some(&row));
            }
        }
    }
    Ok(image)
}

/// Undoes horizontal differencing: every sample was stored as its difference from its left neighbor of the same band.
fn accumulate<T: Sample>(row: &mut [T], bands: usize) {
    for i in bands..row.len() {
        row[i] = row[i].plus(row[i - bands]);
    }
}
