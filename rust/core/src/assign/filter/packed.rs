//! The centroids' digits, sixteen centroids side by side.

use std::marker::PhantomData;

use super::code::{Code, RANGE};
use super::simd::{Group, LANES};
use crate::assign::lanes;

/// Centroids less their mean as digits of `C`, for the products of all.
#[derive(Debug)]
pub(super) struct Packed<C> {
    /// `[group][step]`: a word of each centroid of the group.
    words: Vec<Group<i32>>,
    /// Words in a vector.
    pub(super) steps: usize,
    /// Number of centroids.
    pub(super) len: usize,
    /// What sums start from: it takes back that the digits of rows are raised.
    pub(super) start: Vec<Group<i32>>,
    pub(super) bounds: Vec<Bounds>,
    code: PhantomData<C>,
}

/// Of the centroids of a group, in units of a row's scale: with `sum` the dot product of the digits, the score of a row
/// is `scale * sum`, off by at most `row.error * norm + row.norm * error`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    pub(super) scale: Group<f32>,
    pub(super) norm: Group<f32>,
    pub(super) error: Group<f32>,
}

/// No centroid: its score is minus infinity.
const ABSENT: Bounds =
    Bounds { scale: Group([f32::INFINITY; LANES]), norm: Group([0.0; LANES]), error: Group([0.0; LANES]) };

impl<C: Code> Packed<C> {
    /// Of vectors in C order.
    pub(super) fn new(vectors: &[f32], dim: usize) -> Self {
        Self::of(centred::<C>(vectors, dim).map(Some), vectors.len() / dim, dim)
    }

    /// Of `len` centroids of `dim` numbers, some of which may be absent.
    pub(super) fn of(centroids: impl Iterator<Item = Option<Centroid>>, len: usize, dim: usize) -> Self {
        let (groups, steps) = (len.div_ceil(LANES), dim.div_ceil(C::PER_WORD));
        let mut words = vec![Group([0; LANES]); groups * steps];
        // With a scale of infinity, -1 becomes minus infinity where there is no centroid.
        let mut start = vec![Group([-1; LANES]); groups];
        let mut bounds = vec![ABSENT; groups];
        for (k, centroid) in centroids.enumerate() {
            let Some(centroid) = centroid else { continue };
            let (group, lane) = (k / LANES, k % LANES);
            start[group].0[lane] = -C::RAISED * centroid.digits.iter().sum::<i32>();
            for (step, digits) in centroid.digits.chunks(C::PER_WORD).enumerate() {
                words[group * steps + step].0[lane] = C::bits(C::word(digits));
            }
            bounds[group].scale.0[lane] = centroid.scale;
            bounds[group].norm.0[lane] = centroid.norm;
            bounds[group].error.0[lane] = centroid.error;
        }
        Packed { words, steps, len, start, bounds, code: PhantomData }
    }

    /// Groups of centroids.
    pub(super) fn groups(&self) -> usize {
        self.start.len()
    }

    /// The words of one group.
    #[inline(always)]
    pub(super) fn group(&self, group: usize) -> &[Group<i32>] {
        &self.words[group * self.steps..(group + 1) * self.steps]
    }
}

/// Centroids less their mean as digits of `C`, for products of single ones.
#[derive(Debug)]
pub(super) struct Single<C: Code> {
    /// The words of one centroid after the other, each padded to whole registers.
    words: Vec<C::Word>,
    /// Words of one.
    pub(super) steps: usize,
    centroids: Vec<Centroid>,
}

impl<C: Code> Single<C> {
    /// Of vectors in C order.
    pub(super) fn new(vectors: &[f32], dim: usize) -> Self {
        let steps = dim.div_ceil(C::PER_WORD).next_multiple_of(LANES);
        let mut centroids: Vec<Centroid> = centred::<C>(vectors, dim).collect();
        let mut words = vec![C::word(&[]); centroids.len() * steps];
        for (centroid, words) in centroids.iter_mut().zip(words.chunks_exact_mut(steps)) {
            let digits = std::mem::take(&mut centroid.digits);
            words.iter_mut().zip(digits.chunks(C::PER_WORD)).for_each(|(word, digits)| *word = C::word(digits));
        }
        Single { words, steps, centroids }
    }

    /// The words of centroid `k`, and its numbers as in [`Bounds`].
    #[inline(always)]
    pub(super) fn get(&self, k: usize) -> (&[C::Word], &Centroid) {
        (&self.words[k * self.steps..(k + 1) * self.steps], &self.centroids[k])
    }
}

fn centred<C: Code>(vectors: &[f32], dim: usize) -> impl Iterator<Item = Centroid> {
    let mean = mean(vectors, dim);
    let (mut centred, mut wide) = (Vec::with_capacity(dim), Vec::with_capacity(dim));
    vectors.chunks_exact(dim).map(move |vector| {
        centred.clear();
        centred.extend(vector.iter().zip(&mean).map(|(&v, m)| f64::from(v) - m));
        wide.clear();
        wide.extend(vector.iter().map(|&v| f64::from(v)));
        Centroid::new::<C>(&centred, norm(&wide))
    })
}

/// One centroid less the mean: `scale * digits`, and what bounds its error, see [`Bounds`].
#[derive(Debug)]
pub(super) struct Centroid {
    digits: Vec<i32>,
    pub(super) scale: f32,
    pub(super) norm: f32,
    pub(super) error: f32,
}

impl Centroid {
    /// Of a vector of length `length` less the mean.
    pub(super) fn new<C: Code>(centred: &[f64], length: f64) -> Self {
        let largest = largest(centred);
        let by_norm = norm(centred) / f64::from(C::max_norm(centred.len()));
        // Numbers too small for the arithmetic of scores are all error.
        let is_zero = largest < f64::from(*RANGE.start());
        let scale = if is_zero { 0.0 } else { (largest / f64::from(C::MAX)).max(by_norm) as f32 };
        let inverse = if is_zero { 0.0 } else { 1.0 / f64::from(scale) };
        let max = C::MAX as i32;
        let digits: Vec<i32> = centred.iter().map(|v| round(v * inverse).clamp(-max, max)).collect();
        let numbers: Vec<f64> = digits.iter().map(|&digit| f64::from(digit) * f64::from(scale)).collect();
        let errors: Vec<f64> = centred.iter().zip(&numbers).map(|(v, number)| v - number).collect();
        let (digits_norm, error) = (norm(&numbers), norm(&errors));
        // The rounding of all float32 operations on scores and bounds, each of 2^-24 and fewer than 16 in a row; and that
        // of the float64 dot products which define the label, of at most D 2^-53 |x| |c| each.
        let defined = length * centred.len() as f64 / 2f64.powi(51);
        let rounding = digits_norm / f64::from(1 << 20) + defined;
        let above = 1.0 + 1.0 / f64::from(1 << 19);
        Centroid { digits, scale, norm: (digits_norm * above) as f32, error: ((error + rounding) * above) as f32 }
    }
}

/// The whole number nearest to `v`, whose magnitude is below 2^31.
fn round(v: f64) -> i32 {
    // Adding 1.5 * 2^52 leaves no room for a fraction.
    (v + 6_755_399_441_055_744.0).to_bits() as i32
}

/// The mean vector. Taking it off all centroids moves no argmax, and leaves smaller numbers to round.
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
    lanes::dot(values, values).sqrt()
}

/// The largest magnitude, in lanes that a compiler makes registers of.
fn largest(values: &[f64]) -> f64 {
    let mut lanes = [0f64; lanes::LANES];
    for chunk in values.chunks(lanes::LANES) {
        for (lane, v) in lanes.iter_mut().zip(chunk) {
            *lane = if v.abs() > *lane { v.abs() } else { *lane };
        }
    }
    lanes.iter().fold(0.0, |largest, &lane| largest.max(lane))
}
