//! Kernel herding with the linear kernel (Chen, Welling and Smola, 2010), in every group.
//!
//! All of it is float64 arithmetic over the rows as stored; sums over rows run in the order of the rows, so that the
//! number of threads changes nothing.

use std::ops::Range;

use crate::error::{Error, Result};
use crate::linalg::dot::{LANES, reduce_lanes};
use crate::rows::labels::members;
use crate::rows::{Dtype, Rows};
use crate::runtime::cpu::{self, Level, dispatch};
use crate::runtime::parallel::{Par, block_range};

/// The number of rows that a thread scores at a time.
const BLOCK: usize = 4096;

/// Chooses `counts[group]` rows of every group, and lists them in the order in which they are chosen. Each time the row
/// wins that is most along `(t + 1) mean - sum`, where `mean` is the mean of the normalized rows of the group and `sum` the
/// sum of the `t` rows chosen before. The score of a row `x` is `<x, (t + 1) mean - sum> / |x|`; ties go to the lower row.
///
/// A group is held in memory while it is worked on, as float32, or as float64 where any row is that.
///
/// # Errors
/// [`Error::Shape`] when labels do not fit the rows, [`Error::Argument`] for labels or counts that are too large,
/// [`Error::InvalidRow`] for a row with a group, but no direction, and what reading files can raise.
pub fn herd(rows: &Rows<'_>, labels: &[i32], counts: &[usize], par: &Par<'_>) -> Result<Vec<Vec<usize>>> {
    let members = members(labels, rows.len(), counts.len())?;
    if let Some(group) = (0..counts.len()).find(|&group| counts[group] > members[group].len()) {
        let (count, size) = (counts[group], members[group].len());
        return Err(Error::Argument(format!("{count} rows of group {group}, which has {size}")));
    }
    // Threads share out the groups; where there is but one, its rows.
    let (outer, inner) = if counts.len() == 1 { (&Par::new(Some(1)), par) } else { (par, &Par::new(Some(1))) };
    let level = cpu::level()?;
    let of_group = |(): &mut (), group: usize| {
        let members = &members[group];
        let chosen = if rows.holds(Dtype::F64) {
            Group::load(rows, members, counts[group], level, |v| v)?.choose(counts[group], inner, par)?
        } else {
            Group::load(rows, members, counts[group], level, |v| v as f32)?.choose(counts[group], inner, par)?
        };
        Ok(chosen.into_iter().map(|place| members[place]).collect())
    };
    outer.map(counts.len(), || (), of_group)
}

/// The rows of one group in memory, and their norms.
struct Group<T> {
    values: Vec<T>,
    norms: Vec<f64>,
    dim: usize,
    level: Level,
}

/// A number as rows are held: float32 or float64.
trait Number: Copy + Into<f64> + Send + Sync {}

impl Number for f32 {}

impl Number for f64 {}

impl<T: Number> Group<T> {
    /// Loads the rows of a group, or none at all if none is wanted.
    fn load(rows: &Rows<'_>, members: &[usize], wanted: usize, level: Level, narrow: fn(f64) -> T) -> Result<Self> {
        let members = if wanted == 0 { &[] } else { members };
        let dim = rows.dim();
        let mut reader = rows.reader();
        let (mut values, mut norms) = (Vec::with_capacity(members.len() * dim), Vec::with_capacity(members.len()));
        for &member in members {
            let (row, norm) = reader.read_with_norm(member)?;
            values.extend(row.iter().copied().map(narrow));
            norms.push(norm);
        }
        Ok(Group { values, norms, dim, level })
    }

    /// Chooses `count` rows, by their places in the group. `caller` is asked whether to stop.
    fn choose(&self, count: usize, par: &Par<'_>, caller: &Par<'_>) -> Result<Vec<usize>> {
        let n = self.norms.len();
        let mut mean = vec![0.0; self.dim];
        (0..n).for_each(|place| self.add_to(&mut mean, place));
        mean.iter_mut().for_each(|v| *v /= n as f64);
        let mut sum = vec![0.0; self.dim];
        let mut free = vec![true; n];
        let mut chosen = Vec::with_capacity(count);
        for t in 0..count {
            caller.check()?;
            let mut wanted: Vec<f64> = mean.iter().zip(&sum).map(|(mean, sum)| (t + 1) as f64 * mean - sum).collect();
            wanted.resize(self.dim.next_multiple_of(LANES), 0.0);
            let best_of_block =
                |(): &mut (), i: usize| Ok(best(self.level, self, block_range(i, BLOCK, n), &wanted, &free));
            let best = par.map(n.div_ceil(BLOCK), || (), best_of_block)?;
            // Blocks ascend, so the first of equals is the lowest row.
            let best = best.into_iter().flatten().reduce(|a, b| if b.0 > a.0 { b } else { a });
            let Some((_, place)) = best else { break };
            free[place] = false;
            self.add_to(&mut sum, place);
            chosen.push(place);
        }
        Ok(chosen)
    }

    /// Finds the highest score among the free rows of a range, and its place. [`best`] compiles this for every level.
    #[inline(always)]
    fn best_of(&self, places: Range<usize>, wanted: &[f64], free: &[bool]) -> Option<(f64, usize)> {
        let mut best: Option<(f64, usize)> = None;
        for place in places {
            if free[place] {
                let score = dot(self.row(place), wanted) / self.norms[place];
                if best.is_none_or(|(highest, _)| score > highest) {
                    best = Some((score, place));
                }
            }
        }
        best
    }

    #[inline(always)]
    fn row(&self, place: usize) -> &[T] {
        &self.values[place * self.dim..][..self.dim]
    }

    /// Adds a row, normalized, to `sum`.
    fn add_to(&self, sum: &mut [f64], place: usize) {
        sum.iter_mut().zip(self.row(place)).for_each(|(sum, &v)| *sum += v.into() / self.norms[place]);
    }
}

/// Computes [`linalg::dot`](crate::linalg::dot::dot), where `y` is padded to whole steps already.
#[inline(always)]
fn dot<T: Number>(x: &[T], y: &[f64]) -> f64 {
    let (steps, tail) = x.as_chunks::<LANES>();
    let (others, _) = y.as_chunks::<LANES>();
    let mut sums = [0.0; LANES];
    for (x, y) in steps.iter().zip(others) {
        for l in 0..LANES {
            sums[l] += x[l].into() * y[l];
        }
    }
    // Padding the tail would add 0 to the other lanes, which changes nothing: no sum that starts from 0.0 is -0.0.
    for (l, (&x, y)) in tail.iter().zip(&y[steps.len() * LANES..]).enumerate() {
        sums[l] += x.into() * y;
    }
    reduce_lanes(sums)
}

dispatch! {
    /// Finds the highest score among the free rows of a range of a group, and its place.
    fn best<T: Number>(
        level: Level,
        group: &Group<T>,
        places: Range<usize>,
        wanted: &[f64],
        free: &[bool],
    ) -> Option<(f64, usize)> {
        Avx512 | Avx2 | Scalar => group.best_of(places, wanted, free),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::linalg::dot;

    #[test]
    fn herding_follows_the_mean_and_lower_rows_first() {
        // Mean (1/2, 1/4): first (1, 0), of which there are two; then (1, 1/2) - (1, 0) asks for (0, 1).
        let values = [1.0, 0.0, 3.0, 0.0, 0.0, 1.0, 0.0, -1e-30];
        let rows = Rows::from_slice(&values[..6], 2).unwrap();
        for threads in [1, 3] {
            let par = Par::new(Some(threads));
            assert_eq!(herd(&rows, &[0, 0, 0], &[3], &par).unwrap(), [[0, 2, 1]]);
            let groups = herd(&rows, &[1, 0, 1], &[1, 2], &par).unwrap();
            assert_eq!(groups, [vec![1], vec![0, 2]]);
        }
        assert!(matches!(herd(&rows, &[0, 0, -1], &[3], &Par::new(Some(1))), Err(Error::Argument(_))));
    }

    proptest! {
        #[test]
        fn every_level_scores_as_the_definition(
            values in proptest::collection::vec(-4f64..4.0, 40..200), dim in 1usize..20, narrow: bool,
        ) {
            let singles: Vec<f32> = values.iter().map(|&v| v as f32).collect();
            let wide: Vec<f64> = if narrow { singles.iter().map(|&v| f64::from(v)).collect() } else { values };
            let n = wide.len() / dim - 1;
            let (rows, rest) = wide.split_at(n * dim);
            let mut wanted = rest[..dim].to_vec();
            let scores: Vec<f64> = rows.chunks_exact(dim).map(|row| dot::dot(row, &wanted)).collect();
            let expected = scores.iter().enumerate().fold(None, |best: Option<(f64, usize)>, (i, &s)| match best {
                Some((highest, _)) if s <= highest => best,
                _ => Some((s, i)),
            });
            wanted.resize(dim.next_multiple_of(LANES), 0.0);
            for level in Level::present() {
                let norms = vec![1.0; n];
                let got = if narrow {
                    let group = Group { values: singles[..n * dim].to_vec(), norms, dim, level };
                    best(level, &group, 0..n, &wanted, &vec![true; n])
                } else {
                    let group = Group { values: rows.to_vec(), norms, dim, level };
                    best(level, &group, 0..n, &wanted, &vec![true; n])
                };
                prop_assert_eq!(got, expected);
            }
        }
    }
}
