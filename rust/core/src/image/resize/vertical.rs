//! The vertical pass.

use std::ops::Range;

use super::fit;
use super::kernels::{self, GROUP, LANES, Rows, RowsMut, STRIP};
use super::weights::{Axis, Filter, Weights};
use crate::image::Result;
use crate::runtime::cpu::Level;

/// Rows that are kept besides those that a row of the output is made of, so that the rest is seldom moved.
const SLACK: usize = 64;
/// Rows behind the last one that may be written, where a strip is not full, or read, where a group of weights is not.
const AHEAD: usize = STRIP + GROUP;

/// The rows that rows of the output are still made of.
#[derive(Debug)]
pub struct Vertical {
    level: Level,
    weights: Weights,
    stride: usize,
    rows: Vec<u8>,
    /// The number of the first of them.
    oldest: usize,
    held: usize,
    /// Rows of the output that are made.
    done: usize,
}

impl Vertical {
    pub fn new(filter: Filter, level: Level) -> Self {
        let (rows, oldest, held, done) = (Vec::new(), 0, 0, 0);
        Vertical { level, weights: Weights::new(filter, level), stride: 0, rows, oldest, held, done }
    }

    /// Starts the next image, whose rows are `length` bytes long.
    pub fn start(&mut self, axis: Axis, length: usize) -> Result<()> {
        self.weights.set(axis);
        // A byte to spare behind each, which the horizontal pass overwrites.
        self.stride = (length + 1).next_multiple_of(LANES);
        (self.oldest, self.held, self.done) = (self.weights.needed().start, 0, 0);
        fit(&mut self.rows, (self.weights.longest() + SLACK) * self.stride)
    }

    /// The rows that count.
    pub fn needed(&self) -> Range<usize> {
        self.weights.needed()
    }

    /// The place of the next [`STRIP`] rows.
    pub fn next_rows(&mut self) -> RowsMut<'_> {
        if (self.held + AHEAD) * self.stride > self.rows.len() {
            self.forget();
        }
        RowsMut { bytes: &mut self.rows[self.held * self.stride..], stride: self.stride }
    }

    /// Takes note that so many of them have been written.
    pub fn add(&mut self, rows: usize) {
        self.held += rows;
    }

    /// The number of rows of the output that are made.
    pub fn done(&self) -> usize {
        self.done
    }

    /// Whether all rows that the next row of the output is made of are there.
    pub fn is_ready(&self) -> bool {
        self.weights.spans().get(self.done).is_some_and(|span| span.end() <= self.oldest + self.held)
    }

    /// Makes the next row of the output, if there is all that it is made of.
    pub fn pass(&mut self, output: &mut [u8]) -> bool {
        if !self.is_ready() {
            return false;
        }
        let span = &self.weights.spans()[self.done];
        let input = Rows { bytes: &self.rows[(span.start - self.oldest) * self.stride..], stride: self.stride };
        if self.weights.copies() {
            output.copy_from_slice(&input.bytes[..output.len()]);
        } else {
            kernels::vertical(self.level, self.weights.packed().groups(span), &input, output);
        }
        self.done += 1;
        true
    }

    /// Makes room by moving what is still needed to the front.
    fn forget(&mut self) {
        let end = self.oldest + self.held;
        let needed = self.weights.spans()[self.done..].iter().map(|span| span.start).min();
        let oldest = needed.unwrap_or(end).clamp(self.oldest, end);
        self.rows.copy_within((oldest - self.oldest) * self.stride..self.held * self.stride, 0);
        (self.oldest, self.held) = (oldest, end - oldest);
        let rows = (self.held + AHEAD) * self.stride;
        self.rows.resize(rows.max(self.rows.len()), 0);
    }

    #[cfg(test)]
    pub fn held_bytes(&self) -> usize {
        self.rows.len()
    }
}
