//! Selection against one that sorts everything. The Python tests attack all options; these the core alone.

use proptest::prelude::*;

use super::*;
use crate::runtime::rng::hash64;

/// The paper's selection by sorting.
fn oracle(labels: &[i32], similarity: &[f32], k: usize, budget: usize) -> Vec<(i64, u8)> {
    let mut order: Vec<usize> = (0..labels.len()).filter(|&i| labels[i] >= 0 && !similarity[i].is_nan()).collect();
    order.sort_by(|&a, &b| similarity[b].partial_cmp(&similarity[a]).unwrap().then(a.cmp(&b)));
    let mut taken = vec![0; k];
    let (mut selected, mut rest) = (Vec::new(), Vec::new());
    for row in order {
        let count = &mut taken[labels[row] as usize];
        if *count < budget / k {
            *count += 1;
            selected.push((row as i64, Phase::Quota as u8));
        } else {
            rest.push((row as i64, Phase::Fill as u8));
        }
    }
    rest.truncate(budget - selected.len());
    selected.extend(rest);
    selected.sort_unstable();
    selected
}

proptest! {
    #[test]
    fn the_paper_s_selection_is_that_of_sorting(
        rows in proptest::collection::vec((-1i32..6, -3i8..4), 1..120),
        budget in 1usize..100,
        threads in 1usize..4,
    ) {
        let labels: Vec<i32> = rows.iter().map(|row| row.0).collect();
        // Few values: ties, -0.0 beside 0.0, NaN.
        let similarity: Vec<f32> =
            rows.iter().map(|row| [-0.0, 0.25, 0.5, f32::NAN, 0.0, -1.0, 1.0][(row.1 + 3) as usize]).collect();
        let valid = labels.iter().zip(&similarity).filter(|(l, s)| **l >= 0 && !s.is_nan()).count();
        let budget = budget.min(valid);
        prop_assume!(budget > 0);
        let got = select(&labels, &similarity, &Options::new(6, budget), &Par::new(Some(threads))).unwrap();
        let pairs: Vec<(i64, u8)> = got.indices.iter().copied().zip(got.phase).collect();
        prop_assert_eq!(pairs, oracle(&labels, &similarity, 6, budget));
        prop_assert_eq!(got.invalid.len(), labels.len() - valid);
    }
}

proptest! {
    #[test]
    fn equal_weights_are_as_none(
        rows in proptest::collection::vec((-1i32..4, 0u8..9), 1..80),
        budget in 1usize..60,
        weight in 1u64..=u64::MAX,
    ) {
        let labels: Vec<i32> = rows.iter().map(|row| row.0).collect();
        let similarity: Vec<f32> = rows.iter().map(|row| row.1.into()).collect();
        for fill in [Fill::Global, Fill::Waterfill, Fill::Zscore, Fill::None] {
            let options = Options { fill, strict: false, ..Options::new(4, budget) };
            let plain = select(&labels, &similarity, &options, &Par::new(Some(1))).unwrap();
            let options = Options { weights: Some(&[weight; 4]), ..options };
            let got = select(&labels, &similarity, &options, &Par::new(Some(1))).unwrap();
            prop_assert_eq!((got.indices, got.phase), (plain.indices, plain.phase));
        }
    }
}

#[test]
fn a_cluster_without_weight_has_what_the_others_leave() {
    let labels = [0, 0, 0, 1, 1, 2, 2, 2];
    let options = Options { fill: Fill::Waterfill, weights: Some(&[0, 1, 0]), ..Options::new(3, 6) };
    let got = select(&labels, &[0.5; 8], &options, &Par::new(Some(1))).unwrap();
    assert_eq!(got.indices, [0, 1, 3, 4, 5, 6]);
    for weights in [&[0; 3][..], &[1; 2]] {
        let options = Options { weights: Some(weights), ..Options::new(3, 6) };
        assert!(select(&labels, &[0.5; 8], &options, &Par::new(Some(1))).is_err());
    }
}

#[test]
fn preselected_rows_beyond_their_quota_lower_the_others_evenly() {
    // Cluster 0 holds 4 of a budget of 6 already; a quota of 2 each for the others would make 8.
    let labels = [0, 0, 0, 0, 1, 1, 1, 2, 2, 2];
    let similarity = [0.5; 10];
    let options = Options { preselected: &[0, 1, 2, 3], ..Options::new(3, 6) };
    let got = select(&labels, &similarity, &options, &Par::new(Some(1))).unwrap();
    assert_eq!(got.indices, [0, 1, 2, 3, 4, 7]);
    assert_eq!(got.phase, [2, 2, 2, 2, 0, 0]);
}

/// Many blocks, at several thread counts: scores spread evenly, heaped, and far out.
#[test]
fn large_selections_are_those_of_sorting() {
    let (n, k, budget) = (200_003, 7, 30_001);
    let draw = |stream: u64, i: usize| hash64(stream, i as u64);
    let labels: Vec<i32> = (0..n).map(|i| (draw(0, i) % 9) as i32 - 2).map(|label| label.max(-1)).collect();
    let even = |i: usize| (draw(1, i) >> 40) as f32 / 1e7;
    let scores: [&dyn Fn(usize) -> f32; 4] =
        [&even, &|i| (draw(1, i) % 3) as f32, &|i| if i % 5000 == 1 { f32::MAX } else { even(i) }, &|i| {
            if i % 100 == 3 { f32::NAN } else { -even(i).exp() }
        }];
    for score in scores {
        let similarity: Vec<f32> = (0..n).map(score).collect();
        let expected = oracle(&labels, &similarity, k, budget);
        for threads in [1, 2, 7] {
            let got = select(&labels, &similarity, &Options::new(k, budget), &Par::new(Some(threads))).unwrap();
            let pairs: Vec<(i64, u8)> = got.indices.iter().copied().zip(got.phase.iter().copied()).collect();
            assert!(pairs == expected);
            assert!(got.indices.iter().zip(&got.cluster).all(|(&i, &cluster)| labels[i as usize] == cluster));
            assert_eq!(got.counts.iter().map(|c| c.quota + c.fill).sum::<usize>(), budget);
        }
    }
}

/// What is selected from some rows is what is left of it when more rows join: a selection merges as they come.
#[test]
fn a_selection_of_rows_that_join_one_after_another_is_that_of_all() {
    let (n, k, budget, part) = (5_000, 7, 900, 611);
    let par = Par::new(Some(1));
    let labels: Vec<i32> = (0..n).map(|i| (hash64(0, i) % (1 + i % 8)) as i32 - 1).map(|label| label.max(-1)).collect();
    let similarity: Vec<f32> = (0..n).map(|i| (hash64(1, i) % 400) as f32).collect();
    for within in [Within::Nearest, Within::Far, Within::Random] {
        for fill in [Fill::Global, Fill::Waterfill, Fill::None] {
            let options = Options { fill, within, strict: false, ..Options::new(k, budget) };
            let run = |numbers: &[i64], options: Options<'_>| -> Vec<i64> {
                let labels: Vec<i32> = numbers.iter().map(|&row| labels[row as usize]).collect();
                let similarity: Vec<f32> = numbers.iter().map(|&row| similarity[row as usize]).collect();
                let options = Options { numbers: Some(numbers), ..options };
                let got = select(&labels, &similarity, &options, &par).unwrap();
                got.indices.iter().map(|&at| numbers[at as usize]).collect()
            };
            let mut kept = Vec::new();
            for first in (0..n as i64).step_by(part) {
                kept.extend(first..(n as i64).min(first + part as i64));
                // One row a cluster more than the budget: the level of a waterfill ends in part of a row each.
                kept = run(&kept, Options { budget: budget + k, ..options });
            }
            let expected = select(&labels, &similarity, &options, &par).unwrap();
            let pools: Vec<usize> = expected.counts.iter().map(|counts| counts.pool).collect();
            let got = run(&kept, Options { pools: Some(&pools), ..options });
            assert_eq!(got, expected.indices);
        }
    }
}
