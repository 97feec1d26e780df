//! The micro-kernel of vector registers: a word of a row, in all lanes, times a word of each of sixteen columns.

use super::{Microkernel, PackedB, Prefetcher, Tile};
use crate::linalg::quantize::Quantized;
use crate::simd::{DotAccumulate, I32x16, Isa, Lane16, Word};

impl<Q: Quantized, I: Isa> Microkernel<Q> for I
where
    I::I32: DotAccumulate<Q::Word>,
{
    const MR: usize = I::I32::MR;
    const NR: usize = I::I32::NR;
    const KR: usize = 1;

    #[inline(always)]
    unsafe fn tile(
        rows: &[Q::Word],
        b: &PackedB,
        tile: Tile,
        scores: &mut [Lane16<i32>],
        prefetcher: &mut Prefetcher<'_>,
    ) {
        // SAFETY: the caller promises that the CPU has the instructions of `I`.
        unsafe {
            match tile.groups.len() {
                3 => tile_of::<I::I32, Q, 6, 3>(rows, b, tile, scores, prefetcher),
                2 => tile_of::<I::I32, Q, 6, 2>(rows, b, tile, scores, prefetcher),
                _ if I::I32::MR == 6 => tile_of::<I::I32, Q, 6, 1>(rows, b, tile, scores, prefetcher),
                _ => tile_of::<I::I32, Q, 4, 1>(rows, b, tile, scores, prefetcher),
            }
        }
    }
}

/// `R` rows at a time with the `G` groups of `tile`.
///
/// # Safety
/// The CPU must have the instructions of `V`: see [`crate::simd`].
#[inline(always)]
unsafe fn tile_of<V: DotAccumulate<Q::Word>, Q: Quantized, const R: usize, const G: usize>(
    rows: &[Q::Word],
    b: &PackedB,
    tile: Tile,
    scores: &mut [Lane16<i32>],
    prefetcher: &mut Prefetcher<'_>,
) {
    let Tile { groups, place, panel_groups, steps } = tile;
    let (first, count) = (groups.start, steps.len());
    let columns: [&[Lane16<i32>]; G] = std::array::from_fn(|g| &b.group(first + g)[steps.clone()][..count]);
    for (rows, scores) in rows.chunks(R * b.steps).zip(scores.chunks_mut(R * panel_groups)) {
        // A last tile of fewer rows repeats one of them: its sums are dropped.
        let last = scores.len() / panel_groups - 1;
        let rows: [&[Q::Word]; R] = std::array::from_fn(|r| &rows[r.min(last) * b.steps..][steps.clone()][..count]);
        // SAFETY: the caller promises that the CPU has these instructions.
        unsafe {
            let mut sums = [[V::splat(0); G]; R];
            for r in 0..R {
                for g in 0..G {
                    let so_far = &scores[r.min(last) * panel_groups + place + g];
                    sums[r][g] = V::load(if steps.start == 0 { &b.start[first + g] } else { so_far });
                }
            }
            for s in 0..count {
                if s % Prefetcher::STEPS == 0 {
                    prefetcher.fetch();
                }
                let mut y = [V::splat(0); G];
                for g in 0..G {
                    y[g] = V::load(&columns[g][s]);
                }
                for r in 0..R {
                    let x = V::splat(rows[r][s].bits());
                    for g in 0..G {
                        sums[r][g] = sums[r][g].add_dot(x, y[g]);
                    }
                }
            }
            for (r, scores) in scores.chunks_exact_mut(panel_groups).enumerate() {
                let scores = &mut scores[place..place + G];
                for g in 0..G {
                    sums[r][g].store(&mut scores[g]);
                }
            }
        }
    }
}
