//! Every instruction set against the portable kernels bit for bit, and the bounds against float64.

use proptest::prelude::*;

use super::nearest::{NearestFilter, NearestScratch, Scores, score_all};
use super::packed::{PackedColumns, centered};
use super::quantize::{Int8, Int16, Quantized, QuantizedBlock, RowError, RowRange, quantize_rows};
use crate::runtime::cpu::Level;
use crate::simd::{DotAccumulate, Isa, LANES, Scalar};

const SCALES: [f32; 5] = [1.0, 1e-9, 1e9, 3e-4, 77.0];

/// (D, rows, centroids) of mixed sizes; some numbers are zero, some dwarf the others.
fn matrices() -> impl Strategy<Value = (usize, Vec<f32>, Vec<f32>)> {
    let number = || prop_oneof![6 => -1f32..1.0, 1 => Just(0.0), 1 => -30f32..30.0, 1 => -1e-6f32..1e-6];
    (1usize..=140, 1usize..=14, 1usize..=70, 0usize..5).prop_flat_map(move |(dim, n, k, scale)| {
        let rows = proptest::collection::vec(number().prop_map(move |v| v * SCALES[scale]), n * dim);
        (Just(dim), rows, proptest::collection::vec(number(), k * dim))
    })
}

/// All scores of numbers of `Q`, and the errors of the rows.
fn scores<I: Isa, Q: Quantized>(rows: &[f32], columns: &[f32], dim: usize) -> (Vec<Option<RowError>>, Vec<i32>)
where
    I::I32: DotAccumulate<Q::Word>,
{
    let packed = pack::<I, Q>(columns, dim);
    let (mut quantized, mut scores) = (QuantizedBlock::<Q>::default(), Scores::default());
    // SAFETY: tests take instruction sets that are present.
    unsafe {
        quantize_rows::<I, Q>(rows, dim, &mut quantized);
        score_all::<I, I, Q>(&[], &quantized, &packed, &mut scores);
    }
    let errors = quantized.ranges.iter().zip(&quantized.errors).map(|(range, errors)| range.map(|_| *errors)).collect();
    (errors, scores.scores.iter().flat_map(|group| group.0).collect())
}

fn pack<I: Isa, Q: Quantized>(columns: &[f32], dim: usize) -> PackedColumns
where
    I::I32: DotAccumulate<Q::Word>,
{
    PackedColumns::new::<I, Q>(centered::<Q>(columns, dim).map(Some), columns.len() / dim, dim)
}

/// What a score of `Q` says about `x.(c - mean)` in units of the row's scale, and how far it may be off.
fn judged<Q: Quantized>(rows: &[f32], centroids: &[f32], dim: usize) -> Vec<Option<Vec<(f64, f64)>>>
where
    [i32; LANES]: DotAccumulate<Q::Word>,
{
    let packed = pack::<Scalar, Q>(centroids, dim);
    let (errors, scores) = scores::<Scalar, Q>(rows, centroids, dim);
    let of_row = |(errors, scores): (Option<RowError>, &[i32])| {
        errors.map(|errors| {
            let of_centroid = |k: usize| {
                let bounds = &packed.bounds[k / LANES];
                let (scale, norm, error) =
                    (bounds.scale.0[k % LANES], bounds.norm.0[k % LANES], bounds.error.0[k % LANES]);
                (
                    f64::from(scores[k]) * f64::from(scale),
                    f64::from(errors.error) * f64::from(norm) + f64::from(errors.norm) * f64::from(error),
                )
            };
            (0..packed.len).map(of_centroid).collect()
        })
    };
    errors.into_iter().zip(scores.chunks(packed.b.groups() * LANES)).map(of_row).collect()
}

/// The bounds hold for scores that are compared, in exact arithmetic or nearly so.
fn check_bounds<Q: Quantized>(rows: &[f32], centroids: &[f32], dim: usize) -> Result<(), TestCaseError>
where
    [i32; LANES]: DotAccumulate<Q::Word>,
{
    for (row, judged) in rows.chunks(dim).zip(judged::<Q>(rows, centroids, dim)) {
        let Some(judged) = judged else { continue };
        let largest = row.iter().fold(0f32, |a, v| a.max(v.abs()));
        let norm = row.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>().sqrt();
        let scale = f64::from((largest / Q::MAX).max(norm as f32 / Q::max_norm(dim)));
        let dot = |c: &[f32]| row.iter().zip(c).map(|(&x, &c)| f64::from(x) * f64::from(c)).sum::<f64>() / scale;
        let dots: Vec<f64> = centroids.chunks(dim).map(dot).collect();
        for j in 0..dots.len() {
            for k in 0..j {
                let ((a, a_off), (b, b_off)) = (judged[j], judged[k]);
                let off = ((dots[j] - dots[k]) - (a - b)).abs();
                // The scale here may differ from the row's by a few roundings.
                let slack = 1e-5 * (dots[j].abs() + dots[k].abs());
                prop_assert!(off <= a_off + b_off + slack, "{} > {} + {}", off, a_off, b_off);
            }
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..Default::default() })]

    #[test]
    fn bounds_hold((dim, rows, centroids) in matrices()) {
        check_bounds::<Int8>(&rows, &centroids, dim)?;
        check_bounds::<Int16>(&rows, &centroids, dim)?;
    }

    #[cfg(target_arch = "x86_64")]
    #[test]
    fn instruction_sets_give_the_numbers_and_sums_of_the_portable_kernel((dim, rows, centroids) in matrices()) {
        use crate::simd::{Avx2, Avx512, Avx512Vnni, AvxVnni};

        let eight = scores::<Scalar, Int8>(&rows, &centroids, dim);
        let sixteen = scores::<Scalar, Int16>(&rows, &centroids, dim);
        // Compiled for the test's own floor, the intrinsics are calls, but the same.
        if Level::present().any(|level| level.includes(Level::Avx2)) {
            prop_assert_eq!(&scores::<Avx2, Int16>(&rows, &centroids, dim), &sixteen);
        }
        if Level::present().any(|level| level == Level::AvxVnni) {
            prop_assert_eq!(&scores::<AvxVnni, Int16>(&rows, &centroids, dim), &sixteen);
            prop_assert_eq!(&scores::<AvxVnni, Int8>(&rows, &centroids, dim), &eight);
        }
        if Level::present().any(|level| level.includes(Level::Avx512)) {
            prop_assert_eq!(&scores::<Avx512, Int16>(&rows, &centroids, dim), &sixteen);
        }
        if Level::present().any(|level| level.includes(Level::Avx512Vnni)) {
            prop_assert_eq!(&scores::<Avx512Vnni, Int16>(&rows, &centroids, dim), &sixteen);
            prop_assert_eq!(&scores::<Avx512Vnni, Int8>(&rows, &centroids, dim), &eight);
        }
    }
}

#[test]
fn sums_are_those_of_whole_numbers() {
    // Whole numbers by hand: the largest number of a row is 127 of its scale, the others are whole.
    let row: Vec<f32> = [127.0, -3.0, 0.0, 5.0, 127.0, 1.0, -127.0].into();
    let centroids: Vec<f32> =
        [[127.0, 2.0, 0.0, -1.0, 4.0, 0.0, 9.0], [-127.0, -2.0, 0.0, 1.0, -4.0, 0.0, -9.0]].concat();
    let (errors, scores) = scores::<Scalar, Int8>(&row, &centroids, 7);
    let expected = 127 * 127 - 6 - 5 + 127 * 4 - 127 * 9;
    assert_eq!(scores[..2], [expected, -expected], "the mean of the two is zero");
    let errors = errors[0].unwrap();
    let norm = (127f32 * 127.0 * 3.0 + 9.0 + 25.0 + 1.0).sqrt();
    assert!(errors.norm >= norm && errors.norm < norm * 1.0001, "{errors:?}");
    assert!(errors.error < norm * 1e-6, "whole numbers have no error but the bound of its rounding: {errors:?}");
}

fn range_of(row: &[f32]) -> Option<RowRange> {
    // SAFETY: arrays ask for nothing.
    unsafe { RowRange::of::<[f32; LANES]>(row) }
}

#[test]
fn rows_beyond_the_range_are_not_judged() {
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 1e-20, 1e20, 0.0] {
        let mut row = [bad.min(1e-20); 20];
        row[7] = bad;
        assert!(range_of(&row).is_none(), "{bad}");
    }
    assert!(range_of(&[1e-9; 20]).is_some());
}

#[test]
fn the_largest_dot_products_stay_in_32_bits() {
    for dim in [1, 2, 1024, 5000] {
        let ones = vec![1f32; dim];
        let both = [ones.clone(), ones.iter().map(|v| -v).collect()].concat();
        for (errors, scores) in [scores::<Scalar, Int8>(&ones, &both, dim), scores::<Scalar, Int16>(&ones, &both, dim)]
        {
            assert!(errors[0].is_some() && scores[0] > 0 && scores[1] == -scores[0], "{dim}: {:?}", &scores[..2]);
        }
    }
}

#[test]
fn eight_bits_give_way_to_sixteen_when_they_exclude_too_little() {
    let (dim, n, k) = (64, 60, 100);
    let number = |i: usize| crate::runtime::rng::uniform(1, i as u64) as f32 - 0.5;
    // The largest number of a row, where all centroids agree, leaves the others a value or two of eight bits.
    let rows: Vec<f32> = (0..n * dim).map(|i| if i % dim == 0 { 50.0 } else { number(i) }).collect();
    let centroids: Vec<f32> = (0..k * dim).map(|i| if i % dim == 0 { 1.0 } else { number(i + 7) }).collect();
    for level in Level::present().filter(|level| level.has_vnni()) {
        let filter = NearestFilter::new(level, &centroids, dim).unwrap();
        let mut scratch = NearestScratch::default();
        let first = filter.candidates(&rows, None, &[], &mut scratch).to_vec();
        assert!(scratch.needs_int16);
        let second = filter.candidates(&rows, None, &[], &mut scratch).to_vec();
        assert_eq!(first, second, "sixteen bits judge the same, alone or after eight");
        assert!(second.len() < 2 * n, "{}", second.len());
    }
}

#[test]
fn little_more_than_one_centroid_a_row_is_left_for_float64() {
    // Isotropic rows are the hardest: no centroid stands out.
    let (dim, n, k) = (512, 300, 200);
    let number = |seed: u64| {
        move |i: usize| (0..4).map(|j| crate::runtime::rng::uniform(seed, (4 * i + j) as u64) as f32 - 0.5).sum()
    };
    let rows: Vec<f32> = (0..n * dim).map(number(1)).collect();
    let centroids: Vec<f32> = (0..k * dim).map(number(2)).collect();
    for level in Level::present().chain([Level::Neon]) {
        let Some(filter) = NearestFilter::new(level, &centroids, dim) else { continue };
        let candidates = filter.candidates(&rows, None, &[], &mut NearestScratch::default()).len();
        assert!((n..n * 14 / 10).contains(&candidates), "{level:?}: {candidates} of {n} rows");
    }
}
