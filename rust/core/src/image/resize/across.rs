//! The horizontal pass.

use super::kernel::{self, BANDS, OVERHANG, Rows, RowsMut, STRIP};
use super::taps::{Axis, Filter, Taps};
use super::{fit, kernel::LANES};
use crate::runtime::cpu::Level;

/// Rows that wait to be resized together.
#[derive(Debug)]
pub struct Across {
    level: Level,
    taps: Taps,
    width: usize,
    strip: Vec<u8>,
    waiting: usize,
    /// Rows behind the pass whose place has no byte to spare behind each.
    resized: Vec<u8>,
}

impl Across {
    pub fn new(filter: Filter, level: Level) -> Self {
        let (strip, resized) = (Vec::new(), Vec::new());
        Across { level, taps: Taps::new(filter, level), width: 0, strip, waiting: 0, resized }
    }

    /// Starts the next image.
    pub fn start(&mut self, axis: Axis) {
        self.taps.set(axis);
        (self.width, self.waiting) = (axis.input, 0);
        let stride = self.stride();
        fit(&mut self.strip, STRIP * stride);
    }

    /// Where the next row is to be written.
    pub fn next_row(&mut self) -> &mut [u8] {
        let start = self.waiting * self.stride();
        self.waiting += 1;
        &mut self.strip[start..][..BANDS * self.width]
    }

    /// How many rows wait.
    pub fn waiting(&self) -> usize {
        self.waiting
    }

    /// Whether no more rows can wait.
    pub fn is_full(&self) -> bool {
        self.waiting == STRIP
    }

    /// Resizes the rows that wait to the first of `output`, and overwrites those behind them up to [`STRIP`]. None waits
    /// any longer.
    pub fn pass(&mut self, output: &mut RowsMut<'_>) {
        let input = Rows { bytes: &self.strip, stride: self.stride() };
        if self.taps.copies() {
            let kept = BANDS * self.taps.needed().start..BANDS * self.taps.needed().end;
            let rows = input.bytes.chunks_exact(input.stride).zip(output.bytes.chunks_mut(output.stride));
            rows.take(self.waiting).for_each(|(row, out)| out[..kept.len()].copy_from_slice(&row[kept.clone()]));
        } else {
            kernel::across(self.level, &self.taps, &input, output);
        }
        self.waiting = 0;
    }

    /// Resizes the rows that wait to `output`, whose rows are `length` long without a gap.
    pub fn pass_to(&mut self, output: &mut [u8], length: usize) {
        let stride = (length + 1).next_multiple_of(LANES);
        let mut resized = std::mem::take(&mut self.resized);
        resized.resize(STRIP * stride, 0);
        self.pass(&mut RowsMut { bytes: &mut resized, stride });
        let rows = output.chunks_exact_mut(length).zip(resized.chunks_exact(stride));
        rows.for_each(|(out, row)| out.copy_from_slice(&row[..length]));
        self.resized = resized;
    }

    /// From one row of the strip to the next.
    fn stride(&self) -> usize {
        BANDS * self.width + OVERHANG
    }
}
