//! Columns as whole numbers.

use super::bounds::ColumnBounds;
use super::dot;
use super::int_gemm::{Microkernel, PackedB};
use super::quantize::{Quantized, RANGE};
use crate::simd::LANES;

/// Columns as numbers of `Q`, packed for the products with all rows.
#[derive(Debug)]
pub(crate) struct PackedColumns {
    pub(crate) b: PackedB,
    /// By group.
    pub(crate) bounds: Vec<ColumnBounds>,
    /// Number of columns.
    pub(crate) len: usize,
}

impl PackedColumns {
    /// Packs `len` columns of `dim` numbers, some of which may be absent.
    pub(crate) fn new<M: Microkernel<Q>, Q: Quantized>(
        columns: impl Iterator<Item = Option<QuantizedColumn>>,
        len: usize,
        dim: usize,
    ) -> Self {
        let mut b = PackedB::new(len, dim.div_ceil(Q::PER_WORD));
        let mut bounds = vec![ColumnBounds::ABSENT; b.groups()];
        for (k, column) in columns.enumerate() {
            let Some(column) = column else { continue };
            M::pack_b(&mut b, k, &column.numbers);
            let (bounds, lane) = (&mut bounds[k / LANES], k % LANES);
            bounds.scale.0[lane] = column.scale;
            bounds.norm.0[lane] = column.norm;
            bounds.error.0[lane] = column.error;
        }
        PackedColumns { b, bounds, len }
    }
}

/// Columns as numbers of `Q`, one after the other, for products of single ones.
#[derive(Debug)]
pub(crate) struct RowMajor<Q: Quantized> {
    /// The words of one column after the other, each padded to whole registers.
    words: Vec<Q::Word>,
    /// Words of one.
    pub(crate) steps: usize,
    columns: Vec<QuantizedColumn>,
}

impl<Q: Quantized> RowMajor<Q> {
    /// Packs vectors of C order, less their mean.
    pub(crate) fn new(vectors: &[f32], dim: usize) -> Self {
        let steps = dim.div_ceil(Q::PER_WORD).next_multiple_of(LANES);
        let mut columns: Vec<QuantizedColumn> = centered::<Q>(vectors, dim).collect();
        let mut words = vec![Q::word(&[]); columns.len() * steps];
        for (column, words) in columns.iter_mut().zip(words.chunks_exact_mut(steps)) {
            let numbers = std::mem::take(&mut column.numbers);
            words.iter_mut().zip(numbers.chunks(Q::PER_WORD)).for_each(|(word, numbers)| *word = Q::word(numbers));
        }
        RowMajor { words, steps, columns }
    }

    /// The words of column `k`, and its bounds.
    #[inline(always)]
    pub(crate) fn get(&self, k: usize) -> (&[Q::Word], &QuantizedColumn) {
        (&self.words[k * self.steps..(k + 1) * self.steps], &self.columns[k])
    }
}

/// The vectors less their mean. Taking it off all of them moves no argmax, and leaves smaller numbers to round.
pub(crate) fn centered<Q: Quantized>(vectors: &[f32], dim: usize) -> impl Iterator<Item = QuantizedColumn> {
    let mean = mean(vectors, dim);
    let (mut centered, mut wide) = (Vec::with_capacity(dim), Vec::with_capacity(dim));
    vectors.chunks_exact(dim).map(move |vector| {
        centered.clear();
        centered.extend(vector.iter().zip(&mean).map(|(&v, m)| f64::from(v) - m));
        wide.clear();
        wide.extend(vector.iter().map(|&v| f64::from(v)));
        QuantizedColumn::new::<Q>(&centered, norm(&wide))
    })
}

/// One column less a center, as `scale * numbers`, and what bounds its error: see [`ColumnBounds`].
#[derive(Debug)]
pub(crate) struct QuantizedColumn {
    numbers: Vec<i32>,
    pub(crate) scale: f32,
    pub(crate) norm: f32,
    pub(crate) error: f32,
}

impl QuantizedColumn {
    /// Rounds a vector of length `length` less a center.
    pub(crate) fn new<Q: Quantized>(centered: &[f64], length: f64) -> Self {
        let largest = largest(centered);
        let by_norm = norm(centered) / f64::from(Q::max_norm(centered.len()));
        // Numbers too small for the arithmetic of scores are all error.
        let is_zero = largest < f64::from(*RANGE.start());
        let scale = if is_zero { 0.0 } else { (largest / f64::from(Q::MAX)).max(by_norm) as f32 };
        let inverse = if is_zero { 0.0 } else { 1.0 / f64::from(scale) };
        let max = Q::MAX as i32;
        let numbers: Vec<i32> = centered.iter().map(|v| round(v * inverse).clamp(-max, max)).collect();
        let values: Vec<f64> = numbers.iter().map(|&number| f64::from(number) * f64::from(scale)).collect();
        let errors: Vec<f64> = centered.iter().zip(&values).map(|(v, value)| v - value).collect();
        let (rounded_norm, error) = (norm(&values), norm(&errors));
        // The rounding of all float32 operations on scores and bounds, each of 2^-24 and fewer than 16 in a row; and that
        // of the float64 dot products which define the result, of at most D 2^-53 |x| |c| each.
        let defined = length * centered.len() as f64 / 2f64.powi(51);
        let rounding = rounded_norm / f64::from(1 << 20) + defined;
        let above = 1.0 + 1.0 / f64::from(1 << 19);
        QuantizedColumn {
            numbers,
            scale,
            norm: (rounded_norm * above) as f32,
            error: ((error + rounding) * above) as f32,
        }
    }
}

/// The whole number nearest to `v`, whose magnitude is below 2^31.
fn round(v: f64) -> i32 {
    // Adding 1.5 * 2^52 leaves no room for a fraction.
    (v + 6_755_399_441_055_744.0).to_bits() as i32
}

fn mean(vectors: &[f32], dim: usize) -> Vec<f64> {
    let mut mean = vec![0f64; dim];
    for vector in vectors.chunks_exact(dim) {
        mean.iter_mut().zip(vector).for_each(|(m, &v)| *m += f64::from(v));
    }
    let count = (vectors.len() / dim) as f64;
    mean.iter_mut().for_each(|m| *m /= count);
    mean
}

fn norm(values: &[f64]) -> f64 {
    dot::dot(values, values).sqrt()
}

/// The largest magnitude, in lanes that a compiler makes registers of.
fn largest(values: &[f64]) -> f64 {
    let mut lanes = [0f64; dot::LANES];
    for chunk in values.chunks(dot::LANES) {
        for (lane, v) in lanes.iter_mut().zip(chunk) {
            *lane = if v.abs() > *lane { v.abs() } else { *lane };
        }
    }
    lanes.iter().fold(0.0, |largest, &lane| largest.max(lane))
}
