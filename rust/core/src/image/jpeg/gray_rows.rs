//! Reduces rows to gray levels as they are decoded, so that there is never a whole image in memory.

use super::frame::{Color, MAX_COMPONENTS};
use super::row_output::RowSink;
use super::{Scratch, color, decode_rows, quality};
use crate::image::gray::Gray;
use crate::image::{GrayOptions, Header, ImageRef, LevelSink, Limits, Result, SamplesRef};
use crate::runtime::cpu::{self, Level};

/// The number of samples that are collected before they are reduced, where a row does not become levels at once.
const COLLECTED: usize = 1 << 14;

/// Hands the gray levels of a file's pixels to `sink`.
///
/// # Errors
/// Those of [`super::decode`] and [`GrayOptions::gray_levels`]; levels may have been handed out before.
pub fn gray_levels(
    bytes: &[u8],
    options: &GrayOptions,
    limits: &Limits,
    scratch: &mut Scratch,
    sink: &mut impl LevelSink,
) -> Result<()> {
    let mut samples = std::mem::take(&mut scratch.samples);
    samples.clear();
    let mut rows = GrayRows {
        level: cpu::active(),
        options,
        sink,
        samples,
        width: 0,
        quality: None,
        color: Color::Gray,
        direct: false,
        outcome: Ok(()),
    };
    let decoded = decode_rows(bytes, options.output(), limits, scratch, &mut rows);
    rows.flush();
    scratch.samples = rows.samples;
    decoded.and(rows.outcome)
}

/// Takes rows, and hands on their gray levels.
struct GrayRows<'a, L> {
    level: Level,
    options: &'a GrayOptions,
    sink: &'a mut L,
    /// The samples of the last few rows, where those do not become levels at once.
    samples: Vec<u8>,
    width: usize,
    quality: Option<u8>,
    color: Color,
    /// Whether a row becomes levels at once.
    direct: bool,
    outcome: Result<()>,
}

impl<L: LevelSink> GrayRows<'_, L> {
    /// Reduces the samples that were collected.
    fn flush(&mut self) {
        if self.direct || self.outcome.is_err() {
            return;
        }
        let (bands, samples) = (self.color.bands(), SamplesRef::U8(&self.samples));
        let image = ImageRef { width: self.samples.len() / bands, height: 1, bands, samples };
        self.outcome = self.options.piece(image, self.sink);
        self.samples.clear();
    }
}

impl<L: LevelSink> RowSink for GrayRows<'_, L> {
    fn quantized_by(&mut self, table: &[u16; 64]) {
        self.quality = Some(quality::estimate(table));
    }

    fn start(&mut self, width: usize, height: usize, color: Color) -> Result<()> {
        (self.width, self.color) = (width, color);
        let (missing, jpeg_quality) = (self.options.narrow_nodata(), self.quality);
        self.sink.start(Header { width, height, missing, jpeg_quality });
        let weighted = color == Color::YCbCr && self.options.gray() != Gray::Mean;
        self.direct = self.options.takes_all(color.bands()) && (color == Color::Gray || weighted);
        self.samples.clear();
        Ok(())
    }

    fn row(&mut self, planes: [&[u8]; MAX_COMPONENTS]) {
        let [a, b, c, _] = planes;
        if !self.direct {
            let start = self.samples.len();
            self.samples.resize(start + self.width * self.color.bands(), 0);
            color::interleave(self.level, self.color, planes, &mut self.samples[start..]);
            if self.samples.len() >= COLLECTED {
                self.flush();
            }
        } else if self.color == Color::Gray {
            self.sink.add(a);
        } else {
            self.sink.add_with(self.width, |levels| color::levels_from_ycbcr(self.level, a, b, c, levels));
        }
    }
}
