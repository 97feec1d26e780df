//! One run of K-means from given starts.

use super::Options;
use super::units::Units;
use crate::assign::{self, Centroids, Direction, nearest};
use crate::error::Result;
use crate::par::Par;
use crate::rows::Rows;

/// Where a run ended.
pub(super) struct Run {
    pub(super) centroids: Centroids,
    /// After each assignment.
    pub(super) objective: Vec<f64>,
}

/// Label of a vector, and its cosine to that centroid.
type Assigned = (u32, f64);

/// Lloyd's algorithm from the vectors `seeds`.
pub(super) fn run(units: &Units, seeds: &[usize], options: &Options, par: &Par<'_>) -> Result<Run> {
    let rows = Rows::from_slice(&units.vectors, units.dim)?;
    let start = seeds.iter().flat_map(|&i| units.vector(i)).copied().collect();
    let mut centroids = Centroids::of_units(start, units.dim);
    let mut objective: Vec<f64> = Vec::new();
    let mut labels: Vec<u32> = Vec::new();
    let mut previous = centroids.clone();
    loop {
        let assigned: Vec<Assigned> =
            nearest(&rows, &centroids, assign::Options::default(), par, |best, _| (best.label, best.dot))?;
        let sum: f64 = assigned.iter().map(|&(_, cosine)| cosine).sum();
        if let Some(&last) = objective.last() {
            if sum < last {
                // Only the rounding of centroids to float32 can cause this, so nothing is left to gain.
                centroids = previous;
                break;
            }
            objective.push(sum);
            let settled = assigned.iter().map(|&(label, _)| label).eq(labels.iter().copied());
            if settled || sum - last < options.tol * last.abs() {
                break;
            }
        } else {
            objective.push(sum);
        }
        if objective.len() == options.max_iter {
            break;
        }
        labels = assigned.iter().map(|&(label, _)| label).collect();
        previous = std::mem::replace(&mut centroids, update(units, &assigned, options.k, par)?);
    }
    Ok(Run { centroids, objective })
}

/// The normalised sum of each cluster's vectors. A cluster without vectors, or whose vectors cancel out, restarts from
/// the vector least like its own centroid; each is used once.
fn update(units: &Units, assigned: &[Assigned], k: usize, par: &Par<'_>) -> Result<Centroids> {
    let mut members: Vec<Vec<usize>> = vec![Vec::new(); k];
    for (i, &(label, _)) in assigned.iter().enumerate() {
        members[label as usize].push(i);
    }
    // A cluster is summed by one thread in the order of its vectors: no thread count shows.
    let sums = par.map(k, || (), |(), cluster| Ok(direction_of_sum(units, &members[cluster])))?;
    let mut restarts = least_alike(assigned, sums.iter().filter(|sum| sum.is_none()).count()).into_iter();
    let mut vectors = Vec::with_capacity(k * units.dim);
    for sum in sums {
        match sum {
            Some(unit) => vectors.extend(unit),
            None => restarts.next().into_iter().for_each(|i| vectors.extend_from_slice(units.vector(i))),
        }
    }
    Ok(Centroids::of_units(vectors, units.dim))
}

fn direction_of_sum(units: &Units, members: &[usize]) -> Option<Vec<f32>> {
    let mut sum = vec![0f64; units.dim];
    for &i in members {
        sum.iter_mut().zip(units.vector(i)).for_each(|(sum, &v)| *sum += f64::from(v));
    }
    let norm = Direction::of(&mut sum).ok()?.norm;
    Some(sum.iter().map(|v| (v / norm) as f32).collect())
}

/// The `count` vectors least like their own centroids, the lowest first on ties.
fn least_alike(assigned: &[Assigned], count: usize) -> Vec<usize> {
    if count == 0 {
        return Vec::new();
    }
    let mut order: Vec<usize> = (0..assigned.len()).collect();
    order.sort_by(|&a, &b| assigned[a].1.total_cmp(&assigned[b].1));
    order.truncate(count);
    order
}
