//! A part of the base, and the search of it by a block of rows.

use std::ops::Range;

use super::{cosine, norms};
use crate::linalg::exact_gemm::{PAIRS, dot4};
use crate::linalg::norm::Norm;
use crate::linalg::{BoundedSearch, PANEL_COLUMNS, Query, RowNorm, SearchScratch};
use crate::runtime::cpu::Level;

/// Vectors to be found.
#[derive(Debug)]
pub(super) struct BasePanel {
    level: Level,
    dim: usize,
    vectors: Vec<f32>,
    norms: Vec<f64>,
    /// None where nothing is faster than float64.
    bounded: Option<BoundedSearch>,
}

/// Buffers of a thread.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    bounds: SearchScratch,
    row_norms: Vec<RowNorm>,
    queries: Vec<Query>,
    candidates: Vec<u32>,
}

/// A search by a block of rows. Rows and vectors are numbered from 0.
pub(super) trait Visitor {
    /// The query of `row`, which may narrow as vectors are visited.
    fn query(&self, row: usize) -> Query;
    /// Takes the similarity of `vector` to `row`. Every vector that the query asks for is visited once, in ascending order;
    /// others may be visited too.
    fn visit(&mut self, row: usize, vector: usize, similarity: f32);
}

impl BasePanel {
    /// Packs vectors of C order.
    pub(super) fn new(vectors: Vec<f32>, dim: usize, level: Level) -> Self {
        let norms = norms(&vectors, dim, level);
        let bounded = BoundedSearch::new(level, &vectors, &norms, dim);
        BasePanel { level, dim, vectors, norms, bounded }
    }

    pub(super) fn len(&self) -> usize {
        self.norms.len()
    }

    /// The vectors of `range`, C order.
    pub(super) fn vectors(&self, range: Range<usize>) -> &[f32] {
        &self.vectors[range.start * self.dim..range.end * self.dim]
    }

    /// Looks for what `visitor` asks, for each of `rows` in C order.
    pub(super) fn search(&self, rows: &[f32], visitor: &mut impl Visitor, scratch: &mut Scratch) {
        let Scratch { bounds, row_norms, queries, candidates } = scratch;
        let all: Vec<&[f32]> = rows.chunks_exact(self.dim).collect();
        self.measure(&all, row_norms);
        if let Some(bounded) = &self.bounded {
            bounded.take_rows(rows, row_norms, bounds);
        }
        for first in (0..self.len()).step_by(PANEL_COLUMNS) {
            queries.clear();
            queries.extend((0..all.len()).map(|row| visitor.query(row)));
            if queries.iter().all(|query| query.limit <= first) {
                break;
            }
            if let Some(bounded) = &self.bounded {
                bounded.search(first, queries, bounds);
            }
            let end = self.len().min(first + PANEL_COLUMNS);
            for (i, row) in all.iter().enumerate() {
                candidates.clear();
                match &self.bounded {
                    Some(_) => candidates.extend(bounds.candidates(i).map(|vector| first as u32 + vector)),
                    None => candidates.extend(first as u32..end.min(queries[i].limit) as u32),
                }
                for four in candidates.chunks(PAIRS) {
                    let vector = |j: usize| four[j.min(four.len() - 1)] as usize;
                    let pair = |j: usize| (*row, self.vectors(vector(j)..vector(j) + 1));
                    let dots = dot4(self.level, std::array::from_fn(pair));
                    for (&vector, (dot, _)) in four.iter().zip(dots) {
                        let similarity = cosine(dot, row_norms[i].norm, self.norms[vector as usize]);
                        if !similarity.is_nan() {
                            visitor.visit(i, vector as usize, similarity);
                        }
                    }
                }
            }
        }
    }

    fn measure(&self, rows: &[&[f32]], norms: &mut Vec<RowNorm>) {
        let zeros;
        let center = match &self.bounded {
            Some(bounded) => bounded.center(),
            None => {
                zeros = vec![0f32; self.dim];
                &zeros
            }
        };
        norms.clear();
        for four in rows.chunks(PAIRS) {
            let pairs = dot4(self.level, std::array::from_fn(|i| (four[i.min(four.len() - 1)], center)));
            let norm = |&(center, square): &(f64, f64)| RowNorm { norm: Norm::from_square(square).value, center };
            norms.extend(pairs.iter().take(four.len()).map(norm));
        }
    }
}
