//! Strips and tiles that are JPEGs of their own, but for the tables that they share (TIFF Technical Note 2).

use super::layout::{Layout, Photometric};
use super::{Result, corrupt};
use crate::image::Limits;
use crate::image::jpeg::{self, Color, Scratch};

/// The first `size` bytes of the rows that `data` holds. As in libtiff the directory says what the components mean, not the
/// markers of the JPEG.
pub fn unpack<'a>(
    data: &[u8],
    layout: &Layout<'_>,
    size: usize,
    limits: &Limits,
    scratch: &mut Scratch,
    pixels: &'a mut Vec<u8>,
) -> Result<&'a [u8]> {
    let color = match (&layout.photometric, layout.bands_in_chunk) {
        (Photometric::YCbCr, _) => Color::YCbCr,
        (_, 1) => Color::Gray,
        (_, 3) => Color::Rgb,
        (_, bands) => Color::Bands(bands),
    };
    let tables = layout.jpeg_tables.unwrap_or_default();
    let (width, height, bands) = jpeg::decode_with_tables(data, tables, color, limits, scratch, pixels)?;
    if width * bands != layout.row_bytes || pixels.len() < size {
        return Err(corrupt(format!(
            "a strip or tile of {width} x {height} pixels of {bands} bands in place of {} x {} of {}",
            layout.chunk_width,
            size / layout.row_bytes,
            layout.bands_in_chunk
        )));
    }
    Ok(&pixels[..size])
}
