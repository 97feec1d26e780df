//! One run of K-means from given starts.

use super::Options;
use super::sums::ClusterSums;
use super::unit_rows::UnitRows;
use crate::assign::Centroids;
use crate::error::Result;
use crate::linalg::exact_gemm::{PAIRS, dot4};
use crate::runtime::parallel::Par;

/// Rows in an item of work.
const BLOCK: usize = 128;

/// The outcome of a run.
pub(super) struct Run {
    pub(super) centroids: Centroids,
    /// After each assignment.
    pub(super) objective: Vec<f64>,
}

/// Lloyd's algorithm from the vectors `seeds`.
pub(super) fn run(units: &UnitRows<'_>, seeds: &[usize], options: &Options, par: &Par<'_>) -> Result<Run> {
    let dim = units.rows.dim();
    let mut centroids = Centroids::of_units(seeds.iter().flat_map(|&i| units.unit(i)).collect(), dim);
    let mut previous = centroids.clone();
    let mut objective: Vec<f64> = Vec::new();
    let mut sums = ClusterSums::new(units, options.k);
    loop {
        let has_changed = sums.update(units.rows.nearest(centroids.vectors(), par)?, par)?;
        let sum = sums.objective(&centroids);
        if let Some(&last) = objective.last() {
            if sum < last {
                // Only the rounding of centroids to float32 can cause this, so nothing is left to gain.
                centroids = previous;
                break;
            }
            objective.push(sum);
            if !has_changed || sum - last < options.tol * last.abs() {
                break;
            }
        } else {
            objective.push(sum);
        }
        if objective.len() == options.max_iter {
            break;
        }
        let next = renewed(units, &sums, &centroids, par)?;
        previous = std::mem::replace(&mut centroids, next);
    }
    Ok(Run { centroids, objective })
}

/// The directions of the sums as centroids. A cluster without one, since it has no vectors or they cancel out, restarts
/// from the vector least like its own centroid; each is used once.
fn renewed(units: &UnitRows<'_>, sums: &ClusterSums<'_>, centroids: &Centroids, par: &Par<'_>) -> Result<Centroids> {
    let directions: Vec<_> = sums.directions().collect();
    let missing = directions.iter().filter(|direction| direction.is_none()).count();
    let mut restarts = least_alike(units, &sums.labels, centroids, missing, par)?.into_iter();
    let mut vectors = Vec::with_capacity(centroids.vectors().len());
    for direction in directions {
        match direction {
            Some(unit) => vectors.extend_from_slice(&unit),
            None => restarts.next().into_iter().for_each(|i| vectors.extend(units.unit(i))),
        }
    }
    Ok(Centroids::of_units(vectors, centroids.dim()))
}

/// The `count` vectors least like their own centroids, the lowest first on ties.
fn least_alike(
    units: &UnitRows<'_>,
    labels: &[u32],
    centroids: &Centroids,
    count: usize,
    par: &Par<'_>,
) -> Result<Vec<usize>> {
    if count == 0 {
        return Ok(Vec::new());
    }
    let (rows, dim) = (&units.rows, centroids.dim());
    let mut cosines = vec![0f64; rows.len()];
    par.for_blocks(
        &mut cosines,
        BLOCK,
        || (),
        |(), block, cosines| {
            for (i, cosine) in (block * BLOCK..).zip(cosines) {
                let centroid = &centroids.vectors()[labels[i] as usize * dim..][..dim];
                *cosine = dot4(rows.level(), [(rows.row(i), centroid); PAIRS])[0].0 * rows.inverse_norm(i);
            }
            Ok(())
        },
    )?;
    let mut order: Vec<usize> = (0..cosines.len()).collect();
    order.sort_by(|&a, &b| cosines[a].total_cmp(&cosines[b]));
    order.truncate(count);
    Ok(order)
}
