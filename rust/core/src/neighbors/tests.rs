//! Every search against its definition, bit for bit, at every instruction set, block size and thread count.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::dedup::RowGroups;
use super::facility_location::Pick;
use super::kcenter::StopRule;
use super::knn::NO_ROW;
use super::*;
use crate::runtime::parallel::Par;
use crate::runtime::rng::uniform;

/// Values that hurt: few distinct ones make ties, extreme ones leave the range of the digits, some have no direction.
fn hostile() -> impl Strategy<Value = f32> {
    prop_oneof![
        120 => (-3i8..=3).prop_map(f32::from),
        120 => -1f32..1.0,
        1 => Just(f32::MAX),
        1 => Just(f32::MIN_POSITIVE),
        1 => Just(f32::NAN),
        1 => Just(-0.0),
    ]
}

/// (D, rows): some come twice, some all but, some have another length, some are zero.
fn matrices() -> impl Strategy<Value = (usize, Vec<f32>)> {
    (1usize..=40, 1usize..=40, any::<u64>()).prop_flat_map(|(dim, n, seed)| {
        proptest::collection::vec(hostile(), n * dim).prop_map(move |mut rows| {
            for i in 0..n {
                let other = (uniform(seed, 2 * i as u64) * n as f64) as usize;
                let source = other * dim..(other + 1) * dim;
                match (uniform(seed, 2 * i as u64 + 1) * 8.0) as usize {
                    0 => rows.copy_within(source, i * dim),
                    1 => {
                        rows.copy_within(source, i * dim);
                        rows[i * dim] *= 1.0 + f32::EPSILON;
                    }
                    2 => rows[i * dim..(i + 1) * dim].iter_mut().for_each(|v| *v *= 1e-6),
                    3 if i % 8 == 0 => rows[i * dim..(i + 1) * dim].fill(0.0),
                    _ => {}
                }
            }
            (dim, rows)
        })
    })
}

/// All that this CPU has, with several block sizes and thread counts; Neon's kernels are portable Rust.
fn ways() -> Vec<(Options, Par<'static>)> {
    let levels = Level::present().chain([Level::Neon]);
    let sizes = [(None, None, 1), (Some(1), Some(7), 3), (Some(5), Some(16), 2), (Some(2000), Some(3), 1)];
    let way = |(i, level)| {
        let (block_rows, panel_rows, threads) = sizes[i % sizes.len()];
        (Options { block_rows, panel_rows, level: Some(level) }, Par::new(Some(threads)))
    };
    let best = (0..sizes.len()).map(|i| (i, cpu::level().unwrap()));
    levels.enumerate().chain(best).map(way).collect()
}

/// The similarities of all pairs.
fn all_pairs(rows: &[f32], dim: usize) -> Vec<Vec<f32>> {
    let wide: Vec<Vec<f64>> = rows.chunks(dim).map(|row| row.iter().map(|&v| f64::from(v)).collect()).collect();
    wide.iter().map(|x| wide.iter().map(|y| similarity(x, y)).collect()).collect()
}

/// Two groups, of every third row and the rest, in descending order.
fn two_groups(n: usize) -> (Vec<u32>, Vec<usize>) {
    let (first, second): (Vec<u32>, Vec<u32>) = (0..n as u32).rev().partition(|i| i % 3 == 0);
    let starts = vec![0, first.len(), n];
    ([first, second].concat(), starts)
}

/// The bits of similarities; NaN is NaN, whatever its bits.
fn similarity_bits(similarity: &[f32]) -> Vec<u32> {
    similarity.iter().map(|s| if s.is_nan() { u32::MAX } else { s.to_bits() }).collect()
}

fn bits(neighbors: &[Neighbor]) -> Vec<(u32, u32)> {
    neighbors.iter().map(|n| (n.row, n.similarity.to_bits())).collect()
}

fn knn_oracle(pairs: &[Vec<f32>], k: usize, exclude_self: bool) -> Vec<Neighbor> {
    let of_row = |(i, similarities): (usize, &Vec<f32>)| {
        let found = similarities.iter().enumerate().filter(|(j, s)| !(s.is_nan() || exclude_self && *j == i));
        let mut found: Vec<Neighbor> = found.map(|(j, &similarity)| Neighbor { row: j as u32, similarity }).collect();
        found.sort_by(|a, b| b.similarity.partial_cmp(&a.similarity).unwrap().then(a.row.cmp(&b.row)));
        found.resize(k.max(found.len()), Neighbor { row: NO_ROW, similarity: f32::NAN });
        found.truncate(k);
        found
    };
    pairs.iter().enumerate().flat_map(of_row).collect()
}

fn kcenter_oracle(pairs: &[Vec<f32>], first: u32, count: usize, distance: f64) -> (Vec<u32>, Vec<f32>) {
    let mut chosen = vec![first];
    let mut nearest = pairs[first as usize].clone();
    while chosen.len() < count {
        let candidates = (0..pairs.len()).filter(|i| !nearest[*i].is_nan() && !chosen.contains(&(*i as u32)));
        let farthest = candidates.min_by(|&a, &b| nearest[a].partial_cmp(&nearest[b]).unwrap().then(a.cmp(&b)));
        let Some(row) = farthest.filter(|&row| kcenter::distance(nearest[row]) > distance) else { break };
        chosen.push(row as u32);
        nearest.iter_mut().zip(&pairs[row]).for_each(|(a, &b)| *a = if b > *a { b } else { *a });
    }
    (chosen, nearest)
}

/// The gain of `j` in eight lanes, or in sequence.
fn gain_oracle(weights: impl Iterator<Item = (usize, f64)>, cover: &[f64], lanes: usize) -> f64 {
    let mut sums = vec![0.0; lanes];
    weights.enumerate().for_each(|(place, (i, s))| sums[place % lanes] += (s - cover[i]).max(0.0));
    0.5 * if lanes == 1 { sums[0] } else { crate::linalg::dot::reduce_lanes(sums.try_into().unwrap()) }
}

/// Greedy without any laziness: `weights(j)` are the rows that `j` covers, and its similarity to each.
fn facility_oracle(
    candidates: &[usize],
    n: usize,
    budget: usize,
    lanes: usize,
    weights: impl Fn(usize) -> Vec<(usize, f64)>,
) -> Vec<Pick> {
    let mut cover = vec![-1f64; n];
    let mut picks: Vec<Pick> = Vec::new();
    while picks.len() < budget.min(candidates.len()) {
        let mut best: Option<Pick> = None;
        for &j in candidates {
            let gain = gain_oracle(weights(j).into_iter(), &cover, lanes);
            if picks.iter().all(|pick| pick.row != j as u32) && best.is_none_or(|best| gain > best.gain) {
                best = Some(Pick { row: j as u32, gain });
            }
        }
        let best = best.unwrap();
        weights(best.row as usize).into_iter().for_each(|(i, w)| cover[i] = cover[i].max(w));
        picks.push(best);
    }
    picks
}

fn picks_bits(picks: &[Pick]) -> Vec<(u32, u64)> {
    picks.iter().map(|pick| (pick.row, pick.gain.to_bits())).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..Default::default() })]

    #[test]
    fn neighbors_are_those_of_all_pairs((dim, values) in matrices(), k in 1usize..12, exclude_self: bool) {
        let rows = Rows::from_slice(&values, dim).unwrap();
        let expected = bits(&knn_oracle(&all_pairs(&values, dim), k, exclude_self));
        for (options, par) in ways() {
            let found = knn(&rows, &rows, k, exclude_self, options, &par).unwrap();
            prop_assert_eq!(bits(&found), expected.clone(), "{:?}", options);
        }
    }

    #[test]
    fn earlier_rows_are_searched_within_groups((dim, values) in matrices(), threshold in -1f32..1.0) {
        let rows = Rows::from_slice(&values, dim).unwrap();
        let n = rows.len();
        let pairs = all_pairs(&values, dim);
        let (order, starts) = two_groups(n);
        let groups = RowGroups::new(&order, &starts, n).unwrap();
        let earlier = |at: usize| {
            let first = if at < starts[1] { 0 } else { starts[1] };
            first..at
        };
        let of = |a: usize, b: usize| pairs[order[a] as usize][order[b] as usize];
        let nearest: Vec<u32> =
            (0..n).map(|at| earlier(at).map(|b| of(at, b)).fold(0f32, |m, s| if s > m { s } else { m }).to_bits()).collect();
        let mut separated = vec![true; n];
        let components = UnionFind::new(n);
        for at in 0..n {
            for b in earlier(at).filter(|&b| of(at, b) > threshold) {
                separated[at] &= !separated[b];
                components.union(order[at], order[b]);
            }
        }
        for (options, par) in ways() {
            let found = dedup::max_similarity_to_earlier(&rows, groups, options, &par).unwrap();
            let found: Vec<u32> = found.iter().map(|s| s.to_bits()).collect();
            prop_assert_eq!(&found, &nearest, "{:?}", options);
            let found = dedup::greedy_dedup(&rows, groups, threshold, options, &par).unwrap();
            prop_assert_eq!(&found, &separated, "{:?}", options);
            let found = dedup::similar_components(&rows, groups, threshold, options, &par).unwrap();
            prop_assert_eq!(found.roots(), components.roots(), "{:?}", options);
        }
    }

    #[test]
    fn the_farthest_row_comes_next((dim, values) in matrices(), count in 1usize..40, distance in 0f64..1.0) {
        let rows = Rows::from_slice(&values, dim).unwrap();
        let pairs = all_pairs(&values, dim);
        let first = (0..rows.len()).find(|&i| !pairs[i][i].is_nan());
        prop_assume!(first.is_some());
        let first = first.unwrap() as u32;
        let (chosen, nearest) = kcenter_oracle(&pairs, first, count, distance);
        let nearest = similarity_bits(&nearest);
        for (options, par) in ways() {
            let stop = StopRule { count, distance };
            let found = kcenter::farthest_first(&rows, &[first], stop, options, &par).unwrap();
            prop_assert_eq!(&found.chosen, &chosen, "{:?}", options);
            prop_assert_eq!(&similarity_bits(&found.similarity), &nearest, "{:?}", options);
        }
    }

    #[test]
    fn lazy_greedy_is_greedy((dim, values) in matrices(), budget in 1usize..15, k in 1usize..9) {
        let rows = Rows::from_slice(&values, dim).unwrap();
        let n = rows.len();
        let pairs = all_pairs(&values, dim);
        let is_valid = |i: &usize| !pairs[*i][*i].is_nan();
        let (order, starts) = two_groups(n);
        let groups = RowGroups::new(&order, &starts, n).unwrap();
        let expected = (0..2).map(|g| {
            // Rows are summed, and ties are broken, in the order of the group.
            let members: Vec<usize> = groups.rows(g).iter().map(|&i| i as usize).filter(is_valid).collect();
            let places: Vec<usize> = (0..members.len()).collect();
            let weights = |j: usize| places.iter().map(|&i| (i, f64::from(pairs[members[i]][members[j]]))).collect();
            let picks = facility_oracle(&places, members.len(), budget, 8, weights);
            picks.into_iter().map(|pick| Pick { row: members[pick.row as usize] as u32, ..pick }).collect::<Vec<_>>()
        });
        let expected: Vec<_> = expected.map(|picks| picks_bits(&picks)).collect();
        let neighbors = knn_oracle(&pairs, k, false);
        let valid: Vec<usize> = (0..n).filter(is_valid).collect();
        let covers = |i: usize, j: usize| i == j || neighbors[i * k..(i + 1) * k].iter().any(|x| x.row as usize == j);
        let weights = |j: usize| {
            let covered = valid.iter().filter(|&&i| covers(i, j));
            covered.map(|&i| (i, if i == j { 1.0 } else { f64::from(pairs[i][j]) })).collect()
        };
        let sparse = picks_bits(&facility_oracle(&valid, n, budget, 1, weights));
        for (options, par) in ways() {
            let found = facility_location::within_groups(&rows, groups, &[budget, budget], options, &par).unwrap();
            let found: Vec<_> = found.iter().map(|picks| picks_bits(picks)).collect();
            prop_assert_eq!(&found, &expected, "{:?}", options);
            let found = facility_location::on_graph(&neighbors, k, budget, &par).unwrap();
            prop_assert_eq!(picks_bits(&found), sparse.clone());
        }
    }

    #[test]
    fn messages_pass_as_defined(
        (dim, values) in matrices(), k in 1usize..6, budget in 1usize..30, multiply: bool, gamma in 0f64..2.0, seed: u64,
    ) {
        let pairs = all_pairs(&values, dim);
        let n = pairs.len();
        let scores: Vec<f64> = (0..n)
            .map(|i| if pairs[i][i].is_nan() { f64::NAN } else { 1e-7 + (4.0 * uniform(seed, i as u64)).floor() / 4.0 })
            .collect();
        let neighbors = knn_oracle(&pairs, k, true);
        let mut edges = vec![BTreeSet::new(); n];
        for (i, list) in neighbors.chunks(k).enumerate() {
            for other in list.iter().filter(|other| other.row != NO_ROW) {
                edges[i].insert(other.row as usize);
                edges[other.row as usize].insert(i);
            }
        }
        let fade = |i: usize, j: usize, gamma: f64| libm::exp(-gamma * kcenter::distance(pairs[i][j]));
        let mut sums: Vec<f64> = (0..n)
            .map(|i| edges[i].iter().fold(scores[i], |u, &j| {
                let message = fade(i, j, 1.0) * scores[j];
                if multiply { u * message } else { u + message }
            }))
            .collect();
        let mut chosen: Vec<u32> = Vec::new();
        for _ in 0..budget {
            let left = (0..n).filter(|i| !sums[*i].is_nan() && !chosen.contains(&(*i as u32)));
            let Some(best) = left.reduce(|a, b| if sums[b] > sums[a] { b } else { a }) else { break };
            chosen.push(best as u32);
            let sum = sums[best];
            edges[best].iter().for_each(|&j| sums[j] -= fade(best, j, gamma) * sum);
        }
        let passing = message_passing::Options { multiply, gamma };
        let found = message_passing::pass_messages(&neighbors, k, &scores, passing, budget, &Par::new(Some(1))).unwrap();
        prop_assert_eq!(found, chosen);
    }
}

/// Rows around a few directions: near-duplicates, more than one panel of vectors, more than are held at once.
fn clustered(n: usize, dim: usize) -> Vec<f32> {
    let noise = |i: usize, j: usize| uniform(3, (i * dim + j) as u64) - 0.5;
    let direction = |c: usize, j: usize| uniform(4, (c * dim + j) as u64);
    (0..n).flat_map(|i| (0..dim).map(move |j| (direction(i * 7 % 23, j) + 0.05 * noise(i, j)) as f32)).collect()
}

#[test]
fn many_rows_agree_across_levels() {
    let (n, dim) = (3000, 33);
    let values = clustered(n, dim);
    let rows = Rows::from_slice(&values, dim).unwrap();
    let (order, starts) = two_groups(n);
    let groups = RowGroups::new(&order, &starts, n).unwrap();
    let oracle = Options { level: Some(Level::Scalar), ..Options::default() };
    let one = Par::new(Some(1));
    let stop = StopRule { count: 200, distance: 0.0 };
    let expected = (
        bits(&knn(&rows, &rows, 10, true, oracle, &one).unwrap()),
        dedup::max_similarity_to_earlier(&rows, groups, oracle, &one).unwrap(),
        dedup::greedy_dedup(&rows, groups, 0.9994, oracle, &one).unwrap(),
        dedup::similar_components(&rows, groups, 0.9995, oracle, &one).unwrap().roots(),
        kcenter::farthest_first(&rows, &[5], stop, oracle, &one).unwrap(),
    );
    let pairs = all_pairs(&values, dim);
    assert_eq!(expected.0, bits(&knn_oracle(&pairs, 10, true)));
    let (chosen, _) = kcenter_oracle(&pairs, 5, 200, 0.0);
    assert_eq!(expected.4.chosen, chosen);
    for (options, par) in ways() {
        let options = Options { panel_rows: options.panel_rows.map(|rows| rows * 100), ..options };
        assert!(expected.0 == bits(&knn(&rows, &rows, 10, true, options, &par).unwrap()), "{options:?}");
        assert!(expected.1 == dedup::max_similarity_to_earlier(&rows, groups, options, &par).unwrap(), "{options:?}");
        assert!(expected.2 == dedup::greedy_dedup(&rows, groups, 0.9994, options, &par).unwrap(), "{options:?}");
        let components = dedup::similar_components(&rows, groups, 0.9995, options, &par).unwrap();
        assert!(expected.3 == components.roots(), "{options:?}");
        let centers = kcenter::farthest_first(&rows, &[5], stop, options, &par).unwrap();
        assert!(expected.4 == centers, "{options:?}");
    }
    let removed = expected.2.iter().filter(|kept| !**kept).count();
    assert!(removed > 100 && removed < n - 100, "{removed} of {n} removed: the threshold tests nothing");
}

#[test]
fn wrong_arguments_say_so() {
    let rows = Rows::from_slice(&[1f32, 2.0, 0.0, 0.0], 2).unwrap();
    let other = Rows::from_slice(&[1f32, 2.0, 3.0], 3).unwrap();
    let (options, par) = (Options::default(), Par::new(Some(1)));
    assert!(matches!(knn(&rows, &rows, 0, true, options, &par), Err(Error::Argument(_))));
    assert!(matches!(knn(&rows, &other, 1, true, options, &par), Err(Error::Shape(_))));
    assert!(matches!(RowGroups::new(&[0, 2], &[0, 2], 2), Err(Error::Argument(_))));
    assert!(matches!(RowGroups::new(&[0, 1], &[0, 1], 2), Err(Error::Argument(_))));
    let stop = StopRule { count: 2, distance: 0.0 };
    for given in [&[] as &[u32], &[0, 0], &[2]] {
        let centers = kcenter::farthest_first(&rows, given, stop, options, &par);
        assert!(matches!(centers, Err(Error::Argument(_))), "{given:?}");
    }
    let centers = kcenter::farthest_first(&rows, &[1], stop, options, &par);
    assert!(matches!(centers, Err(Error::InvalidRow { row: 1, .. })));
}

#[test]
fn float64_rows_of_any_length_have_a_direction() {
    let wide = [3e300, -4e300, 3e-300, -4e-300, 5e-324, 0.0, f64::NAN, 1.0];
    let units = [0.6f32, -0.8, 0.6, -0.8, 1.0, 0.0, f32::NAN, f32::NAN];
    let expected = bits(&knn_oracle(&all_pairs(&units, 2), 3, true));
    let rows = Rows::from_slice(&wide, 2).unwrap();
    for (options, par) in ways() {
        assert_eq!(bits(&knn(&rows, &rows, 3, true, options, &par).unwrap()), expected, "{options:?}");
    }
}

#[test]
fn rows_without_a_direction_take_no_place() {
    // All else is covered by one row: of equal gains of 0, those of the zero rows must not come first.
    let values = [0f32, 0.0, 0.0, 0.0, 1.0, 0.0, 1.0, 0.0, 1.0, 0.0];
    let rows = Rows::from_slice(&values, 2).unwrap();
    let par = Par::new(Some(1));
    let neighbors = knn(&rows, &rows, 3, false, Options::default(), &par).unwrap();
    let on_graph = facility_location::on_graph(&neighbors, 3, 5, &par).unwrap();
    let (order, starts) = ([0, 1, 2, 3, 4], [0, 5]);
    let groups = RowGroups::new(&order, &starts, 5).unwrap();
    let within = facility_location::within_groups(&rows, groups, &[5], Options::default(), &par).unwrap();
    for picks in [&on_graph, &within[0]] {
        assert_eq!(picks.iter().map(|pick| pick.row).collect::<Vec<_>>(), [2, 3, 4]);
    }
}
