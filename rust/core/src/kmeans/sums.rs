//! The sums of the unit vectors of clusters.
//!
//! They are whole numbers of a fixed scale, so that no order of additions shows, and vectors can leave a sum as if they
//! had never been part of it: an iteration adds and takes off only what has changed its cluster.

use super::unit_rows::UnitRows;
use crate::assign::Centroids;
use crate::error::Result;
use crate::linalg::dot::dot;
use crate::linalg::norm::Norm;
use crate::runtime::cpu::prefetch;
use crate::runtime::parallel::Par;

/// Bits after the point, unless there are so many vectors that their sum might leave 63 bits.
const BITS: u32 = 40;

/// Adding it to a number of less than 2^51 leaves the number, rounded to a whole one, in the low bits.
const ROUND: f64 = 6_755_399_441_055_744.0; // 1.5 * 2^52

/// Numbers that are fetched at once: a cache line.
const LINE: usize = 16;

/// The label of a vector that has no cluster yet.
const NONE: u32 = u32::MAX;

/// Clusters, and which vectors are in them.
pub(super) struct ClusterSums<'u> {
    units: &'u UnitRows<'u>,
    /// The whole number that stands for 1.
    scale: f64,
    pub(super) labels: Vec<u32>,
    clusters: Vec<Cluster>,
}

/// One cluster.
#[derive(Clone)]
struct Cluster {
    sum: Vec<i64>,
}

/// A vector that enters a cluster, or leaves it.
struct Move {
    vector: usize,
    enters: bool,
}

impl<'u> ClusterSums<'u> {
    /// `k` empty clusters.
    pub(super) fn new(units: &'u UnitRows<'u>, k: usize) -> Self {
        let bits = BITS.min(units.len().leading_zeros() - 2);
        let empty = Cluster { sum: vec![0; units.rows.dim()] };
        ClusterSums { units, scale: (1u64 << bits) as f64, labels: vec![NONE; units.len()], clusters: vec![empty; k] }
    }

    /// Moves vectors to the clusters that `labels` names. Says whether any moved.
    pub(super) fn update(&mut self, labels: Vec<u32>, par: &Par<'_>) -> Result<bool> {
        let mut moves: Vec<Vec<Move>> = self.clusters.iter().map(|_| Vec::new()).collect();
        for (vector, (&old, &new)) in self.labels.iter().zip(&labels).enumerate() {
            if old != new {
                moves[new as usize].push(Move { vector, enters: true });
                if old != NONE {
                    moves[old as usize].push(Move { vector, enters: false });
                }
            }
        }
        self.labels = labels;
        let ClusterSums { units, scale, clusters, .. } = self;
        par.for_blocks(
            clusters,
            1,
            || (),
            |(), i, cluster| {
                cluster.iter_mut().for_each(|cluster| cluster.follow(&moves[i], units, *scale));
                Ok(())
            },
        )?;
        Ok(moves.iter().any(|moves| !moves.is_empty()))
    }

    /// The sum of the cosines between the vectors and the centroids of their clusters.
    pub(super) fn objective(&self, centroids: &Centroids) -> f64 {
        let of_cluster = |(cluster, centroid): (&Cluster, &[f32])| {
            let centroid: Vec<f64> = centroid.iter().map(|&v| f64::from(v)).collect();
            dot(&cluster.wide(), &centroid)
        };
        let centroids = centroids.vectors().chunks_exact(centroids.dim());
        self.clusters.iter().zip(centroids).map(of_cluster).sum::<f64>() / self.scale
    }

    /// The directions of the sums. `None` for a cluster without vectors, or whose vectors cancel out.
    pub(super) fn directions(&self) -> impl Iterator<Item = Option<Vec<f32>>> {
        self.clusters.iter().map(|cluster| {
            let mut sum = cluster.wide();
            let norm = Norm::of(&mut sum).ok()?;
            Some(sum.iter().map(|v| (v / norm.value) as f32).collect())
        })
    }
}

impl Cluster {
    fn follow(&mut self, moves: &[Move], units: &UnitRows<'_>, scale: f64) {
        for (i, &Move { vector, enters }) in moves.iter().enumerate() {
            if let Some(next) = moves.get(i + 1) {
                units.rows.row(next.vector).chunks(LINE).for_each(prefetch);
            }
            let factor = units.rows.inverse_norm(vector) * if enters { scale } else { -scale };
            for (sum, &v) in self.sum.iter_mut().zip(units.rows.row(vector)) {
                // Rounding to even makes of -v what is taken off, exactly.
                *sum += (f64::from(v) * factor + ROUND).to_bits() as i64 - ROUND.to_bits() as i64;
            }
        }
    }

    fn wide(&self) -> Vec<f64> {
        self.sum.iter().map(|&v| v as f64).collect()
    }
}
