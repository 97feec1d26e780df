//! The dot product of [`super::dot`] for matrices, to the bit, compiled for several instruction sets.
//!
//! Rows and columns are packed into tiles of a few members, `[tile][step][member][lane]`, so that the innermost loop
//! reads both as one stream and keeps the partial sums of every pair of a tile in registers.

use super::dot::{LANES, Lanes, reduce_lanes};
use crate::runtime::cpu::{Level, dispatch};
use crate::simd::{F64x8, Isa};

/// The column of the largest dot product with a row.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Best {
    /// Its number: the lowest of equals.
    pub(crate) label: u32,
    /// The dot product.
    pub(crate) dot: f64,
}

const NONE: Best = Best { label: 0, dot: f64::NEG_INFINITY };

/// Rows and columns of a tile: the sums of its pairs and a step of a row must fit into the registers.
const SCALAR: [usize; 2] = [1, 3]; // 16 registers of two lanes
const AVX2: [usize; 2] = [2, 3]; // 16 registers of four lanes
const AVX512: [usize; 2] = [4, 6]; // 32 registers of eight lanes

/// Columns packed for the kernels of one level.
#[derive(Debug)]
pub(crate) struct ExactColumns {
    level: Level,
    tiles: Vec<Lanes>,
    len: usize,
    dim: usize,
}

impl ExactColumns {
    /// Packs `vectors`, given in C order.
    pub(crate) fn new(level: Level, vectors: &[f32], dim: usize) -> Self {
        let mut tiles = Vec::new();
        pack(vectors, dim, tile_shape(level)[1], &mut tiles);
        ExactColumns { level, tiles, len: vectors.len() / dim, dim }
    }

    /// Packs rows given in C order into `tiles`, a buffer.
    pub(crate) fn pack_rows(&self, rows: &[f64], tiles: &mut Vec<Lanes>) {
        pack(rows, self.dim, tile_shape(self.level)[0], tiles);
    }

    /// Finds the best column for each of the `n` packed rows. Rows that hold NaN get any. `exact_products` promises that
    /// float64 holds the products of rows and columns, as it does of float32 numbers.
    pub(crate) fn argmax(&self, rows: &[Lanes], n: usize, exact_products: bool, best: &mut Vec<Best>) {
        best.clear();
        best.resize(n, NONE);
        argmax(self.level, rows, self, exact_products, best);
    }

    /// Writes all dot products of float32 rows in C order to `out`, a row after the other: for passes so light that
    /// packing the rows would cost more.
    pub(crate) fn dots(&self, rows: &[f32], out: &mut Vec<f64>) {
        out.clear();
        out.resize(rows.len() / self.dim * self.len, 0.0);
        dots(self.level, rows, self, out);
    }

    /// Steps of [`LANES`] in a vector.
    fn steps(&self) -> usize {
        self.dim.div_ceil(LANES)
    }
}

dispatch! {
    fn argmax(level: Level, rows: &[Lanes], columns: &ExactColumns, exact_products: bool, best: &mut [Best]) {
        Avx512 as I => if exact_products {
            argmax_tiles::<I, { AVX512[0] }, { AVX512[1] }, true>(rows, columns, best)
        } else {
            argmax_tiles::<I, { AVX512[0] }, { AVX512[1] }, false>(rows, columns, best)
        },
        Avx2 as I => if exact_products {
            argmax_tiles::<I, { AVX2[0] }, { AVX2[1] }, true>(rows, columns, best)
        } else {
            argmax_tiles::<I, { AVX2[0] }, { AVX2[1] }, false>(rows, columns, best)
        },
        Scalar as I => argmax_tiles::<I, { SCALAR[0] }, { SCALAR[1] }, false>(rows, columns, best),
    }
}

dispatch! {
    fn dots(level: Level, rows: &[f32], columns: &ExactColumns, out: &mut [f64]) {
        Avx512 as I => dots_of_tiles::<I, { AVX512[0] }, { AVX512[1] }>(rows, columns, out),
        Avx2 as I => dots_of_tiles::<I, { AVX2[0] }, { AVX2[1] }>(rows, columns, out),
        Scalar as I => dots_of_tiles::<I, { SCALAR[0] }, { SCALAR[1] }>(rows, columns, out),
    }
}

/// Pairs that [`dot4`] takes at a time: twice as many chains of additions hide their latency.
pub(crate) const PAIRS: usize = 4;

dispatch! {
    /// The dot product of each pair of a float32 row and a column, and of the row with itself.
    pub(crate) fn dot4(level: Level, pairs: [(&[f32], &[f32]); PAIRS]) -> [(f64, f64); PAIRS] {
        Avx512 | Avx2 | Scalar as I => dots_of_pairs::<I>(pairs),
    }
}

/// The dot product of a float32 vector with itself.
pub(crate) fn squared_norm(level: Level, vector: &[f32]) -> f64 {
    dot4(level, [(vector, vector); PAIRS])[0].1
}

fn tile_shape(level: Level) -> [usize; 2] {
    match level {
        _ if level.includes(Level::Avx512) => AVX512,
        _ if level.includes(Level::Avx2) => AVX2,
        _ => SCALAR,
    }
}

/// Packs vectors of C order into tiles of `members`; vectors and lanes that are missing at the end become zeros.
fn pack<T: Copy + Into<f64>>(vectors: &[T], dim: usize, members: usize, tiles: &mut Vec<Lanes>) {
    let steps = dim.div_ceil(LANES);
    let count = (vectors.len() / dim).div_ceil(members);
    tiles.clear();
    tiles.resize(count * steps * members, [0.0; LANES]);
    for (i, vector) in vectors.chunks_exact(dim).enumerate() {
        let tile = &mut tiles[i / members * steps * members..];
        for (s, chunk) in vector.chunks(LANES).enumerate() {
            let lanes = &mut tile[s * members + i % members];
            for (lane, &v) in lanes.iter_mut().zip(chunk) {
                *lane = v.into();
            }
        }
    }
}

/// # Safety
/// The CPU must have the instructions of `I`: see [`crate::simd`].
#[inline(always)]
unsafe fn argmax_tiles<I: Isa, const R: usize, const C: usize, const FUSED: bool>(
    rows: &[Lanes],
    columns: &ExactColumns,
    best: &mut [Best],
) {
    // One tile of columns stays in the first cache while all rows of the block pass by, and labels come ascending.
    for (j, column_tile) in columns.tiles.chunks_exact(columns.steps() * C).enumerate() {
        let labels = C.min(columns.len - j * C);
        for (row_tile, best) in rows.chunks_exact(columns.steps() * R).zip(best.chunks_mut(R)) {
            // SAFETY: the caller promises that the CPU has these instructions.
            let dots = unsafe { tile::<I, R, C, FUSED>(row_tile.as_chunks().0, column_tile.as_chunks().0) };
            for (best, dots) in best.iter_mut().zip(&dots) {
                for (c, &dot) in dots[..labels].iter().enumerate() {
                    if dot > best.dot {
                        *best = Best { label: (j * C + c) as u32, dot };
                    }
                }
            }
        }
    }
}

/// All dot products of a tile of rows with a tile of columns.
///
/// # Safety
/// The CPU must have the instructions of `I`: see [`crate::simd`].
#[inline(always)]
unsafe fn tile<I: Isa, const R: usize, const C: usize, const FUSED: bool>(
    rows: &[[Lanes; R]],
    columns: &[[Lanes; C]],
) -> [[f64; C]; R] {
    // SAFETY: the caller promises that the CPU has these instructions.
    unsafe {
        let mut sums = [[I::F64::zero(); C]; R];
        for (x, y) in rows.iter().zip(columns) {
            for r in 0..R {
                for c in 0..C {
                    sums[r][c] = sums[r][c].add_product::<FUSED>(I::F64::load(&x[r]), I::F64::load(&y[c]));
                }
            }
        }
        reduced(sums)
    }
}

/// As [`tile`], from rows that are not packed: `out` gets a row of dot products for each.
///
/// # Safety
/// The CPU must have the instructions of `I`: see [`crate::simd`].
#[inline(always)]
unsafe fn dots_of_tiles<I: Isa, const R: usize, const C: usize>(rows: &[f32], columns: &ExactColumns, out: &mut [f64]) {
    let dim = columns.dim;
    for (group, out) in rows.chunks(R * dim).zip(out.chunks_mut(R * columns.len)) {
        let count = group.len() / dim;
        // A last group of fewer rows repeats one of them: its results are dropped.
        let row = |r: usize| group[r.min(count - 1) * dim..][..dim].as_chunks::<LANES>();
        let full = dim / LANES;
        let steps: [&[[f32; LANES]]; R] = std::array::from_fn(|r| &row(r).0[..full]);
        let tails: [[f32; LANES]; R] = std::array::from_fn(|r| padded(row(r).1));
        for (j, tile) in columns.tiles.chunks_exact(columns.steps() * C).enumerate() {
            // SAFETY: the caller promises that the CPU has these instructions.
            let dots: [[f64; C]; R] = unsafe {
                let mut sums = [[I::F64::zero(); C]; R];
                // Whole steps and the padded one apart: a choice within the loop drives the sums out of the registers.
                let (whole, last) = tile.as_chunks::<C>().0.split_at(full);
                for (s, y) in whole.iter().enumerate() {
                    for r in 0..R {
                        for c in 0..C {
                            let (x, y) = (I::F64::widen(&steps[r][s]), I::F64::load(&y[c]));
                            sums[r][c] = sums[r][c].add_product::<true>(x, y);
                        }
                    }
                }
                for y in last {
                    for r in 0..R {
                        for c in 0..C {
                            let (x, y) = (I::F64::widen(&tails[r]), I::F64::load(&y[c]));
                            sums[r][c] = sums[r][c].add_product::<true>(x, y);
                        }
                    }
                }
                reduced(sums)
            };
            let labels = C.min(columns.len - j * C);
            for (out, dots) in out.chunks_mut(columns.len).zip(dots) {
                out[j * C..j * C + labels].copy_from_slice(&dots[..labels]);
            }
        }
    }
}

/// As [`tile`], of the pairs alone and with each row's square.
///
/// # Safety
/// The CPU must have the instructions of `I`: see [`crate::simd`].
#[inline(always)]
unsafe fn dots_of_pairs<I: Isa>(pairs: [(&[f32], &[f32]); PAIRS]) -> [(f64, f64); PAIRS] {
    let dim = pairs[0].0.len();
    let chunks = pairs.map(|(x, y)| (x[..dim].as_chunks::<LANES>(), y[..dim].as_chunks::<LANES>()));
    let whole = chunks.map(|(x, y)| (&x.0[..dim / LANES], &y.0[..dim / LANES]));
    // SAFETY: the caller promises that the CPU has these instructions.
    let sums = unsafe {
        let mut sums = [[I::F64::zero(); 2]; PAIRS];
        for step in 0..dim / LANES {
            for ([dot, square], (x, y)) in sums.iter_mut().zip(&whole) {
                let (x, y) = (I::F64::widen(&x[step]), I::F64::widen(&y[step]));
                (*dot, *square) = (dot.add_product::<true>(x, y), square.add_product::<true>(x, x));
            }
        }
        if !dim.is_multiple_of(LANES) {
            for ([dot, square], (x, y)) in sums.iter_mut().zip(&chunks) {
                let (x, y) = (I::F64::widen(&padded(x.1)), I::F64::widen(&padded(y.1)));
                (*dot, *square) = (dot.add_product::<true>(x, y), square.add_product::<true>(x, x));
            }
        }
        reduced(sums)
    };
    sums.map(|[dot, square]| (dot, square))
}

/// The dot products of which these are the lanes.
///
/// # Safety
/// The CPU must have the instructions of `F`: see [`crate::simd`].
#[inline(always)]
unsafe fn reduced<F: F64x8, const R: usize, const C: usize>(sums: [[F; C]; R]) -> [[f64; C]; R] {
    let mut dots = [[0.0; C]; R];
    for (dots, sums) in dots.iter_mut().zip(sums) {
        for (dot, sum) in dots.iter_mut().zip(sums) {
            // SAFETY: the caller promises that the CPU has these instructions.
            *dot = reduce_lanes(unsafe { sum.to_array() });
        }
    }
    dots
}

#[inline(always)]
fn padded(tail: &[f32]) -> [f32; LANES] {
    let mut lanes = [0.0; LANES];
    lanes[..tail.len()].copy_from_slice(tail);
    lanes
}
