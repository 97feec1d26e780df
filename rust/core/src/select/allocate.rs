//! Water-filling: a total shared out evenly, as far as everybody's bounds allow.

use crate::error::{Error, Result};

/// What one taker may get.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Share {
    /// At least this much.
    pub least: usize,
    /// At most this much.
    pub most: usize,
    /// Relative to the others.
    pub weight: f64,
}

/// Shares `total` out: everybody gets `clamp(level * weight, least, most)` for the one level at which the sum is
/// `total`, rounded down; what rounding leaves goes, one each, to the largest fractional parts, ties to the larger
/// `most`, then to the first.
///
/// # Errors
/// [`Error::Argument`] when bounds or weights contradict each other or cannot add up to `total`.
pub fn allocate(total: usize, shares: &[Share]) -> Result<Vec<usize>> {
    check(total, shares)?;
    let level = level(total, shares);
    let exact = |share: &Share| (level * share.weight).clamp(share.least as f64, share.most as f64);
    let mut given: Vec<usize> = shares.iter().map(|share| exact(share).floor() as usize).collect();

    let fraction = |i: usize| exact(&shares[i]).fract();
    let mut order: Vec<usize> = (0..shares.len()).collect();
    order.sort_by(|&a, &b| {
        fraction(b).total_cmp(&fraction(a)).then(shares[b].most.cmp(&shares[a].most)).then(a.cmp(&b))
    });
    // One round does it, unless weights made the level inexact.
    let mut sum: usize = given.iter().sum();
    while sum < total {
        for &i in order.iter().filter(|&&i| shares[i].weight > 0.0) {
            if sum < total && given[i] < shares[i].most {
                given[i] += 1;
                sum += 1;
            }
        }
    }
    while sum > total {
        for &i in order.iter().rev() {
            if sum > total && given[i] > shares[i].least {
                given[i] -= 1;
                sum -= 1;
            }
        }
    }
    Ok(given)
}

fn check(total: usize, shares: &[Share]) -> Result<()> {
    for (i, &Share { least, most, weight }) in shares.iter().enumerate() {
        if least > most || !(weight >= 0.0 && weight.is_finite()) {
            return Err(Error::Argument(format!(
                "share {i} of at least {least}, at most {most}, with weight {weight}"
            )));
        }
    }
    let least: usize = shares.iter().map(|share| share.least).sum();
    let most: usize = shares.iter().map(|share| if share.weight > 0.0 { share.most } else { share.least }).sum();
    if !(least..=most).contains(&total) {
        return Err(Error::Argument(format!("{total} cannot be shared out: all shares add up to {least} to {most}")));
    }
    Ok(())
}

/// The level at which the clamped shares add up to `total`. Their sum grows piecewise linearly with the level: it
/// steepens where a share leaves its lower bound and flattens where it reaches its upper one.
fn level(total: usize, shares: &[Share]) -> f64 {
    let rising = shares.iter().filter(|share| share.weight > 0.0 && share.least < share.most);
    let mut bends: Vec<(f64, f64)> =
        rising.flat_map(|s| [(s.least as f64 / s.weight, s.weight), (s.most as f64 / s.weight, -s.weight)]).collect();
    bends.sort_by(|a, b| a.0.total_cmp(&b.0));
    let mut missing = (total - shares.iter().map(|share| share.least).sum::<usize>()) as f64;
    let (mut level, mut slope) = (0.0, 0.0);
    for (at, change) in bends {
        let step = slope * (at - level);
        if step >= missing {
            break;
        }
        missing -= step;
        level = at;
        slope += change;
    }
    if slope > 0.0 { level + missing / slope } else { level }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn even(total: usize, pools: &[usize]) -> Vec<usize> {
        let shares: Vec<Share> = pools.iter().map(|&most| Share { least: 0, most, weight: 1.0 }).collect();
        allocate(total, &shares).unwrap()
    }

    #[test]
    fn worked_examples() {
        assert_eq!(even(10, &[100, 100]), [5, 5]);
        assert_eq!(even(10, &[2, 100, 3]), [2, 5, 3]);
        // Level 11/3: the two left over go to the larger pools.
        assert_eq!(even(11, &[4, 9, 5]), [3, 4, 4]);
        // Fewer than one each: the larger pools, then the first.
        assert_eq!(even(2, &[3, 7, 0, 7, 7]), [0, 1, 0, 1, 0]);
        assert_eq!(even(0, &[3, 7]), [0, 0]);
        assert_eq!(even(10, &[3, 7]), [3, 7]);
    }

    #[test]
    fn weights_and_bounds_are_kept() {
        let share = |least, most, weight| Share { least, most, weight };
        assert_eq!(allocate(9, &[share(0, 100, 1.0), share(0, 100, 2.0)]).unwrap(), [3, 6]);
        assert_eq!(allocate(9, &[share(5, 100, 1.0), share(0, 100, 1.0), share(0, 100, 1.0)]).unwrap(), [5, 2, 2]);
        assert_eq!(allocate(3, &[share(1, 9, 0.0), share(0, 9, 1.0)]).unwrap(), [1, 2]);
    }

    #[test]
    fn what_cannot_be_met_is_an_error() {
        let share = |least, most, weight| Share { least, most, weight };
        for shares in
            [vec![share(0, 3, 1.0)], vec![share(5, 9, 1.0)], vec![share(0, 9, 0.0)], vec![share(0, 9, f64::NAN)]]
        {
            assert!(matches!(allocate(4, &shares), Err(Error::Argument(_))), "{shares:?}");
        }
    }

    /// One at a time to whoever holds least: the same level, whoever gets the last ones.
    fn by_hand(total: usize, pools: &[usize]) -> Vec<usize> {
        let mut given = vec![0; pools.len()];
        for _ in 0..total {
            let i = (0..pools.len())
                .filter(|&i| given[i] < pools[i])
                .min_by_key(|&i| (given[i], std::cmp::Reverse(pools[i]), i));
            given[i.unwrap()] += 1;
        }
        given
    }

    proptest! {
        #[test]
        fn equal_weights_are_served_one_at_a_time(pools in proptest::collection::vec(0usize..30, 1..12), part in 0f64..=1.0) {
            let total = (part * pools.iter().sum::<usize>() as f64) as usize;
            prop_assert_eq!(even(total, &pools), by_hand(total, &pools));
        }

        #[test]
        fn any_weights_and_bounds_add_up(
            shares in proptest::collection::vec((0usize..9, 0usize..30, 0.01f64..50.0), 1..12),
            part in 0f64..=1.0,
        ) {
            let shares: Vec<Share> =
                shares.iter().map(|&(least, more, weight)| Share { least, most: least + more, weight }).collect();
            let (least, most): (usize, usize) = (shares.iter().map(|s| s.least).sum(), shares.iter().map(|s| s.most).sum());
            let total = least + (part * (most - least) as f64) as usize;
            let given = allocate(total, &shares).unwrap();
            prop_assert_eq!(given.iter().sum::<usize>(), total);
            prop_assert!(given.iter().zip(&shares).all(|(&g, s)| s.least <= g && g <= s.most));
        }
    }
}
