//! The weights of the filters, rounded as Pillow rounds them.
//!
//! A sample of the output is a weighted sum of the input's samples about the same place. Where the output is smaller, the
//! filter is stretched by the ratio: every sample of the input counts. What leads out of the image is left out, and the
//! other weights are scaled to a sum of one.

use std::ops::Range;

use super::kernels::{self, GROUP, ONE, PackedWeights, Span};
use crate::runtime::cpu::Level;

/// The shape of a weight over the distance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Filter {
    /// A triangle from -1 to 1.
    Bilinear,
    /// R. Keys, "Cubic convolution interpolation for digital image processing", 1981, eq. 15: `a = -1/2`, from -2 to 2.
    Bicubic,
}

impl Filter {
    /// The distance beyond which the weight is 0.
    fn support(self) -> f64 {
        match self {
            Self::Bilinear => 1.0,
            Self::Bicubic => 2.0,
        }
    }

    /// The weight at distance `x`. The order of the operations is Pillow's: it shows in the last bit.
    pub(super) fn weight(self, x: f64) -> f64 {
        let x = x.abs();
        match self {
            Self::Bilinear if x < 1.0 => 1.0 - x,
            Self::Bicubic if x < 1.0 => (1.5 * x - 2.5) * x * x + 1.0,
            Self::Bicubic if x < 2.0 => (((x - 5.0) * x + 8.0) * x - 4.0) * -0.5,
            _ => 0.0,
        }
    }
}

/// One direction of a resize: `input` samples become `full`, of which `count` from `first` on are computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Axis {
    /// Samples of the input.
    pub input: usize,
    /// Samples of the whole output.
    pub full: usize,
    /// The first of them that is computed.
    pub first: usize,
    /// The number of samples that are computed.
    pub count: usize,
}

/// The weights of one direction, kept from image to image: those of the same size share them.
#[derive(Debug)]
pub struct Weights {
    filter: Filter,
    level: Level,
    axis: Option<Axis>,
    packed: PackedWeights,
    longest: usize,
    /// The weights of one sample of the output, before rounding.
    weights: Vec<f64>,
}

impl Weights {
    /// Starts without weights. [`Weights::set`] makes them, in groups as the kernels of `level` read them.
    pub fn new(filter: Filter, level: Level) -> Self {
        let (packed, weights) = (PackedWeights::default(), Vec::new());
        Weights { filter, level, axis: None, packed, longest: 0, weights }
    }

    /// Makes the weights of `axis`, unless they are there.
    pub fn set(&mut self, axis: Axis) {
        if self.axis == Some(axis) {
            return;
        }
        self.axis = Some(axis);
        self.packed.spans.clear();
        self.packed.groups.clear();
        for place in axis.first..axis.first + axis.count {
            if axis.input == axis.full {
                self.push(place, |_| ONE, 1);
            } else {
                let start = self.weigh(axis, place);
                let weights = std::mem::take(&mut self.weights);
                let rounded = |i: usize| {
                    let scaled = weights[i] * f64::from(ONE);
                    (if weights[i] < 0.0 { scaled - 0.5 } else { scaled + 0.5 }) as i32
                };
                // What is rounded to nothing at the ends needs no sample, but for one.
                let leading = (0..weights.len() - 1).take_while(|&i| rounded(i) == 0).count();
                let trailing = (leading + 1..weights.len()).rev().take_while(|&i| rounded(i) == 0).count();
                self.push(start + leading, |i| rounded(leading + i), weights.len() - leading - trailing);
                self.weights = weights;
            }
        }
        let spans = &self.packed.spans;
        let start = spans.iter().map(|span| span.start).min().unwrap_or(0);
        self.packed.needed = start..spans.iter().map(Span::end).max().unwrap_or(0);
        self.longest = spans.iter().map(|span| span.len).max().unwrap_or(0);
    }

    /// Sets `weights` to those of the output's sample at `place`, and returns the first sample of the input that they are
    /// for.
    fn weigh(&mut self, axis: Axis, place: usize) -> usize {
        let scale = axis.input as f64 / axis.full as f64;
        let stretch = scale.max(1.0);
        let center = (place as f64 + 0.5) * scale;
        let support = self.filter.support() * stretch;
        let start = (center - support + 0.5).max(0.0) as usize;
        let end = ((center + support + 0.5) as usize).min(axis.input);
        let per_sample = 1.0 / stretch;
        let filter = self.filter;
        self.weights.clear();
        self.weights.extend((start..end).map(|i| filter.weight((i as f64 - center + 0.5) * per_sample)));
        let sum: f64 = self.weights.iter().sum();
        if sum != 0.0 {
            self.weights.iter_mut().for_each(|weight| *weight /= sum);
        }
        start
    }

    /// Adds a sample of the output.
    fn push(&mut self, start: usize, weight: impl Fn(usize) -> i32, len: usize) {
        self.packed.spans.push(Span { start, len, group: self.packed.groups.len() });
        for from in (0..len).step_by(GROUP) {
            let group = std::array::from_fn(|i| if from + i < len { weight(from + i) } else { 0 });
            self.packed.groups.push(kernels::pack(self.level, group));
        }
    }

    /// The weights as the kernels read them.
    pub fn packed(&self) -> &PackedWeights {
        &self.packed
    }

    /// By sample of the output: those of the input.
    pub fn spans(&self) -> &[Span] {
        &self.packed.spans
    }

    /// Whether samples come out as they are.
    pub fn copies(&self) -> bool {
        self.axis.is_some_and(|axis| axis.input == axis.full)
    }

    /// The samples of the input that count.
    pub fn needed(&self) -> Range<usize> {
        self.packed.needed.clone()
    }

    /// The most samples that one of the output is made of.
    pub fn longest(&self) -> usize {
        self.longest
    }
}
