//! TIFF and BigTIFF: 1 to 16 bits a sample, 8 and 16 with a sign, and floating point, any number of bands, strips and tiles,
//! interleaved and planar, in either byte order.
//!
//! The reader is our own because every band of a raster has to come through: readers made for pictures take a fourth band
//! for alpha, or drop it, and few read planes. [`pages`] tells which of a file's directories are the image.

mod compression;
mod directory;
mod jpeg;
mod layout;
mod pages;
mod sample;

use compression::{Compression, Unpacker};
use directory::File;
use layout::{Differences, Kind, Layout, Photometric};
use sample::{Sample, undo_float_differences};

use super::jpeg::Scratch as JpegScratch;
use super::memory::Memory;
use super::png::drop_trailing;
use super::{Image, Limits, Result, Samples, check_cancelled};
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
/// gray one. A palette becomes RGB; fewer than 8 bits a sample are scaled to 0..=255; -128 to 127 become 0..=255.
pub fn decode(bytes: &[u8], limits: &Limits, memory: &mut Memory, jpeg: &mut JpegScratch) -> Result<Image> {
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
    let mut assembly = Assembly { pages: &layouts, bands, file, limits, memory, jpeg };
    let samples = match (layout.kind, layout.bits) {
        (Kind::Unsigned | Kind::Signed, ..=8) => Samples::U8(assembly.read()?),
        (Kind::Unsigned, _) => Samples::U16(assembly.read()?),
        (Kind::Signed, _) => Samples::I16(assembly.read()?),
        (Kind::Float, 64) => Samples::F64(assembly.read()?),
        (Kind::Float, _) => Samples::F32(assembly.read()?),
    };
    if let (Photometric::Palette(colors), Samples::U8(indices)) = (&layout.photometric, &samples) {
        let mut rgb = memory.zeroed(3 * indices.len())?;
        let pixels = rgb.as_chunks_mut::<3>().0.iter_mut();
        pixels.zip(indices).for_each(|(pixel, &index)| *pixel = colors[usize::from(index)]);
        return Ok(Image { width: layout.width, height: layout.height, bands: 3, samples: Samples::U8(rgb) });
    }
    let (bands, samples) = match samples {
        samples if !layout.gray_alpha => (bands, samples),
        Samples::U8(samples) => (1, Samples::U8(drop_trailing(samples, 2, 1))),
        Samples::U16(samples) => (1, Samples::U16(drop_trailing(samples, 2, 1))),
        Samples::I16(samples) => (1, Samples::I16(drop_trailing(samples, 2, 1))),
        Samples::F32(samples) => (1, Samples::F32(drop_trailing(samples, 2, 1))),
        Samples::F64(samples) => (1, Samples::F64(drop_trailing(samples, 2, 1))),
    };
    Ok(Image { width: layout.width, height: layout.height, bands, samples })
}

/// What reading the strips or tiles of an image takes.
struct Assembly<'a, 'b> {
    /// One page, or one a band.
    pages: &'a [Layout<'b>],
    bands: usize,
    file: File<'b>,
    limits: &'a Limits,
    memory: &'a mut Memory,
    jpeg: &'a mut JpegScratch,
}

impl Assembly<'_, '_> {
    /// Reads everything into one interleaved array.
    fn read<T: Sample>(&mut self) -> Result<Vec<T>> {
        let &mut Assembly { pages, bands, file, limits, ref mut memory, ref mut jpeg } = self;
        let mut image = memory.zeroed(pages[0].width * pages[0].height * bands)?;
        let (mut row, mut differences, mut plain) = (Vec::new(), Vec::new(), Vec::new());
        let mut pixels = Vec::new();
        for (first, layout) in pages.iter().enumerate() {
            let finish = |sample: T| {
                let sample = layout.white_is_zero().map_or(sample, |white| sample.inverted(white));
                if layout.scales() { sample.scaled(layout.bits) } else { sample }
            };
            let as_stored = layout.white_is_zero().is_none() && !layout.scales();
            // Of 8 bits with a sign the lowest value becomes 0.
            let offset = layout.kind == Kind::Signed && layout.bits == 8;
            let mut unpacker = Unpacker::new(layout.compression, layout.reversed);
            let hole = finish(T::nearest(layout.hole + if offset { 128.0 } else { 0.0 }, layout.bits));
            for chunk in layout.chunks() {
                check_cancelled()?;
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
                let size = layout.chunk_bytes(&chunk);
                let data = match layout.compression {
                    Compression::Jpeg => jpeg::unpack(data, layout, size, limits, jpeg, &mut pixels)?,
                    _ => unpacker.unpack(data, size, memory)?,
                };
                for (y, line) in rows.zip(data.chunks_exact(layout.row_bytes)) {
                    if layout.differences == Differences::Float {
                        differences.clear();
                        differences.extend_from_slice(line);
                        plain.resize(line.len(), 0);
                        undo_float_differences(&mut differences, &mut plain, layout);
                        T::unpack(&plain, layout, &mut row);
                    } else {
                        T::unpack(line, layout, &mut row);
                    }
                    if layout.differences == Differences::Horizontal {
                        accumulate(&mut row, layout.bands_in_chunk);
                    }
                    if offset {
                        row.iter_mut().for_each(|sample| *sample = sample.plus(T::nearest(128.0, 8)));
                    }
                    if !as_stored {
                        row.iter_mut().for_each(|sample| *sample = finish(*sample));
                    }
                    put(y, Some(&row));
                }
            }
        }
        Ok(image)
    }
}

/// Undoes horizontal differencing: every sample was stored as its difference from its left neighbor of the same band.
fn accumulate<T: Sample>(row: &mut [T], bands: usize) {
    for i in bands..row.len() {
        row[i] = row[i].plus(row[i - bands]);
    }
}
