//! The best centroid of every row of a block: a matrix product in the order of [`super::lanes`], compiled for several
//! instruction sets.
//!
//! Rows and centroids are packed into tiles of a few members, `[tile][step][member][lane]`, so that the innermost loop
//! reads both as one stream and keeps a register (or two, or four) of partial sums for every pair of a tile.

use super::lanes::{LANES, Lanes, tree};
use crate::cpu::Level;

/// The best centroid of a row.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Best {
    /// Its number.
    pub label: u32,
    /// The dot product with it.
    pub dot: f64,
}

const NONE: Best = Best { label: 0, dot: f64::NEG_INFINITY };

/// One compilation of the kernel.
#[derive(Debug, Clone, Copy)]
pub struct Kernel {
    level: Level,
    /// Whether all products are exact, so that a fused multiply-add gives the bits of the definition.
    exact_products: bool,
}

/// Centroids as a [`Kernel`] wants them.
#[derive(Debug)]
pub struct Packed {
    tiles: Vec<Lanes>,
    len: usize,
    /// Steps of [`LANES`] in a vector.
    steps: usize,
}

/// Members of a tile: the pairs of a tile and one row's step must fit into the registers.
const SCALAR: [usize; 2] = [1, 3]; // 16 registers of two lanes
const AVX2: [usize; 2] = [2, 3]; // 16 registers of four lanes
const AVX512: [usize; 2] = [4, 6]; // 32 registers of eight lanes

impl Kernel {
    /// The kernel of `level`, for rows whose products with a float32 are exact or not.
    pub fn new(level: Level, exact_products: bool) -> Self {
        Kernel { level, exact_products }
    }

    fn tile(self) -> [usize; 2] {
        match self.level {
            Level::Scalar => SCALAR,
            Level::Avx2 => AVX2,
            Level::Avx512 => AVX512,
        }
    }

    /// Packs centroids given in C order.
    pub fn pack_centroids(self, vectors: &[f32], dim: usize) -> Packed {
        let mut tiles = Vec::new();
        pack(vectors, dim, self.tile()[1], &mut tiles);
        Packed { tiles, len: vectors.len() / dim, steps: dim.div_ceil(LANES) }
    }

    /// Packs rows given in C order into `tiles`, a buffer.
    pub fn pack_rows(self, values: &[f64], dim: usize, tiles: &mut Vec<Lanes>) {
        pack(values, dim, self.tile()[0], tiles);
    }

    /// The best centroid of each of the `n` packed rows into `best`. Rows that hold NaN get any.
    pub fn nearest(self, rows: &[Lanes], n: usize, centroids: &Packed, best: &mut Vec<Best>) {
        best.clear();
        best.resize(n, NONE);
        match (self.level, self.exact_products) {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: the level was found present on this CPU.
            (Level::Avx512, true) => unsafe { x86::nearest_avx512_fused(rows, centroids, best) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: the level was found present on this CPU.
            (Level::Avx512, false) => unsafe { x86::nearest_avx512(rows, centroids, best) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: the level was found present on this CPU.
            (Level::Avx2, true) => unsafe { x86::nearest_avx2_fused(rows, centroids, best) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: the level was found present on this CPU.
            (Level::Avx2, false) => unsafe { x86::nearest_avx2(rows, centroids, best) },
            _ => nearest::<{ SCALAR[0] }, { SCALAR[1] }, false>(rows, centroids, best),
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::*;

    #[target_feature(enable = "avx512f")]
    pub(super) fn nearest_avx512_fused(rows: &[Lanes], centroids: &Packed, best: &mut [Best]) {
        nearest::<{ AVX512[0] }, { AVX512[1] }, true>(rows, centroids, best);
    }

    #[target_feature(enable = "avx512f")]
    pub(super) fn nearest_avx512(rows: &[Lanes], centroids: &Packed, best: &mut [Best]) {
        nearest::<{ AVX512[0] }, { AVX512[1] }, false>(rows, centroids, best);
    }

    #[target_feature(enable = "avx2,fma")]
    pub(super) fn nearest_avx2_fused(rows: &[Lanes], centroids: &Packed, best: &mut [Best]) {
        nearest::<{ AVX2[0] }, { AVX2[1] }, true>(rows, centroids, best);
    }

    #[target_feature(enable = "avx2,fma")]
    pub(super) fn nearest_avx2(rows: &[Lanes], centroids: &Packed, best: &mut [Best]) {
        nearest::<{ AVX2[0] }, { AVX2[1] }, false>(rows, centroids, best);
    }
}

/// Vectors of C order into tiles of `members`; vectors and lanes that are missing at the end become zeros.
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

#[inline(always)]
fn nearest<const R: usize, const C: usize, const FUSED: bool>(rows: &[Lanes], centroids: &Packed, best: &mut [Best]) {
    // One tile of centroids stays in the first cache while all rows of the block pass by, and labels come ascending.
    for (j, centroid_tile) in centroids.tiles.chunks_exact(centroids.steps * C).enumerate() {
        let labels = C.min(centroids.len - j * C);
        for (row_tile, best) in rows.chunks_exact(centroids.steps * R).zip(best.chunks_mut(R)) {
            let dots = tile::<R, C, FUSED>(row_tile.as_chunks().0, centroid_tile.as_chunks().0);
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

/// All dot products of a tile of rows with a tile of centroids.
#[inline(always)]
fn tile<const R: usize, const C: usize, const FUSED: bool>(
    rows: &[[Lanes; R]],
    centroids: &[[Lanes; C]],
) -> [[f64; C]; R] {
    let mut sums = [[[0.0; LANES]; C]; R];
    for (x, y) in rows.iter().zip(centroids) {
        for r in 0..R {
            for c in 0..C {
                for l in 0..LANES {
                    let sum = &mut sums[r][c][l];
                    *sum = if FUSED { x[r][l].mul_add(y[c][l], *sum) } else { *sum + x[r][l] * y[c][l] };
                }
            }
        }
    }
    sums.map(|row| row.map(tree))
}
