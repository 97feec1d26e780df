//! Where a run starts: k-means++ (Arthur and Vassilvitskii, 2007) on the sphere, by rejection (Cohen-Addad, Lattanzi,
//! Norouzi-Fard, Sohler and Svensson, 2020).
//!
//! A vector is to be drawn with a probability proportional to its squared distance `2 - 2 cos` to the nearest vector
//! drawn before. Here a candidate is drawn in proportion to a bound on that distance, and accepted with the probability
//! `distance / bound`, which makes the same distribution. Distances only shrink, so earlier ones are bounds; only those
//! of candidates are needed, and no draw has to pass over all vectors.

use super::units::Units;
use crate::assign::{Kernel, PAIRS};
use crate::cpu;
use crate::error::Result;
use crate::par::Par;
use crate::seed::uniform;

/// Rows in an item of work.
const BLOCK: usize = 128;

/// What no squared distance between unit vectors exceeds.
const LARGEST: f64 = 4.0;

/// Candidates that cost about as much as tightening the bounds of so many vectors.
const REJECTIONS: usize = 32;

/// The first vectors of run `run`.
pub(super) fn plus_plus(units: &Units, k: usize, seed: u64, run: usize, par: &Par<'_>) -> Result<Vec<usize>> {
    // A stream of draws for each run: none takes 2^32.
    let mut draws = ((run as u64) << 32..).map(|i| uniform(seed, i));
    let mut draw = || draws.next().unwrap_or_default();
    let mut seeds: Vec<usize> = Vec::with_capacity(k);
    let mut bounds = Bounds::new(units)?;
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
    units: &'u Units,
    kernel: Kernel,
    bounds: Vec<f64>,
    /// Of the bounds.
    running_sums: Vec<f64>,
    /// How many seeds the bounds heed: they are the distances to these.
    heeded: usize,
}

impl<'u> Bounds<'u> {
    fn new(units: &'u Units) -> Result<Self> {
        let bounds = vec![LARGEST; units.len()];
        let running_sums = running_sums(&bounds);
        Ok(Bounds { units, kernel: Kernel::new(cpu::level()?, true), bounds, running_sums, heeded: 0 })
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
        let x = self.units.vector(candidate);
        let square = square(self.kernel, x);
        self.bounds[candidate] > threshold
            && seeds[self.heeded..].chunks(PAIRS).all(|seeds| {
                let seed = |i: usize| self.units.vector(seeds[i.min(seeds.len() - 1)]);
                // Of each seed with the candidate and with itself.
                let dots = self.kernel.pairs(std::array::from_fn(|i| (seed(i), x)));
                dots.iter().all(|&(dot, of_seed)| squared_distance(square, of_seed, dot) > threshold)
            })
    }

    /// Makes the bounds the distances to the nearest of `seeds`.
    fn tighten(&mut self, seeds: &[usize], par: &Par<'_>) -> Result<()> {
        let &mut Bounds { units, kernel, .. } = self;
        let dim = units.dim;
        let news = &seeds[self.heeded..];
        let vectors: Vec<f32> = news.iter().flat_map(|&i| units.vector(i)).copied().collect();
        let packed = kernel.pack_centroids(&vectors, dim);
        let squares: Vec<f64> = vectors.chunks_exact(dim).map(|vector| square(kernel, vector)).collect();
        par.for_blocks(&mut self.bounds, BLOCK, Vec::new, |dots, block, bounds| {
            let rows = &units.vectors[block * BLOCK * dim..][..bounds.len() * dim];
            kernel.dots(rows, dim, &packed, dots);
            for ((bound, dots), row) in bounds.iter_mut().zip(dots.chunks(news.len())).zip(rows.chunks_exact(dim)) {
                let of_row = square(kernel, row);
                for (&dot, &of_seed) in dots.iter().zip(&squares) {
                    *bound = bound.min(squared_distance(of_row, of_seed, dot));
                }
            }
            Ok(())
        })?;
        self.running_sums = running_sums(&self.bounds);
        self.heeded = seeds.len();
        Ok(())
    }
}

fn square(kernel: Kernel, vector: &[f32]) -> f64 {
    kernel.pairs([(vector, vector); PAIRS])[0].1
}

/// `2 - 2 cos`, but exactly 0 between equal vectors, whose norm float32 leaves short of 1.
fn squared_distance(square: f64, other: f64, dot: f64) -> f64 {
    (square + other - 2.0 * dot).max(0.0)
}

fn running_sums(values: &[f64]) -> Vec<f64> {
    let add = |sum: &mut f64, &value: &f64| {
        *sum += value;
        Some(*sum)
    };
    values.iter().scan(0.0, add).collect()
}
