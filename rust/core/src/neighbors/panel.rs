//! A part of the base, and the search of it by a block of rows.

use std::ops::Range;

use super::{cosine, norms};
use crate::assign::{Ask, Direction, Kernel, Measure, PAIRS, PANEL_VECTORS, Screen, Screening};
use crate::runtime::cpu::Level;

/// Vectors to be found.
#[derive(Debug)]
pub(super) struct Panel {
    kernel: Kernel,
    dim: usize,
    vectors: Vec<f32>,
    norms: Vec<f64>,
    /// None where nothing is faster than float64.
    screen: Option<Screen>,
}

/// Buffers of a thread.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    screening: Screening,
    measures: Vec<Measure>,
    asks: Vec<Ask>,
    left: Vec<u32>,
}

/// What a block of rows looks for, and finds. Rows and vectors are numbered from 0.
pub(super) trait Search {
    /// What `row` looks for by now.
    fn ask(&self, row: usize) -> Ask;
    /// `vector` has this similarity to `row`. Each that may be asked for is found once, ascending, with others among them.
    fn found(&mut self, row: usize, vector: usize, similarity: f32);
}

impl Panel {
    /// Of vectors in C order.
    pub(super) fn new(vectors: Vec<f32>, dim: usize, level: Level) -> Self {
        let kernel = Kernel::new(level, true);
        let norms = norms(&vectors, dim, kernel);
        let screen = Screen::new(level, &vectors, &norms, dim);
        Panel { kernel, dim, vectors, norms, screen }
    }

    pub(super) fn len(&self) -> usize {
        self.norms.len()
    }

    /// The vectors of `range`, C order.
    pub(super) fn vectors(&self, range: Range<usize>) -> &[f32] {
        &self.vectors[range.start * self.dim..range.end * self.dim]
    }

    /// Looks for what `search` asks, for each of `rows` in C order.
    pub(super) fn search(&self, rows: &[f32], search: &mut impl Search, scratch: &mut Scratch) {
        let Scratch { screening, measures, asks, left } = scratch;
        let all: Vec<&[f32]> = rows.chunks_exact(self.dim).collect();
        self.measure(&all, measures);
        if let Some(screen) = &self.screen {
            screen.encode(rows, measures, screening);
        }
        for first in (0..self.len()).step_by(PANEL_VECTORS) {
            asks.clear();
            asks.extend((0..all.len()).map(|row| search.ask(row)));
            if asks.iter().all(|ask| ask.limit <= first) {
                break;
            }
            if let Some(screen) = &self.screen {
                screen.panel(first, asks, screening);
            }
            let end = self.len().min(first + PANEL_VECTORS);
            for (i, row) in all.iter().enumerate() {
                left.clear();
                match &self.screen {
                    Some(_) => left.extend(screening.left(i).map(|vector| first as u32 + vector)),
                    None => left.extend(first as u32..end.min(asks[i].limit) as u32),
                }
                for four in left.chunks(PAIRS) {
                    let vector = |j: usize| four[j.min(four.len() - 1)] as usize;
                    let dots =
                        self.kernel.pairs(std::array::from_fn(|j| (*row, self.vectors(vector(j)..vector(j) + 1))));
                    for (&vector, (dot, _)) in four.iter().zip(dots) {
                        let similarity = cosine(dot, measures[i].norm, self.norms[vector as usize]);
                        if !similarity.is_nan() {
                            search.found(i, vector as usize, similarity);
                        }
                    }
                }
            }
        }
    }

    fn measure(&self, rows: &[&[f32]], measures: &mut Vec<Measure>) {
        let zeros;
        let centre = match &self.screen {
            Some(screen) => screen.centre(),
            None => {
                zeros = vec![0f32; self.dim];
                &zeros
            }
        };
        measures.clear();
        for four in rows.chunks(PAIRS) {
            let pairs = self.kernel.pairs(std::array::from_fn(|i| (four[i.min(four.len() - 1)], centre)));
            measures.extend(
                pairs
                    .iter()
                    .take(four.len())
                    .map(|&(centre, square)| Measure { norm: Direction::of_square(square).norm, centre }),
            );
        }
    }
}
