//! The best centroid of every row of a block: a matrix product in the order of [`super::lanes`], compiled for several
//! instruction sets.
//!
//! Rows and centroids are packed into tiles of a few members, `[tile][step][member][lane]`, so that the innermost loop
//! reads both as one stream and keeps a register (or two, or four) of partial sums for every pair of a tile.

use super::lanes::{LANES, Lanes, tree};
use crate::runtime::cpu::Level;

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

/// Pairs that [`Kernel::pairs`] takes at a time: as many chains of additions, twice, hide their latency.
pub const PAIRS: usize = 4;

impl Kernel {
    /// The kernel of `level`, for rows whose products with a float32 are exact or not.
    pub fn new(level: Level, exact_products: bool) -> Self {
        Kernel { level, exact_products }
    }

    fn tile(self) -> [usize; 2] {
        match self.level {
            Level::Scalar | Level::Neon => SCALAR,
            Level::Avx2 | Level::AvxVnni => AVX2,
            Level::Avx512 | Level::Avx512Vnni | Level::Avx512Icl => AVX512,
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
            (Level::Avx512 | Level::Avx512Vnni | Level::Avx512Icl, true) => unsafe {
                x86::nearest_avx512::<true>(rows, centroids, best)
            },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: the level was found present on this CPU.
            (Level::Avx512 | Level::Avx512Vnni | Level::Avx512Icl, false) => unsafe {
                x86::nearest_avx512::<false>(rows, centroids, best)
            },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: the level was found present on this CPU.
            (Level::Avx2 | Level::AvxVnni, true) => unsafe { x86::nearest_avx2::<true>(rows, centroids, best) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: the level was found present on this CPU.
            (Level::Avx2 | Level::AvxVnni, false) => unsafe { x86::nearest_avx2::<false>(rows, centroids, best) },
            _ => nearest::<{ SCALAR[0] }, { SCALAR[1] }, Lanes>(rows, centroids, best),
        }
    }

    /// All dot products of float32 rows in C order with a few centroids into `out`, a row after the other: for passes
    /// so light that packing the rows would cost more.
    pub fn dots(self, rows: &[f32], dim: usize, centroids: &Packed, out: &mut Vec<f64>) {
        out.clear();
        out.resize(rows.len() / dim * centroids.len, 0.0);
        match self.level {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: the level was found present on this CPU.
            Level::Avx512 | Level::Avx512Vnni | Level::Avx512Icl => unsafe {
                x86::dots_avx512(rows, dim, centroids, out)
            },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: the level was found present on this CPU.
            Level::Avx2 | Level::AvxVnni => unsafe { x86::dots_avx2(rows, dim, centroids, out) },
            _ => dots::<{ SCALAR[0] }, { SCALAR[1] }, Lanes>(rows, dim, centroids, out),
        }
    }

    /// The dot product of each pair of a float32 row and a centroid, and of the row with itself.
    pub fn pairs(self, pairs: [(&[f32], &[f32]); PAIRS]) -> [(f64, f64); PAIRS] {
        match self.level {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: the level was found present on this CPU.
            Level::Avx512 | Level::Avx512Vnni | Level::Avx512Icl => unsafe { x86::pairs_avx512(pairs) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: the level was found present on this CPU.
            Level::Avx2 | Level::AvxVnni => unsafe { x86::pairs_avx2(pairs) },
            _ => dots_of_pairs::<Lanes>(pairs),
        }
    }

    /// The dot product of a float32 vector with itself.
    pub fn square(self, vector: &[f32]) -> f64 {
        self.pairs([(vector, vector); PAIRS])[0].1
    }
}

/// The partial sums of one pair, in the registers of an instruction set.
trait Sums: Copy {
    fn zero() -> Self;
    /// Adds one step, lane by lane.
    fn add(self, x: &Lanes, y: &Lanes) -> Self;
    /// As [`Sums::add`], with `x` widened in registers.
    fn add_narrow(self, x: &[f32; LANES], y: &Lanes) -> Self;
    /// Adds one step of `x` and `y` to the first sums and one of `x` and `x` to the second, widened in registers.
    fn add_pair(sums: [Self; 2], x: &[f32; LANES], y: &[f32; LANES]) -> [Self; 2];
    fn lanes(self) -> Lanes;
}

impl Sums for Lanes {
    #[inline(always)]
    fn zero() -> Self {
        [0.0; LANES]
    }

    #[inline(always)]
    fn add(mut self, x: &Lanes, y: &Lanes) -> Self {
        for l in 0..LANES {
            self[l] += x[l] * y[l];
        }
        self
    }

    #[inline(always)]
    fn add_narrow(self, x: &[f32; LANES], y: &Lanes) -> Self {
        self.add(&x.map(f64::from), y)
    }

    #[inline(always)]
    fn add_pair([dot, square]: [Self; 2], x: &[f32; LANES], y: &[f32; LANES]) -> [Self; 2] {
        let x = x.map(f64::from);
        [dot.add(&x, &y.map(f64::from)), square.add(&x, &x)]
    }

    #[inline(always)]
    fn lanes(self) -> Lanes {
        self
    }
}

/// Registers wider than the target's floor. Everything here is inlined into the functions at the end, which enable the
/// instructions that it uses and are called only where those are present.
#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::*;

    #[derive(Clone, Copy)]
    struct Avx512<const FUSED: bool>(__m512d);

    impl<const FUSED: bool> Sums for Avx512<FUSED> {
        #[inline(always)]
        fn zero() -> Self {
            // SAFETY: AVX-512 F is present, see above.
            Self(unsafe { _mm512_setzero_pd() })
        }

        #[inline(always)]
        fn add(self, x: &Lanes, y: &Lanes) -> Self {
            // SAFETY: AVX-512 F is present, see above; both are 8 numbers.
            unsafe { self.add_register(_mm512_loadu_pd(x.as_ptr()), _mm512_loadu_pd(y.as_ptr())) }
        }

        #[inline(always)]
        fn add_narrow(self, x: &[f32; LANES], y: &Lanes) -> Self {
            // SAFETY: AVX-512 F is present, see above; both are 8 numbers.
            unsafe { self.add_register(_mm512_cvtps_pd(_mm256_loadu_ps(x.as_ptr())), _mm512_loadu_pd(y.as_ptr())) }
        }

        #[inline(always)]
        fn add_pair([dot, square]: [Self; 2], x: &[f32; LANES], y: &[f32; LANES]) -> [Self; 2] {
            // SAFETY: AVX-512 F is present, see above; both are 8 numbers.
            unsafe {
                let x = _mm512_cvtps_pd(_mm256_loadu_ps(x.as_ptr()));
                let y = _mm512_cvtps_pd(_mm256_loadu_ps(y.as_ptr()));
                [dot.add_register(x, y), square.add_register(x, x)]
            }
        }

        #[inline(always)]
        fn lanes(self) -> Lanes {
            let mut lanes = [0.0; LANES];
            // SAFETY: AVX-512 F is present, see above; there is room for 8 numbers.
            unsafe { _mm512_storeu_pd(lanes.as_mut_ptr(), self.0) };
            lanes
        }
    }

    impl<const FUSED: bool> Avx512<FUSED> {
        /// # Safety
        /// AVX-512 F must be present.
        #[inline(always)]
        unsafe fn add_register(self, x: __m512d, y: __m512d) -> Self {
            // SAFETY: handed on.
            Self(unsafe {
                if FUSED { _mm512_fmadd_pd(x, y, self.0) } else { _mm512_add_pd(self.0, _mm512_mul_pd(x, y)) }
            })
        }
    }

    #[derive(Clone, Copy)]
    struct Avx2<const FUSED: bool>([__m256d; 2]);

    /// # Safety
    /// AVX2 must be present.
    #[inline(always)]
    unsafe fn widen(x: &[f32; LANES]) -> [__m256d; 2] {
        // SAFETY: handed on; `x` is 8 numbers, 4 from 0 and 4 from 4 on.
        unsafe { [_mm256_cvtps_pd(_mm_loadu_ps(x.as_ptr())), _mm256_cvtps_pd(_mm_loadu_ps(x.as_ptr().add(4)))] }
    }

    impl<const FUSED: bool> Sums for Avx2<FUSED> {
        #[inline(always)]
        fn zero() -> Self {
            // SAFETY: AVX2 is present, see above.
            Self([unsafe { _mm256_setzero_pd() }; 2])
        }

        #[inline(always)]
        fn add(self, x: &Lanes, y: &Lanes) -> Self {
            // SAFETY: AVX2 and FMA are present, see above; both are 8 numbers, 4 from 0 and 4 from 4 on.
            let halves = |v: &Lanes| unsafe { [_mm256_loadu_pd(v.as_ptr()), _mm256_loadu_pd(v.as_ptr().add(4))] };
            // SAFETY: as above.
            unsafe { self.add_registers(halves(x), halves(y)) }
        }

        #[inline(always)]
        fn add_narrow(self, x: &[f32; LANES], y: &Lanes) -> Self {
            // SAFETY: as above.
            unsafe { self.add_registers(widen(x), [_mm256_loadu_pd(y.as_ptr()), _mm256_loadu_pd(y.as_ptr().add(4))]) }
        }

        #[inline(always)]
        fn add_pair([dot, square]: [Self; 2], x: &[f32; LANES], y: &[f32; LANES]) -> [Self; 2] {
            // SAFETY: as above.
            unsafe {
                let (x, y) = (widen(x), widen(y));
                [dot.add_registers(x, y), square.add_registers(x, x)]
            }
        }

        #[inline(always)]
        fn lanes(self) -> Lanes {
            let mut lanes = [0.0; LANES];
            // SAFETY: AVX2 is present, see above; there is room for 8 numbers.
            unsafe {
                _mm256_storeu_pd(lanes.as_mut_ptr(), self.0[0]);
                _mm256_storeu_pd(lanes.as_mut_ptr().add(4), self.0[1]);
            }
            lanes
        }
    }

    impl<const FUSED: bool> Avx2<FUSED> {
        /// # Safety
        /// AVX2 and FMA must be present.
        #[inline(always)]
        unsafe fn add_registers(self, x: [__m256d; 2], y: [__m256d; 2]) -> Self {
            Self(std::array::from_fn(|half| {
                let (x, y, sum) = (x[half], y[half], self.0[half]);
                // SAFETY: handed on.
                unsafe { if FUSED { _mm256_fmadd_pd(x, y, sum) } else { _mm256_add_pd(sum, _mm256_mul_pd(x, y)) } }
            }))
        }
    }

    #[target_feature(enable = "avx512f")]
    pub(super) fn nearest_avx512<const FUSED: bool>(rows: &[Lanes], centroids: &Packed, best: &mut [Best]) {
        nearest::<{ AVX512[0] }, { AVX512[1] }, Avx512<FUSED>>(rows, centroids, best);
    }

    #[target_feature(enable = "avx512f")]
    pub(super) fn dots_avx512(rows: &[f32], dim: usize, centroids: &Packed, out: &mut [f64]) {
        dots::<{ AVX512[0] }, { AVX512[1] }, Avx512<true>>(rows, dim, centroids, out);
    }

    #[target_feature(enable = "avx2,fma")]
    pub(super) fn dots_avx2(rows: &[f32], dim: usize, centroids: &Packed, out: &mut [f64]) {
        dots::<{ AVX2[0] }, { AVX2[1] }, Avx2<true>>(rows, dim, centroids, out);
    }

    #[target_feature(enable = "avx512f")]
    pub(super) fn pairs_avx512(pairs: [(&[f32], &[f32]); PAIRS]) -> [(f64, f64); PAIRS] {
        dots_of_pairs::<Avx512<true>>(pairs)
    }

    #[target_feature(enable = "avx2,fma")]
    pub(super) fn pairs_avx2(pairs: [(&[f32], &[f32]); PAIRS]) -> [(f64, f64); PAIRS] {
        dots_of_pairs::<Avx2<true>>(pairs)
    }

    #[target_feature(enable = "avx2,fma")]
    pub(super) fn nearest_avx2<const FUSED: bool>(rows: &[Lanes], centroids: &Packed, best: &mut [Best]) {
        nearest::<{ AVX2[0] }, { AVX2[1] }, Avx2<FUSED>>(rows, centroids, best);
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
fn nearest<const R: usize, const C: usize, S: Sums>(rows: &[Lanes], centroids: &Packed, best: &mut [Best]) {
    // One tile of centroids stays in the first cache while all rows of the block pass by, and labels come ascending.
    for (j, centroid_tile) in centroids.tiles.chunks_exact(centroids.steps * C).enumerate() {
        let labels = C.min(centroids.len - j * C);
        for (row_tile, best) in rows.chunks_exact(centroids.steps * R).zip(best.chunks_mut(R)) {
            let dots = tile::<R, C, S>(row_tile.as_chunks().0, centroid_tile.as_chunks().0);
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
fn tile<const R: usize, const C: usize, S: Sums>(rows: &[[Lanes; R]], centroids: &[[Lanes; C]]) -> [[f64; C]; R] {
    let mut sums = [[S::zero(); C]; R];
    for (x, y) in rows.iter().zip(centroids) {
        for r in 0..R {
            for c in 0..C {
                sums[r][c] = sums[r][c].add(&x[r], &y[c]);
            }
        }
    }
    sums.map(|row| row.map(|pair| tree(pair.lanes())))
}

/// As [`tile`], from rows that are not packed: `out` gets a row of dot products for each.
#[inline(always)]
fn dots<const R: usize, const C: usize, S: Sums>(rows: &[f32], dim: usize, centroids: &Packed, out: &mut [f64]) {
    for (group, out) in rows.chunks(R * dim).zip(out.chunks_mut(R * centroids.len)) {
        let count = group.len() / dim;
        // A last group of fewer rows repeats one of them: its results are dropped.
        let row = |r: usize| group[r.min(count - 1) * dim..][..dim].as_chunks::<LANES>();
        let full = dim / LANES;
        let steps: [&[[f32; LANES]]; R] = std::array::from_fn(|r| &row(r).0[..full]);
        let tails: [[f32; LANES]; R] = std::array::from_fn(|r| {
            let mut tail = [0.0; LANES];
            tail[..dim % LANES].copy_from_slice(row(r).1);
            tail
        });
        for (j, tile) in centroids.tiles.chunks_exact(centroids.steps * C).enumerate() {
            let mut sums = [[S::zero(); C]; R];
            // Whole steps and the padded one apart: a choice within the loop drives the sums out of the registers.
            let (whole, padded) = tile.as_chunks::<C>().0.split_at(full);
            for (s, y) in whole.iter().enumerate() {
                for r in 0..R {
                    for c in 0..C {
                        sums[r][c] = sums[r][c].add_narrow(&steps[r][s], &y[c]);
                    }
                }
            }
            for y in padded {
                for r in 0..R {
                    for c in 0..C {
                        sums[r][c] = sums[r][c].add_narrow(&tails[r], &y[c]);
                    }
                }
            }
            let labels = C.min(centroids.len - j * C);
            for (out, sums) in out.chunks_mut(centroids.len).zip(sums) {
                let dots = sums.map(|pair| tree(pair.lanes()));
                out[j * C..j * C + labels].copy_from_slice(&dots[..labels]);
            }
        }
    }
}

/// As [`tile`], of the pairs alone and with each row's square.
#[inline(always)]
fn dots_of_pairs<S: Sums>(pairs: [(&[f32], &[f32]); PAIRS]) -> [(f64, f64); PAIRS] {
    let dim = pairs[0].0.len();
    let chunks = pairs.map(|(x, y)| (x[..dim].as_chunks::<LANES>(), y[..dim].as_chunks::<LANES>()));
    let whole = chunks.map(|(x, y)| (&x.0[..dim / LANES], &y.0[..dim / LANES]));
    let mut sums = [[S::zero(); 2]; PAIRS];
    for step in 0..dim / LANES {
        for (sums, (x, y)) in sums.iter_mut().zip(&whole) {
            *sums = S::add_pair(*sums, &x[step], &y[step]);
        }
    }
    if !dim.is_multiple_of(LANES) {
        for (sums, (x, y)) in sums.iter_mut().zip(&chunks) {
            *sums = S::add_pair(*sums, &padded(x.1), &padded(y.1));
        }
    }
    sums.map(|[dot, square]| (tree(dot.lanes()), tree(square.lanes())))
}

fn padded(tail: &[f32]) -> [f32; LANES] {
    let mut lanes = [0.0; LANES];
    lanes[..tail.len()].copy_from_slice(tail);
    lanes
}
