//! The start of a run: k-means++ (Arthur and Vassilvitskii, 2007) on the sphere, by rejection sampling (Cohen-Addad,
//! Lattanzi, Norouzi-Fard, Sohler and Svensson, 2020).
//!
//! A vector is to be drawn with a probability proportional to its squared distance `2 - 2 cos` to the nearest vector
//! drawn before. Here a candidate is drawn in proportion to a bound on that distance, and accepted with the probability
//! `distance / bound`, which makes the same distribution. Distances only shrink, so earlier ones are bounds; only those
//! of candidates are needed, and no draw has to pass over all vectors.

use super::unit_rows::UnitRows;
use crate::error::Result;
use crate::linalg::exact_gemm::{ExactColumns, PAIRS, dot4};
use crate::linalg::quantized_rows::QuantizedRows;
use crate::runtime::parallel::Par;
use crate::runtime::rng::uniform;

/// Rows in an item of work.
const BLOCK: usize = 128;

/// The largest squared distance between unit vectors.
const LARGEST: f64 = 4.0;

/// An upper bound on the rounding error of a squared distance, for each number of a vector.
const ROUNDING: f64 = 8.0 * f64::EPSILON;

/// Candidates that cost about as much as tightening the bounds of so many vectors.
const REJECTIONS: usize = 32;

/// The first vectors of run `run`.
pub(super) fn plus_plus(units: &UnitRows<'_>, k: usize, seed: u64, run: usize, par: &Par<'_>) -> Result<Vec<usize>> {
    // A stream of draws for each run: none takes 2^32.
    let mut draws = ((run as u64) << 32..).map(|i| uniform(seed, i));
    let mut draw = || draws.next().unwrap_or_default();
    let mut seeds: Vec<usize> = Vec::with_capacity(k);
    let mut bounds = Bounds::new(&units.rows);
    let mut rejected = 0;
    while seeds.len() < k {
        if rejected == units.len().div_ceil(REJECTIONS) {
            bounds.tighten(&seeds, par)?;
            rejected = 0;
        }
        if bounds.total() == 0.0 {
            // The vectors are so close to the seeds that rounding leaves no distance.
            seeds.extend((0..).find(|i| !seeds.contains(i)));
            continue;
        }
        let candidate = bounds.draw(draw());
        if bounds.accept(candidate, &seeds, draw()) {
            seeds.push(candidate);
        } else {
            rejected += 1;
        }
    }
    Ok(seeds)
}

/// Upper bounds on the squared distance of each vector to the nearest seed.
struct Bounds<'u> {
    rows: &'u QuantizedRows<'u>,
    bounds: Vec<f64>,
    /// The running sums of `bounds`.
    running_sums: Vec<f64>,
    /// The number of seeds that the bounds take into account: they are the distances to these.
    heeded: usize,
}

impl<'u> Bounds<'u> {
    fn new(rows: &'u QuantizedRows<'u>) -> Self {
        let bounds = vec![LARGEST; rows.len()];
        let running_sums = running_sums(&bounds);
        Bounds { rows, bounds, running_sums, heeded: 0 }
    }

    fn total(&self) -> f64 {
        self.running_sums.last().copied().unwrap_or_default()
    }

    /// The first vector at which the running sum of bounds exceeds `share` of their total.
    fn draw(&self, share: f64) -> usize {
        let threshold = share * self.total();
        self.running_sums.partition_point(|&sum| sum <= threshold).min(self.bounds.len() - 1)
    }

    /// Whether `share` of the bound of `candidate` is below its distance to the nearest of `seeds`.
    fn accept(&self, candidate: usize, seeds: &[usize], share: f64) -> bool {
        let threshold = share * self.bounds[candidate];
        let x = self.rows.row(candidate);
        self.bounds[candidate] > threshold
            && seeds[self.heeded..].chunks(PAIRS).all(|seeds| {
                let pair = |i: usize| (self.rows.row(seeds[i.min(seeds.len() - 1)]), x);
                let dots = dot4(self.rows.level(), std::array::from_fn(pair));
                let mut seeds = seeds.iter().zip(dots);
                seeds.all(|(&seed, (dot, _))| squared_distance(self.rows, candidate, seed, dot) > threshold)
            })
    }

    /// Makes the bounds the distances to the nearest of `seeds`.
    fn tighten(&mut self, seeds: &[usize], par: &Par<'_>) -> Result<()> {
        let rows = self.rows;
        let dim = rows.dim();
        let news = &seeds[self.heeded..];
        let vectors: Vec<f32> = news.iter().flat_map(|&i| rows.row(i)).copied().collect();
        let columns = ExactColumns::new(rows.level(), &vectors, dim);
        par.for_blocks(&mut self.bounds, BLOCK, Vec::new, |dots, block, bounds| {
            let first = block * BLOCK;
            columns.dots(&rows.rows()[first * dim..][..bounds.len() * dim], dots);
            for (i, (bound, dots)) in bounds.iter_mut().zip(dots.chunks(news.len())).enumerate() {
                for (&dot, &seed) in dots.iter().zip(news) {
                    *bound = bound.min(squared_distance(rows, first + i, seed, dot));
                }
            }
            Ok(())
        })?;
        self.running_sums = running_sums(&self.bounds);
        self.heeded = seeds.len();
        Ok(())
    }
}

/// `2 - 2 cos` of two vectors, or exactly 0 where rounding alone may have left something.
fn squared_distance(rows: &QuantizedRows<'_>, i: usize, j: usize, dot: f64) -> f64 {
    let distance = 2.0 - 2.0 * (dot * (rows.inverse_norm(i) * rows.inverse_norm(j)));
    if distance > rows.dim() as f64 * ROUNDING { distance } else { 0.0 }
}

fn running_sums(values: &[f64]) -> Vec<f64> {
    let add = |sum: &mut f64, &value: &f64| {
        *sum += value;
        Some(*sum)
    };
    values.iter().scan(0.0, add).collect()
}
