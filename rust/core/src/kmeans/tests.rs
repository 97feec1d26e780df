//! Properties of a fit. The Python tests compare it with a literal Lloyd.

use proptest::prelude::*;

use super::*;
use crate::runtime::rng::uniform;

fn gaussian_like(n: usize, dim: usize, seed: u64) -> Vec<f32> {
    (0..n * dim).map(|i| (uniform(seed, 2 * i as u64) - uniform(seed, 2 * i as u64 + 1)) as f32).collect()
}

fn fit_slice(values: &[f32], dim: usize, options: &Options, threads: usize) -> Result<Fit> {
    fit(&Rows::from_slice(values, dim).unwrap(), options, OnInvalid::Exclude, &Par::new(Some(threads)))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..Default::default() })]
    #[test]
    fn the_objective_never_falls_and_centroids_are_unit(
        n in 1usize..80, dim in 1usize..20, k in 1usize..12, seed: u64, tol in prop_oneof![Just(0.0), Just(1e-4)],
    ) {
        let values = gaussian_like(n, dim, seed);
        let options = Options { seed, tol, ..Options::new(k) };
        match fit_slice(&values, dim, &options, 2) {
            Ok(fit) => {
                prop_assert!(fit.objective.is_sorted(), "{:?}", fit.objective);
                prop_assert_eq!(fit.centroids.len(), k);
                for c in fit.centroids.vectors().chunks(dim) {
                    let norm = c.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>().sqrt();
                    prop_assert!((norm - 1.0).abs() < 1e-6, "{}", norm);
                }
                let mut seeds = fit.seeds.clone();
                seeds.sort_unstable();
                seeds.dedup();
                prop_assert_eq!(seeds.len(), k);
            }
            // In one dimension there are two directions.
            Err(error) => prop_assert!(k > n || dim == 1, "{error}"),
        }
    }
}

#[test]
fn thread_counts_do_not_show() {
    let values = gaussian_like(700, 17, 5);
    let fits: Vec<Fit> = [1, 2, 7].map(|threads| fit_slice(&values, 17, &Options::new(9), threads).unwrap()).into();
    for fit in &fits[1..] {
        assert_eq!(fit.centroids, fits[0].centroids);
        assert_eq!(fit.objective, fits[0].objective);
        assert_eq!(fit.seeds, fits[0].seeds);
    }
}

#[test]
fn every_distinct_direction_becomes_a_centroid_when_k_asks_for_it() {
    // Copies, and copies of other lengths, are no further directions.
    let values = [1f32, 0.0, 2.0, 0.0, 0.0, 1.0, 0.0, 3.0, -1.0, 0.0, 1.0, 0.0];
    let fit = fit_slice(&values, 2, &Options::new(3), 1).unwrap();
    assert_eq!(fit.objective.last(), Some(&6.0));
    let error = fit_slice(&values, 2, &Options::new(4), 1).unwrap_err().to_string();
    assert!(error.contains("k is 4") && error.contains("only 3 of 6"), "{error}");
    let error = fit_slice(&values, 2, &Options::new(7), 1).unwrap_err().to_string();
    assert!(error.contains("k is 7") && error.contains("only 6 valid"), "{error}");
}

#[test]
fn vectors_that_cancel_out_restart_their_cluster() {
    // With one cluster, opposite rows sum to nothing whatever the start.
    let fit = fit_slice(&[1.0, 0.0, -1.0, 0.0], 2, &Options { tol: 0.0, ..Options::new(1) }, 1).unwrap();
    assert!(fit.objective.is_sorted());
    assert_eq!(fit.centroids.vectors()[0].abs(), 1.0);
}

#[test]
fn invalid_rows_are_left_out_or_raised() {
    let values = [0.0f32, 0.0, 1.0, 0.0, f32::NAN, 1.0, 0.0, 1.0, f32::INFINITY, 0.0];
    let fitted = fit_slice(&values, 2, &Options::new(2), 1).unwrap();
    assert_eq!(fitted.invalid, [0, 2, 4]);
    let mut seeds = fitted.seeds;
    seeds.sort_unstable();
    assert_eq!(seeds, [1, 3], "seeds are rows as given");
    let rows = Rows::from_slice(&values, 2).unwrap();
    let error = fit(&rows, &Options::new(2), OnInvalid::Raise, &Par::new(Some(1))).unwrap_err();
    assert!(matches!(error, Error::InvalidRow { row: 0, .. }));
    assert!(matches!(fit_slice(&[0f32, 0.0], 2, &Options::new(1), 1), Err(Error::Empty(_))));
}

#[test]
fn options_out_of_range_are_named() {
    let base = Options::new(1);
    let cases = [
        (Options { k: 0, ..base }, "k is 0"),
        (Options { n_init: 0, ..base }, "n_init is 0"),
        (Options { max_iter: 0, ..base }, "max_iter is 0"),
        (Options { tol: -1.0, ..base }, "tol is -1"),
        (Options { tol: f64::NAN, ..base }, "tol is NaN"),
    ];
    for (options, part) in cases {
        let error = fit_slice(&[1f32, 0.0], 2, &options, 1).unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
    }
}

#[test]
fn seeds_are_drawn_in_proportion_to_squared_distances() {
    // Few vectors tighten their bounds at every rejection, many hardly ever.
    for m in [5, 90] {
        let angle = |i: usize| 6.0 * uniform(3, i as u64).powi(3);
        let values: Vec<f32> = (0..m).flat_map(|i| [angle(i).cos() as f32, angle(i).sin() as f32]).collect();
        let rows = Rows::from_slice(&values, 2).unwrap();
        let units = UnitRows::load(&rows, OnInvalid::Raise, &Par::new(Some(1))).unwrap();
        let draws = 20_000;
        let mut counts = vec![[0u32; 3]; m];
        for seed in 0..draws {
            let seeds = init::plus_plus(&units, 3, seed, 0, &Par::new(Some(1))).unwrap();
            (0..3).for_each(|place| counts[seeds[place]][place] += 1);
        }
        let distance = |i: usize, j: usize| (2.0 - 2.0 * (angle(i) - angle(j)).cos()).max(0.0);
        // Of the second and the third, over all that may have come before.
        let mut expected = vec![[1.0 / m as f64, 0.0, 0.0]; m];
        for first in 0..m {
            let total: f64 = (0..m).map(|j| distance(first, j)).sum();
            for second in 0..m {
                let chance = distance(first, second) / total / m as f64;
                expected[second][1] += chance;
                let nearest = |j: usize| distance(first, j).min(distance(second, j));
                let total: f64 = (0..m).map(nearest).sum();
                (0..m).for_each(|third| {
                    expected[third][2] += if chance > 0.0 { chance * nearest(third) / total } else { 0.0 }
                });
            }
        }
        for (i, (counts, expected)) in counts.iter().zip(&expected).enumerate() {
            for (&count, &chance) in counts.iter().zip(expected) {
                let deviation = (chance * (1.0 - chance) / draws as f64).sqrt();
                let off = (f64::from(count) / draws as f64 - chance).abs();
                assert!(off <= 5.0 * deviation + 1e-9, "vector {i} of {m}: {count} draws, {chance} expected");
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..Default::default() })]
    #[test]
    fn sums_remember_nothing_of_vectors_that_left(n in 1usize..60, dim in 1usize..20, k in 1usize..8, seed: u64) {
        let values = gaussian_like(n, dim, seed);
        let rows = Rows::from_slice(&values, dim).unwrap();
        let par = Par::new(Some(2));
        let Ok(units) = UnitRows::load(&rows, OnInvalid::Raise, &par) else { return Ok(()) };
        let labels = |draw: u64| (0..n as u64).map(|i| (uniform(seed ^ draw, i) * k as f64) as u32).collect::<Vec<u32>>();
        let mut moved = sums::ClusterSums::new(&units, k);
        for draw in 1..5 {
            moved.update(labels(draw), &par).unwrap();
        }
        prop_assert!(!moved.update(labels(4), &par).unwrap(), "nothing moves to where it is");
        let mut fresh = sums::ClusterSums::new(&units, k);
        fresh.update(labels(4), &par).unwrap();
        prop_assert_eq!(moved.directions().collect::<Vec<_>>(), fresh.directions().collect::<Vec<_>>());
        // And they are sums of unit vectors.
        let mut expected = vec![vec![0f64; dim]; k];
        for (row, label) in values.chunks(dim).zip(labels(4)) {
            let norm = row.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>().sqrt();
            expected[label as usize].iter_mut().zip(row).for_each(|(sum, &v)| *sum += f64::from(v) / norm);
        }
        for (got, sum) in fresh.directions().zip(expected) {
            let norm = sum.iter().map(|v| v * v).sum::<f64>().sqrt();
            for (got, want) in got.into_iter().flatten().zip(sum) {
                prop_assert!((f64::from(got) * norm - want).abs() < 1e-6, "{} {}", got, want / norm);
            }
        }
    }
}

#[test]
fn rows_of_any_dtype_and_length_are_the_same_units() {
    let halves: Vec<half::f16> = gaussian_like(200, 7, 3).into_iter().map(half::f16::from_f32).collect();
    let singles: Vec<f32> = halves.iter().map(|v| v.to_f32()).collect();
    let doubles: Vec<f64> = halves.iter().map(|v| v.to_f64()).collect();
    // Of very different lengths, which float32 cannot hold.
    let scaled: Vec<f64> = doubles.iter().enumerate().map(|(i, v)| v * 2f64.powi(i as i32 / 7 * 9 - 900)).collect();
    let options = Options::new(9);
    let expected = fit_slice(&singles, 7, &options, 2).unwrap();
    let of = |rows: Rows<'_>| fit(&rows, &options, OnInvalid::Raise, &Par::new(Some(2))).unwrap();
    for rows in [Rows::from_slice(&halves, 7), Rows::from_slice(&doubles, 7), Rows::from_slice(&scaled, 7)] {
        let got = of(rows.unwrap());
        assert_eq!(
            (got.centroids, got.objective, got.seeds),
            (expected.centroids.clone(), expected.objective.clone(), expected.seeds.clone())
        );
    }
}
