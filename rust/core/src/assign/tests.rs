//! Every kernel, block size and thread count against the definition, bit for bit.

use std::borrow::Cow;

use half::{bf16, f16};
use proptest::prelude::*;

use super::*;
use crate::linalg::dot::{LANES, dot, reduce_lanes};
use crate::linalg::quantized_rows::QuantizedRows;
use crate::rows::{Block, Element};
use crate::runtime::cpu::Level;
use crate::runtime::rng::uniform;

/// The definition of [`crate::linalg::dot`], one product after the other.
fn dot_oracle(x: &[f64], y: &[f32]) -> f64 {
    let mut s = [0.0; LANES];
    for i in 0..x.len().next_multiple_of(LANES) {
        let product = if i < x.len() { x[i] * f64::from(y[i]) } else { 0.0 };
        s[i % LANES] += product;
    }
    ((s[0] + s[4]) + (s[2] + s[6])) + ((s[1] + s[5]) + (s[3] + s[7]))
}

/// The definition of label and similarity for a row that needs no rescaling.
fn assign_oracle(row: &[f64], centroids: &[f32], normalize: bool) -> (i32, f32) {
    let norm = {
        let mut s = [0.0; LANES];
        row.iter().enumerate().for_each(|(i, v)| s[i % LANES] += v * v);
        reduce_lanes(s).sqrt()
    };
    if !norm.is_finite() || norm == 0.0 {
        return (NO_LABEL, f32::NAN);
    }
    let mut best = (0, f64::NEG_INFINITY);
    for (k, c) in centroids.chunks(row.len()).enumerate() {
        let d = dot_oracle(row, c);
        if d > best.1 {
            best = (k as i32, d);
        }
    }
    (best.0, (if normalize { best.1 / norm } else { best.1 }) as f32)
}

/// All that this CPU has; Neon's kernels are portable Rust.
fn levels() -> impl Iterator<Item = Level> {
    Level::present().chain([Level::Neon])
}

/// Values that hurt: few distinct ones make ties, extreme ones leave the normal range of float32.
fn hostile() -> impl Strategy<Value = f32> {
    prop_oneof![
        8 => (-3i8..=3).prop_map(f32::from),
        8 => -1f32..1.0,
        1 => Just(f32::MAX),
        1 => Just(f32::MIN_POSITIVE),
        1 => (1u32..0x007f_ffff).prop_map(f32::from_bits),
        1 => Just(-0.0),
    ]
}

/// (D, rows, centroids), with some centroids repeated so that ties occur.
fn matrices() -> impl Strategy<Value = (usize, Vec<f32>, Vec<f32>)> {
    (1usize..=70, 1usize..=13, 1usize..=14, 0usize..=2).prop_flat_map(|(dim, n, k, copies)| {
        let rows = proptest::collection::vec(hostile(), n * dim);
        let centroids = proptest::collection::vec(hostile(), k * dim);
        (Just(dim), rows, centroids).prop_map(move |(dim, rows, mut centroids)| {
            for copy in 0..copies {
                let first = (copy * 5 % k) * dim;
                centroids.extend_from_within(first..first + dim);
            }
            (dim, rows, centroids)
        })
    })
}

/// Best centroids of all rows by the kernel of one level, as bits.
fn by_kernel(level: Level, exact: bool, rows: &[f64], centroids: &[f32], dim: usize) -> Vec<(u32, u64)> {
    let columns = ExactColumns::new(level, centroids, dim);
    let (mut tiles, mut best) = (Vec::new(), Vec::new());
    columns.pack_rows(rows, &mut tiles);
    columns.argmax(&tiles, rows.len() / dim, exact, &mut best);
    best.iter().map(|b| (b.label, b.dot.to_bits())).collect()
}

fn by_oracle(rows: &[f64], centroids: &[f32], dim: usize) -> Vec<(u32, u64)> {
    let one = |row: &[f64]| {
        let mut best = (0, f64::NEG_INFINITY);
        for (k, c) in centroids.chunks(dim).enumerate() {
            let d = dot_oracle(row, c);
            if d > best.1 {
                best = (k as u32, d);
            }
        }
        (best.0, best.1.to_bits())
    };
    rows.chunks(dim).map(one).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..Default::default() })]

    #[test]
    fn kernels_give_the_bits_of_the_oracle((dim, rows, centroids) in matrices()) {
        let wide: Vec<f64> = rows.iter().map(|&v| f64::from(v)).collect();
        let expected = by_oracle(&wide, &centroids, dim);
        for level in levels() {
            for exact in [true, false] {
                let got = by_kernel(level, exact, &wide, &centroids, dim);
                prop_assert_eq!(&got, &expected, "{:?}, exact products: {}", level, exact);
            }
        }
    }

    #[test]
    fn dots_of_unpacked_rows_have_the_same_bits((dim, rows, centroids) in matrices()) {
        let expected: Vec<u64> = rows
            .chunks(dim)
            .map(|row| row.iter().map(|&v| f64::from(v)).collect::<Vec<f64>>())
            .flat_map(|row| centroids.chunks(dim).map(|c| dot_oracle(&row, c).to_bits()).collect::<Vec<u64>>())
            .collect();
        for level in levels() {
            let mut dots = Vec::new();
            ExactColumns::new(level, &centroids, dim).dots(&rows, &mut dots);
            prop_assert_eq!(&dots.iter().map(|d| d.to_bits()).collect::<Vec<u64>>(), &expected, "{:?}", level);
        }
    }

    #[test]
    fn float64_rows_are_never_fused(
        (dim, rows, centroids) in matrices(),
        noise in proptest::collection::vec(-1f64..1.0, 13 * 70),
    ) {
        let wide: Vec<f64> = rows.iter().zip(&noise).map(|(&v, e)| f64::from(v) * (1.0 + e)).collect();
        let expected = by_oracle(&wide, &centroids, dim);
        for level in levels() {
            prop_assert_eq!(&by_kernel(level, false, &wide, &centroids, dim), &expected, "{:?}", level);
        }
    }

    #[test]
    fn assign_is_the_definition_at_any_block_size_and_thread_count(
        (dim, rows, centroids) in matrices(),
        normalize: bool,
        block_rows in 1usize..20,
    ) {
        // Made unit in advance: the oracle takes centroids as they are.
        let Ok(centroids) = Centroids::new(&Rows::from_slice(&centroids, dim).unwrap()) else { return Ok(()) };
        let source = Rows::from_slice(&rows, dim).unwrap();
        let wide: Vec<f64> = rows.iter().map(|&v| f64::from(v)).collect();
        let expected: Vec<(i32, u32)> = wide
            .chunks(dim)
            .map(|row| assign_oracle(row, centroids.vectors(), normalize))
            .map(|(label, similarity)| (label, similarity.to_bits()))
            .collect();
        for (level, threads) in levels().flat_map(|level| [(level, 1), (level, 3)]) {
            let options = Options { normalize, block_rows: Some(block_rows), level: Some(level) };
            let got = assign(&source, &centroids, options, OnInvalid::Exclude, &Par::new(Some(threads))).unwrap();
            let got: Vec<_> = got.labels.iter().zip(&got.similarity).map(|(&l, s)| (l, s.to_bits())).collect();
            prop_assert_eq!(&got, &expected, "{:?}", level);
        }
    }

    #[test]
    fn scaling_float64_rows_by_powers_of_two_changes_nothing(
        values in proptest::collection::vec(-1f64..1.0, 12),
        exponent in -1000i32..1000,
    ) {
        prop_assume!(values.iter().all(|v| v.abs() > 1e-3));
        let centroids = Centroids::new(&Rows::from_slice(&[1f32, 2.0, 3.0, -1.0, 0.5, 0.0], 3).unwrap()).unwrap();
        let scaled: Vec<f64> = values.iter().map(|&v| libm::scalbn(v, exponent)).collect();
        let run = |values: &[f64]| {
            let rows = Rows::from_slice(values, 3).unwrap();
            assign(&rows, &centroids, Options::default(), OnInvalid::Raise, &Par::new(Some(1))).unwrap()
        };
        prop_assert_eq!(run(&values), run(&scaled));
    }
}

/// Labels and similarities as bits, by the definition and by every level: all must be equal.
fn check_all_levels(rows: &[f32], centroids: &[f32], dim: usize) {
    let centroids = Centroids::of_units(centroids.to_vec(), dim);
    let wide: Vec<f64> = rows.iter().map(|&v| f64::from(v)).collect();
    let expected: Vec<(i32, u32)> = wide
        .chunks(dim)
        .map(|row| assign_oracle(row, centroids.vectors(), true))
        .map(|(label, similarity)| (label, similarity.to_bits()))
        .collect();
    let source = Rows::from_slice(rows, dim).unwrap();
    for level in levels() {
        let options = Options { level: Some(level), ..Options::default() };
        let got = assign(&source, &centroids, options, OnInvalid::Exclude, &Par::new(Some(1))).unwrap();
        let got: Vec<_> = got.labels.iter().zip(&got.similarity).map(|(&l, s)| (l, s.to_bits())).collect();
        assert!(got == expected, "{level:?}");
    }
}

/// Numbers between -1 and 1.
fn noise(n: usize, seed: u64) -> Vec<f32> {
    (0..n as u64).map(|i| (2.0 * uniform(seed, i) - 1.0) as f32).collect()
}

fn unit(mut vectors: Vec<f32>, dim: usize) -> Vec<f32> {
    for vector in vectors.chunks_mut(dim) {
        let norm = vector.iter().map(|v| v * v).sum::<f32>().sqrt();
        vector.iter_mut().for_each(|v| *v /= norm);
    }
    vectors
}

#[test]
fn centroids_one_ulp_apart_keep_their_order() {
    for dim in [1, 7, 64, 333, 1024] {
        let first = unit(noise(dim, 1), dim);
        // Each next one differs from the first in the last bit of one number, upwards or downwards.
        let mut centroids = Vec::new();
        for k in 0..40 {
            let mut centroid = first.clone();
            let i = k * 7 % dim;
            centroid[i] = f32::from_bits(centroid[i].to_bits().wrapping_add_signed([0, 1, -1][k % 3]));
            centroids.extend(centroid);
        }
        let mut rows = first.clone();
        rows.extend(noise(dim * 9, 2));
        rows.extend(rows[..dim].iter().map(|v| -v).collect::<Vec<_>>());
        check_all_levels(&rows, &centroids, dim);
    }
}

#[test]
fn equal_centroids_go_to_the_first() {
    let dim = 100;
    let one = unit(noise(dim, 1), dim);
    let centroids: Vec<f32> = one.iter().copied().cycle().take(300 * dim).collect();
    check_all_levels(&noise(dim * 50, 3), &centroids, dim);
    let source = noise(dim * 50, 3);
    let rows = Rows::from_slice(&source, dim).unwrap();
    let got =
        assign(&rows, &Centroids::of_units(centroids, dim), Options::default(), OnInvalid::Raise, &Par::new(None));
    assert!(got.unwrap().labels.iter().all(|&label| label == 0));
}

#[test]
fn rows_of_any_magnitude_and_those_without_direction_stand_side_by_side() {
    let dim = 130;
    let centroids = unit(noise(23 * dim, 5), dim);
    let scales = [1.0, 1e-38, 1e-45, 3e38, 1e-20, 1e20, f32::NAN, f32::INFINITY, 0.0, -1.0, 1e-12, 1e12, 1.1e12];
    let rows: Vec<f32> = noise(scales.len() * 3 * dim, 6)
        .chunks(dim)
        .zip(scales.iter().cycle())
        .flat_map(|(row, scale)| row.iter().map(|v| v * scale).collect::<Vec<f32>>())
        .collect();
    check_all_levels(&rows, &centroids, dim);
    // Magnitudes far apart within a row: most digits are zero.
    let rows: Vec<f32> =
        noise(40 * dim, 7).iter().enumerate().map(|(i, v)| v * 10f32.powi((i % 70) as i32 - 35)).collect();
    check_all_levels(&rows, &centroids, dim);
}

#[test]
fn one_centroid_and_ten_thousand() {
    for (k, dim, n) in [(1, 1, 5), (1, 1024, 5), (2, 3, 40), (10_000, 9, 40), (10_000, 64, 15), (1_025, 40, 30)] {
        check_all_levels(&noise(n * dim, 8), &unit(noise(k * dim, 9), dim), dim);
    }
}

#[test]
fn dimensions_that_are_a_multiple_of_nothing() {
    for dim in [1, 2, 3, 5, 15, 17, 31, 33, 63, 65, 127, 129, 255, 257, 511, 1023, 1025] {
        check_all_levels(&noise(13 * dim, 10), &unit(noise(50 * dim, 11), dim), dim);
    }
}

#[test]
fn rows_close_together_far_from_the_origin_need_finer_digits() {
    // Embeddings lie in a narrow cone: what tells them apart is small beside what they share.
    let (dim, n, k) = (200, 300, 64);
    let shared = noise(dim, 12);
    let near = |count: usize, seed: u64| -> Vec<f32> {
        noise(count * dim, seed).iter().zip(shared.iter().cycle()).map(|(v, s)| s + v * 1e-3).collect()
    };
    check_all_levels(&near(n, 13), &unit(near(k, 14), dim), dim);
}

fn one<T: Element>(values: &[T], dim: usize) -> Assigned {
    let centroids = Centroids::new(&Rows::from_slice(&[1f32, 0.0, 0.0, 1.0], dim).unwrap()).unwrap();
    let rows = Rows::from_slice(values, dim).unwrap();
    assign(&rows, &centroids, Options::default(), OnInvalid::Exclude, &Par::new(Some(1))).unwrap()
}

#[test]
fn dtypes_of_the_same_values_give_the_same_bits() {
    let values = [0.5f32, 2.0, 1.0, 1.0, -3.0, -0.25, 0.0, 0.0];
    let expected = one(&values, 2);
    assert_eq!(expected.labels, [1, 0, 1, NO_LABEL]);
    let bits = |a: &Assigned| a.similarity.iter().map(|s| s.to_bits()).collect::<Vec<_>>();
    let check = |got: Assigned| {
        assert_eq!(got.labels, expected.labels);
        assert_eq!(bits(&got), bits(&expected));
    };
    check(one(&values.map(f16::from_f32), 2));
    check(one(&values.map(bf16::from_f32), 2));
    check(one(&values.map(f64::from), 2));
}

#[test]
fn rows_of_float64_beside_float32_keep_their_bits() {
    let (narrow, wide) = ([1f32, 0.5], [0.1f64, 0.3]);
    let rows = Rows::new(vec![Block::from_slice(&narrow, 2).unwrap(), Block::from_slice(&wide, 2).unwrap()]).unwrap();
    let centroids = Centroids::new(&Rows::from_slice(&[0.6f32, 0.8], 2).unwrap()).unwrap();
    let got = assign(&rows, &centroids, Options::default(), OnInvalid::Raise, &Par::new(Some(1))).unwrap();
    let expected =
        [assign_oracle(&[1.0, 0.5], centroids.vectors(), true), assign_oracle(&wide, centroids.vectors(), true)];
    assert_eq!(got.similarity, expected.map(|(_, s)| s));
}

#[test]
fn the_first_invalid_row_is_named() {
    let rows = Rows::from_slice(&[1f32, 0.0, 0.0, 0.0, f32::NAN, 1.0], 2).unwrap();
    let centroids = Centroids::new(&Rows::from_slice(&[1f32, 0.0], 2).unwrap()).unwrap();
    let run = |on_invalid| assign(&rows, &centroids, Options::default(), on_invalid, &Par::new(Some(2)));
    assert_eq!(run(OnInvalid::Raise).unwrap_err().to_string(), "row 1 is all zero");
    assert_eq!(run(OnInvalid::Exclude).unwrap().labels, [0, NO_LABEL, NO_LABEL]);
}

#[test]
fn dimensions_that_differ_are_both_named() {
    let rows = Rows::from_slice(&[1f32; 6], 3).unwrap();
    let centroids = Centroids::new(&Rows::from_slice(&[1f32; 4], 2).unwrap()).unwrap();
    let error = assign(&rows, &centroids, Options::default(), OnInvalid::Raise, &Par::new(Some(1))).unwrap_err();
    assert!(matches!(&error, Error::Shape(m) if m.contains("have 3") && m.contains("have 2")), "{error}");
}

#[test]
fn centroids_become_unit_vectors_or_errors() {
    let make = |values: &[f32]| Centroids::new(&Rows::from_slice(values, 2).unwrap());
    let fixed = make(&[3.0, 4.0, 0.6, 0.8]).unwrap();
    assert_eq!((fixed.normalized(), fixed.vectors()), (1, &[0.6f32, 0.8, 0.6, 0.8][..]));
    assert_eq!(make(&[0.6, 0.8, 0.0, 0.0]).unwrap_err().to_string(), "centroid 1 is all zero");
    assert_eq!(make(&[f32::NAN, 0.8]).unwrap_err().to_string(), "centroid 0 holds NaN or infinity");
}

#[test]
fn the_dot_product_is_that_of_the_oracle() {
    for n in 0..40 {
        let x: Vec<f64> = (0..n).map(|i| (i as f64 * 0.37).sin()).collect();
        let y: Vec<f32> = (0..n).map(|i| (i as f32 * 0.73).cos()).collect();
        let wide: Vec<f64> = y.iter().map(|&v| f64::from(v)).collect();
        assert_eq!(dot(&x, &wide).to_bits(), dot_oracle(&x, &y).to_bits());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..Default::default() })]

    #[test]
    fn rows_in_memory_have_the_labels_of_an_assignment_at_every_level(
        n in 1usize..200, dim in 1usize..90, k in 1usize..40, copies in 1usize..4, seed: u64,
    ) {
        let number = |seed: u64| move |i: usize| (uniform(seed, i as u64) - 0.5) as f32;
        let rows: Vec<f32> = (0..n * dim).map(number(seed)).collect();
        // Copies are ties, which go to the lowest label.
        let vectors: Vec<f32> = (0..k * dim).map(number(!seed)).collect::<Vec<f32>>().repeat(copies);
        let par = Par::new(Some(2));
        let (rows, centroids) = (Rows::from_slice(&rows, dim).unwrap(), Rows::from_slice(&vectors, dim).unwrap());
        let Ok(centroids) = Centroids::new(&centroids) else { return Ok(()) };
        let scalar = Options { level: Some(Level::Scalar), ..Options::default() };
        let expected = assign(&rows, &centroids, scalar, OnInvalid::Exclude, &par).unwrap().labels;
        for level in levels() {
            let rows = QuantizedRows::new(Cow::Borrowed(rows.singles(0..n).unwrap()), dim, level, &par).unwrap();
            if let Some(rows) = rows {
                let labels = rows.nearest(centroids.vectors(), &par).unwrap();
                prop_assert!(labels.iter().zip(&expected).all(|(&label, &want)| label as i32 == want), "{:?}", level);
            }
        }
    }
}
