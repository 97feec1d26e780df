//! Assembly of a selection.

use super::grouped::{Candidates, row_numbers};
use super::pool::{PRESELECTED, Pool};
use crate::error::Result;
use crate::runtime::parallel::Par;

/// Why a row was selected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Phase {
    /// Within its cluster's quota.
    Quota = 0,
    /// From the budget left over after the quotas.
    Fill = 1,
    /// It was preselected.
    Preselected = 2,
}

/// Row counts of a cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Rows to select from: valid and not excluded, including the preselected ones.
    pub pool: usize,
    /// Selected within the quota.
    pub quota: usize,
    /// Selected by the fill.
    pub fill: usize,
    /// Preselected.
    pub preselected: usize,
}

/// The selected rows, ascending.
#[derive(Debug, Clone, PartialEq)]
pub struct Selection {
    /// Row numbers.
    pub indices: Vec<i64>,
    /// Their clusters.
    pub cluster: Vec<i32>,
    /// Their similarities.
    pub similarity: Vec<f32>,
    /// Their [`Phase`]s, as numbers.
    pub phase: Vec<u8>,
    /// The counts of every cluster.
    pub counts: Vec<Counts>,
    /// Rows without a label or a similarity, ascending.
    pub invalid: Vec<i64>,
}

/// Assembles the selection: the preselected rows among the candidates, and those to which `phase(row, cluster)` gives
/// a phase. It returns None only for rows in the bucket of a threshold. `counts` comes without the fill.
pub(super) fn assemble(
    pool: &Pool<'_>,
    mut counts: Vec<Counts>,
    candidates: &[Candidates],
    phase: impl Fn(usize, usize) -> Option<Phase> + Sync,
    par: &Par<'_>,
) -> Result<Selection> {
    let phase = |row| match pool.labels()[row] {
        PRESELECTED => Some(Phase::Preselected),
        cluster => phase(row, cluster as usize),
    };
    let left_out = |(): &mut (), i: usize| {
        Ok(row_numbers(i, &candidates[i].in_threshold_bucket).filter(|&row| phase(row).is_none()).count())
    };
    let left_out = par.map(candidates.len(), || (), left_out)?;
    let sizes: Vec<usize> = candidates.iter().zip(&left_out).map(|(list, out)| list.rows.len() - out).collect();
    let size = sizes.iter().sum();
    let (mut indices, mut cluster) = (vec![0; size], vec![0; size]);
    let (mut similarity, mut phases) = (vec![0.0; size], vec![0; size]);
    let mut rest =
        Columns { indices: &mut indices, cluster: &mut cluster, similarity: &mut similarity, phase: &mut phases };
    let mut parts: Vec<Columns<'_>> = sizes.iter().map(|&size| rest.split_off(size)).collect();
    let write = |(): &mut (), i: usize, part: &mut [Columns<'_>]| {
        let chosen = row_numbers(i, &candidates[i].rows).filter_map(|row| phase(row).map(|phase| (row, phase)));
        for (at, (row, phase)) in chosen.enumerate() {
            part[0].indices[at] = row as i64;
            part[0].cluster[at] = pool.given_cluster(row);
            part[0].similarity[at] = pool.similarity(row);
            part[0].phase[at] = phase as u8;
        }
        Ok(())
    };
    par.for_blocks(&mut parts, 1, || (), write)?;
    let known: usize = counts.iter().map(|counts| counts.quota + counts.preselected).sum();
    if known < size {
        for (&label, _) in cluster.iter().zip(&phases).filter(|&(_, &phase)| phase == Phase::Fill as u8) {
            counts[label as usize].fill += 1;
        }
    }
    Ok(Selection { indices, cluster, similarity, phase: phases, counts, invalid: pool.invalid().to_vec() })
}

/// Consecutive rows of the selection, to be written.
struct Columns<'a> {
    indices: &'a mut [i64],
    cluster: &'a mut [i32],
    similarity: &'a mut [f32],
    phase: &'a mut [u8],
}

impl<'a> Columns<'a> {
    /// The first `n` rows, which are taken away.
    fn split_off(&mut self, n: usize) -> Columns<'a> {
        fn first<'a, T>(rest: &mut &'a mut [T], n: usize) -> &'a mut [T] {
            let (first, others) = std::mem::take(rest).split_at_mut(n);
            *rest = others;
            first
        }
        Columns {
            indices: first(&mut self.indices, n),
            cluster: first(&mut self.cluster, n),
            similarity: first(&mut self.similarity, n),
            phase: first(&mut self.phase, n),
        }
    }
}
