//! The horizontal pass.

use super::kernels::{self, BANDS, OVERHANG, Rows, RowsMut, STRIP};
use super::weights::{Axis, Filter, Weights};
use super::{fit, kernels::LANES};
use crate::image::Result;
use crate::runtime::cpu::Level;

/// Rows that wait to be resized together.
#[derive(Debug)]
pub struct Horizontal {
    level: Level,
    weights: Weights,
    width: usize,
    strip: Vec<u8>,
    waiting: usize,
    /// Rows behind the pass whose place has no byte to spare behind each.
    resized: Vec<u8>,
}

impl Horizontal {
    pub fn new(filter: Filter, level: Level) -> Self {
        let (strip, resized) = (Vec::new(), Vec::new());
        Horizontal { level, weights: Weights::new(filter, level), width: 0, strip, waiting: 0, resized }
    }

    /// Starts the next image.
    pub fn start(&mut self, axis: Axis) -> Result<()> {
        self.weights.set(axis);
        (self.width, self.waiting) = (axis.input, 0);
        let stride = self.stride();
        fit(&mut self.strip, STRIP * stride)
    }

    /// The place of the next row, to be written by the caller.
    pub fn next_row(&mut self) -> &mut [u8] {
        let start = self.waiting * self.stride();
        self.waiting += 1;
        &mut self.strip[start..][..BANDS * self.width]
    }

    /// The number of rows that wait.
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
        if self.weights.copies() {
            let kept = BANDS * self.weights.needed().start..BANDS * self.weights.needed().end;
            let rows = input.bytes.chunks_exact(input.stride).zip(output.bytes.chunks_mut(output.stride));
            rows.take(self.waiting).for_each(|(row, out)| out[..kept.len()].copy_from_slice(&row[kept.clone()]));
        } else {
            kernels::horizontal(self.level, self.weights.packed(), &input, output);
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
