//! Rows to gray levels as they are decoded: there is never a whole image.

use super::frame::{Colour, MAX_COMPONENTS};
use super::rows::Sink;
use super::{Scratch, color, decode_rows};
use crate::image::gray::Gray;
use crate::image::{ImageRef, Levels, Limits, Reduction, Result, SamplesRef};
use crate::runtime::cpu::{self, Level};

/// Samples collected before they are reduced, where a row does not become levels at once.
const COLLECTED: usize = 1 << 14;

/// Hands the gray levels of a file's pixels to `sink`.
///
/// # Errors
/// Those of [`super::decode`] and [`Reduction::gray_levels`]; levels may have been handed out before.
pub fn gray_levels(
    bytes: &[u8],
    reduction: &Reduction,
    limits: &Limits,
    scratch: &mut Scratch,
    sink: &mut impl Levels,
) -> Result<()> {
    let mut samples = std::mem::take(&mut scratch.samples);
    samples.clear();
    let mut rows = Rows {
        level: cpu::active(),
        reduction,
        sink,
        samples,
        width: 0,
        colour: Colour::Gray,
        direct: false,
        outcome: Ok(()),
    };
    let decoded = decode_rows(bytes, reduction.output(), limits, scratch, &mut rows);
    rows.flush();
    scratch.samples = rows.samples;
    decoded.and(rows.outcome)
}

struct Rows<'a, L> {
    level: Level,
    reduction: &'a Reduction,
    sink: &'a mut L,
    /// Of the last few rows, where they do not become levels at once.
    samples: Vec<u8>,
    width: usize,
    colour: Colour,
    /// Whether a row becomes levels at once.
    direct: bool,
    outcome: Result<()>,
}

impl<L: Levels> Rows<'_, L> {
    /// Reduces the samples that were collected.
    fn flush(&mut self) {
        if self.direct || self.outcome.is_err() {
            return;
        }
        let (bands, samples) = (self.colour.bands(), SamplesRef::U8(&self.samples));
        let image = ImageRef { width: self.samples.len() / bands, height: 1, bands, samples };
        self.outcome = self.reduction.gray_levels(image, self.sink);
        self.samples.clear();
    }
}

impl<L: Levels> Sink for Rows<'_, L> {
    fn start(&mut self, width: usize, _: usize, colour: Colour) {
        (self.width, self.colour) = (width, colour);
        let weighted = colour == Colour::YCbCr && self.reduction.gray() != Gray::Mean;
        self.direct = self.reduction.takes_all(colour.bands()) && (colour == Colour::Gray || weighted);
        self.samples.clear();
    }

    fn row(&mut self, planes: [&[u8]; MAX_COMPONENTS]) {
        let [a, b, c, _] = planes;
        if !self.direct {
            let start = self.samples.len();
            self.samples.resize(start + self.width * self.colour.bands(), 0);
            color::interleave(self.level, self.colour, planes, &mut self.samples[start..]);
            if self.samples.len() >= COLLECTED {
                self.flush();
            }
        } else if self.colour == Colour::Gray {
            self.sink.add(a);
        } else {
            self.sink.add_with(self.width, |levels| color::levels_from_ycbcr(self.level, a, b, c, levels));
        }
    }
}
