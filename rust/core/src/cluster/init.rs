//! Where runs start: k-means++ (Arthur and Vassilvitskii, 2007) on the sphere.

use super::Options;
use super::units::Units;
use crate::assign::Kernel;
use crate::cpu;
use crate::error::Result;
use crate::par::Par;
use crate::seed::uniform;

/// Rows in an item of work.
const BLOCK: usize = 128;

/// The first vectors of all runs: the first is drawn evenly, each further one with a probability proportional to the
/// squared distance `2 - 2 cos` to the nearest drawn before.
///
/// Each draw needs one pass over all vectors, which memory bounds: the runs share it.
pub(super) fn plus_plus(units: &Units, options: &Options, par: &Par<'_>) -> Result<Vec<Vec<usize>>> {
    let &Options { k, seed, n_init, .. } = options;
    let (m, dim) = (units.len(), units.dim);
    let draw = |run: usize, i: usize| uniform(seed, (run * k + i) as u64);
    let kernel = Kernel::new(cpu::level()?, true);
    let squared: Vec<f64> = units.vectors.chunks_exact(dim).map(squared_norm).collect();
    let mut seeds: Vec<Vec<usize>> = (0..n_init).map(|run| vec![(draw(run, 0) * m as f64) as usize]).collect();
    // `distance[i * n_init + run]`: of vector `i` to the nearest seed of `run`.
    let mut distance = vec![f64::INFINITY; m * n_init];
    for drawn in 1..k {
        let latest: Vec<usize> = seeds.iter().map(|seeds| seeds[drawn - 1]).collect();
        let vectors: Vec<f32> = latest.iter().flat_map(|&i| units.vector(i)).copied().collect();
        let packed = kernel.pack_centroids(&vectors, dim);
        par.for_blocks(&mut distance, BLOCK * n_init, Vec::new, |dots, block, distance| {
            let first = block * BLOCK;
            let count = distance.len() / n_init;
            kernel.dots(&units.vectors[first * dim..(first + count) * dim], dim, &packed, dots);
            for (i, (distance, dots)) in distance.chunks_mut(n_init).zip(dots.chunks(n_init)).enumerate() {
                for ((distance, dot), &seed) in distance.iter_mut().zip(dots).zip(&latest) {
                    // 2 - 2 cos, but exactly 0 between equal vectors, whose norm float32 leaves short of 1.
                    *distance = distance.min((squared[first + i] + squared[seed] - 2.0 * dot).max(0.0));
                }
            }
            Ok(())
        })?;
        for (run, seeds) in seeds.iter_mut().enumerate() {
            let of_run = || distance.iter().skip(run).step_by(n_init).copied();
            seeds.push(pick(of_run, draw(run, drawn)).unwrap_or_else(|| first_unused(seeds)));
        }
    }
    Ok(seeds)
}

/// The first index at which the running sum of `weights` exceeds `share` of their total.
fn pick<I: Iterator<Item = f64>>(weights: impl Fn() -> I, share: f64) -> Option<usize> {
    let threshold = share * weights().sum::<f64>();
    let mut sum = 0.0;
    weights().position(|weight| {
        sum += weight;
        sum > threshold
    })
}

/// For vectors so close to the seeds that rounding leaves no distance.
fn first_unused(seeds: &[usize]) -> usize {
    (0..).find(|i| !seeds.contains(i)).unwrap_or_default()
}

fn squared_norm(vector: &[f32]) -> f64 {
    let wide: Vec<f64> = vector.iter().map(|&v| f64::from(v)).collect();
    crate::assign::lanes::dot(&wide, &wide)
}
