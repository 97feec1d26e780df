//! The histogram kernel for CPUs with AVX-512 and its population count.
//!
//! Counters in memory take a store a pixel, and wait for each other where neighbors share a level. Here no level is
//! ever an address: 512 pixels become eight vectors of one bit each, the planes; from four planes each come the vectors
//! that tell which pixels have a given upper or lower half of their level; the bits set in both one of each are counted.
//! That is three instructions a level for 512 pixels, whatever the image.

use std::arch::x86_64::*;

use super::LEVELS;

/// Pixels in a vector of bits.
const BATCH: usize = 512;
/// Batches whose halves are kept at a time, which the first cache has to hold.
const BATCHES: usize = 8;

/// For each upper or lower half of a level, the pixels that have it, batch by batch.
type Halves = [[__m512i; BATCHES]; 16];

/// Counts the levels of as many whole batches as there are, and returns the rest.
#[target_feature(enable = "avx512f,avx512bw,avx512vbmi,avx512vpopcntdq,gfni")]
pub fn add<'a>(counts: &mut [u64; LEVELS], levels: &'a [u8]) -> &'a [u8] {
    let (batches, rest) = levels.as_chunks::<BATCH>();
    let mut next = levels.as_ptr();
    let zero = _mm512_setzero_si512();
    let (mut lower, mut upper): (Halves, Halves) = ([[zero; BATCHES]; 16], [[zero; BATCHES]; 16]);
    for block in batches.chunks(BATCHES) {
        next = next.wrapping_add(block.len() * BATCH);
        for (i, batch) in block.iter().enumerate() {
            let [p0, p1, p2, p3, p4, p5, p6, p7] = planes(batch);
            for (half, bits) in lower.iter_mut().zip(combinations([p0, p1, p2, p3])) {
                half[i] = bits;
            }
            for (half, bits) in upper.iter_mut().zip(combinations([p4, p5, p6, p7])) {
                half[i] = bits;
            }
        }
        let (sixteens, _) = counts.as_chunks_mut();
        for (number, (upper, counts)) in upper.iter().zip(sixteens).enumerate() {
            // The next block comes from memory while this one is counted: on its own it would not be asked for so early.
            for line in 4 * number..4 * (number + 1) {
                _mm_prefetch::<_MM_HINT_T0>(next.wrapping_add(64 * line).cast());
            }
            let upper = &upper[..block.len()];
            // Few images use all levels in all their parts.
            let any = upper.iter().fold(zero, |any, &bits| _mm512_or_si512(any, bits));
            if _mm512_test_epi64_mask(any, any) != 0 {
                count(upper, &lower, counts);
            }
        }
    }
    rest
}

/// Counts the pixels of one upper half by their lower ones.
#[inline]
#[target_feature(enable = "avx512f,avx512vpopcntdq")]
fn count(upper: &[__m512i], lower: &Halves, counts: &mut [u64; 16]) {
    let mut sums = [_mm512_setzero_si512(); 16];
    for (i, &upper) in upper.iter().enumerate() {
        for (sum, lower) in sums.iter_mut().zip(lower) {
            *sum = _mm512_add_epi64(*sum, _mm512_popcnt_epi64(_mm512_and_si512(upper, lower[i])));
        }
    }
    let (eights, _) = counts.as_chunks_mut::<8>();
    let (parts, _) = sums.as_chunks::<8>();
    for (counts, parts) in eights.iter_mut().zip(parts) {
        let columns = transposed(parts);
        // SAFETY: 64 readable bytes; the instruction needs no alignment.
        let before = unsafe { _mm512_loadu_si512(counts.as_ptr().cast()) };
        let after = columns.iter().fold(before, |sum, &column| _mm512_add_epi64(sum, column));
        // SAFETY: 64 writable bytes; the instruction needs no alignment.
        unsafe { _mm512_storeu_si512(counts.as_mut_ptr().cast(), after) };
    }
}

/// The bits of 512 levels, lowest first. The pixels are in some order, the same one in all planes.
#[inline]
#[target_feature(enable = "avx512f,avx512vbmi,gfni")]
fn planes(batch: &[u8; BATCH]) -> [__m512i; 8] {
    // Byte 8q + p to byte 8p + q.
    let places: [u8; 64] = std::array::from_fn(|i| (8 * (i % 8) + i / 8) as u8);
    // SAFETY: 64 readable bytes; the instruction needs no alignment.
    let places = unsafe { _mm512_loadu_si512(places.as_ptr().cast()) };
    // Taken for 8 x 8 matrices of bits, the pixels are multiplied by this one from the left: transposed.
    let identity = _mm512_set1_epi64(0x8040_2010_0804_0201_u64 as i64);
    let (parts, _) = batch.as_chunks::<64>();
    let mut planes = [identity; 8];
    for (plane, part) in planes.iter_mut().zip(parts) {
        // SAFETY: 64 readable bytes; the instruction needs no alignment.
        let pixels = unsafe { _mm512_loadu_si512(part.as_ptr().cast()) };
        let bits = _mm512_gf2p8affine_epi64_epi8::<0>(identity, pixels);
        *plane = _mm512_permutexvar_epi8(places, bits);
    }
    transposed(&planes)
}

/// By value of the four bits: which pixels have it.
#[inline]
#[target_feature(enable = "avx512f")]
fn combinations(p: [__m512i; 4]) -> [__m512i; 16] {
    let four = |a, b| {
        let neither = _mm512_ternarylogic_epi64::<0x03>(a, b, b);
        [neither, _mm512_andnot_si512(b, a), _mm512_andnot_si512(a, b), _mm512_and_si512(a, b)]
    };
    let (low, high) = (four(p[0], p[1]), four(p[2], p[3]));
    let mut all = [p[0]; 16];
    for (i, bits) in all.iter_mut().enumerate() {
        *bits = _mm512_and_si512(low[i % 4], high[i / 4]);
    }
    all
}

/// Rows of eight words to columns.
#[inline]
#[target_feature(enable = "avx512f")]
fn transposed(v: &[__m512i; 8]) -> [__m512i; 8] {
    let pairs = |i: usize| [_mm512_unpacklo_epi64(v[i], v[i + 1]), _mm512_unpackhi_epi64(v[i], v[i + 1])];
    let pairs = [pairs(0), pairs(2), pairs(4), pairs(6)];
    let columns = |odd: usize| {
        let [a, b, c, d] = pairs.map(|pair| pair[odd]);
        let (even, odd) = (_mm512_shuffle_i64x2::<0x88>(a, b), _mm512_shuffle_i64x2::<0xdd>(a, b));
        let (even_too, odd_too) = (_mm512_shuffle_i64x2::<0x88>(c, d), _mm512_shuffle_i64x2::<0xdd>(c, d));
        [
            _mm512_shuffle_i64x2::<0x88>(even, even_too),
            _mm512_shuffle_i64x2::<0x88>(odd, odd_too),
            _mm512_shuffle_i64x2::<0xdd>(even, even_too),
            _mm512_shuffle_i64x2::<0xdd>(odd, odd_too),
        ]
    };
    let ([c0, c2, c4, c6], [c1, c3, c5, c7]) = (columns(0), columns(1));
    [c0, c1, c2, c3, c4, c5, c6, c7]
}
