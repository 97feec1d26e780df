//! One run of K-means from given starts.

use super::Options;
use super::units::Units;
use crate::assign::{self, Centroids, Direction, nearest};
use crate::cpu::prefetch;
use crate::error::Result;
use crate::par::Par;
use crate::rows::{Reader, Rows};

/// Bytes that are fetched at once.
const CACHE_LINE: usize = 64;

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
    let mut directions = vec![None; options.k];
    let mut previous = centroids.clone();
    loop {
        let assigned: Vec<Assigned> =
            nearest(&rows, &centroids, assign::Options::default(), par, |best, _| (best.label, best.dot))?;
        let sum: f64 = assigned.iter().map(|&(_, cosine)| cosine).sum();
        let changed = changed(&labels, &assigned, options.k);
        if let Some(&last) = objective.last() {
            if sum < last {
                // Only the rounding of centroids to float32 can cause this, so nothing is left to gain.
                centroids = previous;
                break;
            }
            objective.push(sum);
            if changed.is_empty() || sum - last < options.tol * last.abs() {
                break;
            }
        } else {
            objective.push(sum);
        }
        if objective.len() == options.max_iter {
            break;
        }
        labels = assigned.iter().map(|&(label, _)| label).collect();
        update(&rows, &assigned, &changed, &mut directions, par)?;
        previous = std::mem::replace(&mut centroids, restarted(units, &assigned, &directions));
    }
    Ok(Run { centroids, objective })
}

/// The clusters that gained or lost vectors since they were those of `labels`: all, if there are none yet.
fn changed(labels: &[u32], assigned: &[Assigned], k: usize) -> Vec<usize> {
    let mut changed = vec![labels.is_empty(); k];
    for (&old, &(new, _)) in labels.iter().zip(assigned) {
        if old != new {
            changed[old as usize] = true;
            changed[new as usize] = true;
        }
    }
    (0..k).filter(|&cluster| changed[cluster]).collect()
}

/// Renews the normalised sums of the vectors of the `changed` clusters; those of the others still hold.
fn update(
    rows: &Rows<'_>,
    assigned: &[Assigned],
    changed: &[usize],
    directions: &mut [Option<Vec<f32>>],
    par: &Par<'_>,
) -> Result<()> {
    let mut members: Vec<Vec<usize>> = vec![Vec::new(); directions.len()];
    for (i, &(label, _)) in assigned.iter().enumerate() {
        members[label as usize].push(i);
    }
    // A cluster is summed by one thread in the order of its vectors: no thread count shows.
    let sum = |reader: &mut Reader<'_>, i: usize| direction_of_sum(rows, reader, &members[changed[i]]);
    let renewed = par.map(changed.len(), || rows.reader(), sum)?;
    for (&cluster, direction) in changed.iter().zip(renewed) {
        directions[cluster] = direction;
    }
    Ok(())
}

fn direction_of_sum(rows: &Rows<'_>, reader: &mut Reader<'_>, members: &[usize]) -> Result<Option<Vec<f32>>> {
    let mut sum = vec![0f64; rows.dim()];
    for (i, &member) in members.iter().enumerate() {
        let next = members.get(i + 1).map_or(0..0, |&next| next..next + 1);
        let (row, next) = reader.read_single(member..member + 1, next)?;
        next.chunks(CACHE_LINE).for_each(prefetch);
        sum.iter_mut().zip(row).for_each(|(sum, &v)| *sum += f64::from(v));
    }
    let norm = Direction::of(&mut sum).ok().map(|direction| direction.norm);
    Ok(norm.map(|norm| sum.iter().map(|v| (v / norm) as f32).collect()))
}

/// The directions as centroids. A cluster without one, since it has no vectors or they cancel out, restarts from the
/// vector least like its own centroid; each is used once.
fn restarted(units: &Units, assigned: &[Assigned], directions: &[Option<Vec<f32>>]) -> Centroids {
    let mut restarts = least_alike(assigned, directions.iter().filter(|sum| sum.is_none()).count()).into_iter();
    let mut vectors = Vec::with_capacity(directions.len() * units.dim);
    for direction in directions {
        match direction {
            Some(unit) => vectors.extend_from_slice(unit),
            None => restarts.next().into_iter().for_each(|i| vectors.extend_from_slice(units.vector(i))),
        }
    }
    Centroids::of_units(vectors, units.dim)
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
