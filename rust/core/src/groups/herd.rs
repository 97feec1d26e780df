//! Kernel herding with the linear kernel (Chen, Welling and Smola, 2010), in every group.

use super::{members, piece, read_row};
use crate::assign::lanes::dot;
use crate::error::{Error, Result};
use crate::par::Par;
use crate::rows::Rows;

/// Rows that a thread scores at a time.
const BLOCK: usize = 4096;

/// Of every group `counts[group]` rows, in the order in which they are chosen: the one most along `(t + 1) mean - sum`,
/// `mean` being that of the normalised rows of the group and `sum` that of the `t` chosen before; ties go to the lower
/// row. The score of a row `x` is `<x, (t + 1) mean - sum> / |x|`.
///
/// A group is held in memory as float64 while it is worked on.
///
/// # Errors
/// As [`super::distances`], and [`Error::Argument`] for counts beyond the sizes of groups.
pub fn herd(rows: &Rows<'_>, labels: &[i32], counts: &[usize], par: &Par<'_>) -> Result<Vec<Vec<usize>>> {
    let members = members(rows, labels, counts.len())?;
    if let Some(group) = (0..counts.len()).find(|&group| counts[group] > members[group].len()) {
        let (count, size) = (counts[group], members[group].len());
        return Err(Error::Argument(format!("{count} rows of group {group}, which has {size}")));
    }
    // Threads share out the groups; where there is but one, its rows.
    let (outer, inner) = if counts.len() == 1 { (&Par::new(Some(1)), par) } else { (par, &Par::new(Some(1))) };
    outer.map(
        counts.len(),
        || (),
        |(), group| {
            let chosen = Group::load(rows, &members[group], counts[group])?.choose(counts[group], inner)?;
            par.check()?;
            Ok(chosen.into_iter().map(|place| members[group][place]).collect())
        },
    )
}

struct Group {
    values: Vec<f64>,
    norms: Vec<f64>,
    dim: usize,
}

impl Group {
    /// The rows of a group, or none of those of which none is wanted.
    fn load(rows: &Rows<'_>, members: &[usize], wanted: usize) -> Result<Self> {
        let members = if wanted == 0 { &[] } else { members };
        let dim = rows.dim();
        let mut reader = rows.reader();
        let (mut values, mut norms) = (Vec::with_capacity(members.len() * dim), Vec::with_capacity(members.len()));
        for &member in members {
            let (row, norm) = read_row(&mut reader, member)?;
            values.extend_from_slice(row);
            norms.push(norm);
        }
        Ok(Group { values, norms, dim })
    }

    fn choose(&self, count: usize, par: &Par<'_>) -> Result<Vec<usize>> {
        let n = self.norms.len();
        let mut mean = vec![0.0; self.dim];
        (0..n).for_each(|place| self.add_to(&mut mean, place));
        mean.iter_mut().for_each(|v| *v /= n as f64);
        let mut sum = vec![0.0; self.dim];
        let mut free = vec![true; n];
        let mut chosen = Vec::with_capacity(count);
        for t in 0..count {
            let wanted: Vec<f64> = mean.iter().zip(&sum).map(|(mean, sum)| (t + 1) as f64 * mean - sum).collect();
            let best = |(): &mut (), i: usize| Ok(self.best(piece(i, BLOCK, n), &wanted, &free));
            let best = par.map(n.div_ceil(BLOCK), || (), best)?;
            // Blocks ascend, so the first of equals is the lowest row.
            let best = best.into_iter().flatten().reduce(|a, b| if b.0 > a.0 { b } else { a });
            let Some((_, place)) = best else { break };
            free[place] = false;
            self.add_to(&mut sum, place);
            chosen.push(place);
        }
        Ok(chosen)
    }

    /// The highest score among the free rows of a range, and its place.
    fn best(&self, places: std::ops::Range<usize>, wanted: &[f64], free: &[bool]) -> Option<(f64, usize)> {
        let scored = places.filter(|&place| free[place]).map(|place| {
            let score = dot(&self.values[place * self.dim..][..self.dim], wanted) / self.norms[place];
            (score, place)
        });
        scored.reduce(|a, b| if b.0 > a.0 { b } else { a })
    }

    fn add_to(&self, sum: &mut [f64], place: usize) {
        let row = &self.values[place * self.dim..][..self.dim];
        sum.iter_mut().zip(row).for_each(|(sum, v)| *sum += v / self.norms[place]);
    }
}
