//! k-center greedy (Gonzalez, 1985; Sener and Savarese, 2018): the row farthest from all that are chosen, again and again.
//!
//! Similarities to the nearest chosen row only grow, so those to *some* of the chosen rows are lower bounds. The rows of
//! the lowest bounds are held in memory and compared with every new choice; as long as one of them is below the bound of
//! all others, it is the farthest of all. Only then the others catch up, with all choices since at once: as products of
//! matrices, of which the bounds of [`BasePanel`] exclude nearly all.

use super::{BasePanel, Options, Scratch, Source, Visitor, check_count, cosine};
use crate::error::{Error, Result};
use crate::linalg::Query;
use crate::linalg::exact_gemm::{PAIRS, dot4, squared_norm};
use crate::rows::Rows;
use crate::runtime::cpu::Level;
use crate::runtime::parallel::Par;

/// Rows that are held: few enough that a step is quick, and enough for many steps.
const HELD: std::ops::RangeInclusive<usize> = 1024..=16384;

/// When to stop.
#[derive(Debug, Clone, Copy)]
pub struct StopRule {
    /// With so many chosen rows, those given included.
    pub count: usize,
    /// Once no row is farther than this from the nearest chosen row.
    pub distance: f64,
}

/// Chosen rows.
#[derive(Debug, Clone, PartialEq)]
pub struct Centers {
    /// Their numbers, in the order in which they were chosen; those given come first.
    pub chosen: Vec<u32>,
    /// The similarity of every row to the nearest chosen row; NaN for rows without a direction.
    pub similarity: Vec<f32>,
}

/// The Euclidean distance of the unit vectors of a similarity.
pub fn distance(similarity: f32) -> f64 {
    (2.0 - 2.0 * f64::from(similarity)).max(0.0).sqrt()
}

/// Chooses rows by farthest point, ties to the lower number, after those that are `given`: at least one.
///
/// # Errors
/// [`Error::Argument`] for a given row that is none, comes twice or has no direction, and what reading files can raise.
pub fn farthest_first(
    rows: &Rows<'_>,
    given: &[u32],
    stop: StopRule,
    options: Options,
    par: &Par<'_>,
) -> Result<Centers> {
    check_count(rows)?;
    let (n, dim) = (rows.len(), rows.dim());
    let mut chosen = Chosen::new(rows, given)?;
    let mut similarity = vec![f32::NEG_INFINITY; n];
    let mut seen = 0;
    let mut is_done = false;
    while seen < chosen.numbers.len() {
        let panel = BasePanel::new(chosen.vectors[seen * dim..].to_vec(), dim, options.level()?);
        let size = options.block_rows(dim);
        par.for_blocks(
            &mut similarity,
            size,
            || (Source::new(rows), Scratch::default()),
            |(source, scratch), i, block| {
                let values = source.read(i * size..i * size + block.len())?;
                panel.search(values, &mut Nearest(block), scratch);
                Ok(())
            },
        )?;
        if seen == 0 {
            if let Some(row) = given.iter().find(|&&row| similarity[row as usize] == f32::NEG_INFINITY) {
                return Err(Error::InvalidRow { row: *row as usize, why: "is given, but has no direction" });
            }
            // Whatever is comparable was compared.
            similarity.iter_mut().filter(|s| **s == f32::NEG_INFINITY).for_each(|s| *s = f32::NAN);
        }
        seen = chosen.numbers.len();
        is_done = is_done || !choose_from_held(rows, &mut chosen, &similarity, stop, options, par)?;
    }
    Ok(Centers { chosen: chosen.numbers, similarity })
}

struct Chosen {
    numbers: Vec<u32>,
    is_chosen: Vec<bool>,
    vectors: Vec<f32>,
}

impl Chosen {
    fn new(rows: &Rows<'_>, given: &[u32]) -> Result<Self> {
        if given.is_empty() {
            return Err(Error::Argument("no first row is given; expected at least one".into()));
        }
        let mut chosen = Chosen { numbers: Vec::new(), is_chosen: vec![false; rows.len()], vectors: Vec::new() };
        for &row in given {
            match chosen.is_chosen.get(row as usize) {
                Some(false) => chosen.push(row, &[]),
                Some(true) => return Err(Error::Argument(format!("row {row} is given twice"))),
                None => return Err(Error::Argument(format!("row {row} is given; there are {} rows", rows.len()))),
            }
        }
        Source::new(rows).gather(given, &mut chosen.vectors)?;
        Ok(chosen)
    }

    fn push(&mut self, row: u32, vector: &[f32]) {
        self.numbers.push(row);
        self.is_chosen[row as usize] = true;
        self.vectors.extend_from_slice(vector);
    }
}

/// A row that is held, and its similarity to the nearest chosen row. Lower is farther.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Candidate {
    similarity: f32,
    row: u32,
}

impl Candidate {
    /// Similarities are no NaN.
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.similarity.total_cmp(&other.similarity)).then(self.row.cmp(&other.row))
    }
}

/// Chooses as long as the farthest is among the rows of the lowest similarities. False once there is no more to choose.
fn choose_from_held(
    rows: &Rows<'_>,
    chosen: &mut Chosen,
    similarity: &[f32],
    stop: StopRule,
    options: Options,
    par: &Par<'_>,
) -> Result<bool> {
    let dim = rows.dim();
    let level = options.level()?;
    let mut held: Vec<Candidate> = (0u32..)
        .zip(similarity)
        .filter(|&(row, s)| !s.is_nan() && !chosen.is_chosen[row as usize])
        .map(|(row, &similarity)| Candidate { similarity, row })
        .collect();
    let count = (similarity.len() / 64).clamp(*HELD.start(), *HELD.end());
    // What is not held is not below this.
    let mut others = None;
    if count < held.len() {
        others = Some(*held.select_nth_unstable_by(count, Candidate::cmp).1);
        held.truncate(count);
    }
    held.shrink_to_fit();
    held.sort_unstable_by_key(|candidate| candidate.row);
    let mut vectors = Vec::new();
    Source::new(rows).gather(&held.iter().map(|candidate| candidate.row).collect::<Vec<u32>>(), &mut vectors)?;
    let is_below_others = |candidate: &Candidate| others.is_none_or(|others| candidate.cmp(&others).is_lt());
    loop {
        par.check()?;
        let farthest = held.iter().enumerate().min_by(|(_, a), (_, b)| a.cmp(b)).map(|(i, candidate)| (i, *candidate));
        let Some((i, candidate)) = farthest.filter(|(_, candidate)| is_below_others(candidate)) else {
            return Ok(others.is_some() && chosen.numbers.len() < stop.count);
        };
        if chosen.numbers.len() >= stop.count || distance(candidate.similarity) <= stop.distance {
            return Ok(false);
        }
        let center = vectors[i * dim..(i + 1) * dim].to_vec();
        chosen.push(candidate.row, &center);
        update(&mut held, &vectors, &center, level);
        // What is above the others is farthest only after they have caught up.
        let mut end = 0;
        for i in 0..held.len() {
            if held[i].row != candidate.row && is_below_others(&held[i]) {
                held[end] = held[i];
                vectors.copy_within(i * dim..(i + 1) * dim, end * dim);
                end += 1;
            }
        }
        held.truncate(end);
    }
}

/// Raises the similarity of each candidate to that to `center`.
fn update(held: &mut [Candidate], vectors: &[f32], center: &[f32], level: Level) {
    let dim = center.len();
    let norm = squared_norm(level, center).sqrt();
    for (four, vectors) in held.chunks_mut(PAIRS).zip(vectors.chunks(PAIRS * dim)) {
        let vector = |i: usize| &vectors[i.min(four.len() - 1) * dim..][..dim];
        let dots = dot4(level, std::array::from_fn(|i| (vector(i), center)));
        for (candidate, (dot, square)) in four.iter_mut().zip(dots) {
            candidate.similarity = candidate.similarity.max(cosine(dot, square.sqrt(), norm));
        }
    }
}

/// The largest similarity of each row so far.
struct Nearest<'n>(&'n mut [f32]);

impl Visitor for Nearest<'_> {
    fn query(&self, row: usize) -> Query {
        Query { floor: self.0[row], limit: usize::MAX, best: 1 }
    }

    fn visit(&mut self, row: usize, _: usize, similarity: f32) {
        self.0[row] = self.0[row].max(similarity);
    }
}
