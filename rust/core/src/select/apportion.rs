//! Apportionment: a total shared out in whole numbers, in proportion to weights, as far as bounds allow.
//!
//! This is water-filling (everybody rises with one level between their bounds), rounded by largest remainders (Hamilton's
//! method). All of it is computed exactly: a finite float is a rational number, so weights and offsets become integers
//! by a common power of two, and only integers are compared. They are `i128` where that cannot overflow, which is
//! always so for equal weights, and big integers elsewhere.

use std::cmp::Reverse;
use std::ops::{AddAssign, SubAssign};

use num_bigint::BigInt;
use num_integer::Integer;
use num_traits::{Signed, ToPrimitive};

use crate::error::{Error, Result};

/// The least and the most that one party may get.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bound {
    /// At least this much.
    pub lower: usize,
    /// At most this much.
    pub upper: usize,
}

/// How fast each party's share rises with the level.
#[derive(Debug, Clone, Copy)]
pub enum Weights<'a> {
    /// All alike.
    Equal,
    /// In proportion to these integers, none of which is negative.
    Integers(&'a [BigInt]),
    /// In proportion to these finite numbers, none of which is negative.
    Floats(&'a [f64]),
}

/// What is seldom asked for.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options<'a> {
    /// Every party's share at level 0, instead of 0: finite, of either sign.
    pub offsets: Option<&'a [f64]>,
    /// Of equal remainders the one with the larger priority is rounded up, instead of the one with the larger upper
    /// bound.
    pub priority: Option<&'a [u64]>,
}

/// Shares `total` out.
///
/// Each party gets `clamp(offset + level * weight, lower, upper)` for the one level at which the sum is `total`, rounded
/// down. What rounding leaves goes, one each, to the largest remainders; ties to the larger upper bound, then to the
/// first party.
///
/// # Errors
/// [`Error::Argument`] when bounds or weights contradict each other or cannot add up to `total`.
pub fn apportion(total: usize, weights: Weights<'_>, bounds: &[Bound], options: Options<'_>) -> Result<Vec<usize>> {
    let lengths = [options.offsets.map(<[f64]>::len), options.priority.map(<[u64]>::len)];
    let given = match weights {
        Weights::Equal => bounds.len(),
        Weights::Integers(weights) => weights.len(),
        Weights::Floats(weights) => weights.len(),
    };
    if [Some(given)].iter().chain(&lengths).flatten().any(|&length| length != bounds.len()) {
        return Err(Error::Shape(format!("weights, offsets or priorities of other than {} parties", bounds.len())));
    }
    let problem = Problem::new(total, weights, bounds, options.offsets)?;
    let priority = |i: usize| options.priority.map_or(bounds[i].upper as u64, |priority| priority[i]);
    Ok(match problem.narrow() {
        Some(narrow) => round_up(total, narrow.solve()?, priority),
        None => round_up(total, problem.solve()?, priority),
    })
}

/// [`apportion`] with equal weights.
///
/// # Errors
/// As there.
pub fn apportion_evenly(total: usize, bounds: &[Bound]) -> Result<Vec<usize>> {
    apportion(total, Weights::Equal, bounds, Options::default())
}

/// An apportionment in integers: shares, bounds and offsets count in units of `1 / unit`.
struct Problem<T> {
    total: T,
    unit: T,
    parties: Vec<Party<T>>,
}

struct Party<T> {
    weight: T,
    offset: T,
    lower: T,
    upper: T,
}

/// A party's share rounded down, and the remainder as a multiple of what is the same for all.
struct Part<T> {
    floor: usize,
    remainder: T,
}

/// Where a party stands at a level.
#[derive(Clone, Copy, PartialEq)]
enum At {
    Lower,
    Between,
    Upper,
}

impl Problem<BigInt> {
    fn new(total: usize, weights: Weights<'_>, bounds: &[Bound], offsets: Option<&[f64]>) -> Result<Self> {
        let weights = match weights {
            Weights::Equal => vec![BigInt::from(1); bounds.len()],
            Weights::Integers(weights) => weights.to_vec(),
            Weights::Floats(weights) => integers(weights, "weight")?.0,
        };
        let (offsets, bits) = match offsets {
            Some(offsets) => integers(offsets, "offset")?,
            None => (vec![BigInt::ZERO; bounds.len()], 0),
        };
        let scaled = |value: usize| BigInt::from(value) << bits;
        let mut parties = Vec::with_capacity(bounds.len());
        for (i, ((weight, offset), &Bound { lower, upper })) in weights.into_iter().zip(offsets).zip(bounds).enumerate()
        {
            if lower > upper || weight.is_negative() {
                return Err(Error::Argument(format!(
                    "share {i} of at least {lower}, at most {upper}, with weight {weight}"
                )));
            }
            parties.push(Party { weight, offset, lower: scaled(lower), upper: scaled(upper) });
        }
        Ok(Problem { total: scaled(total), unit: scaled(1), parties })
    }

    /// The same problem in `i128`, where nothing that [`Problem::solve`] computes can overflow it.
    fn narrow(&self) -> Option<Problem<i128>> {
        let largest = |of: fn(&Party<BigInt>) -> [&BigInt; 3]| {
            self.parties.iter().flat_map(of).map(BigInt::bits).max().unwrap_or(0)
        };
        let weight = largest(|party| [&party.weight; 3]);
        let share = largest(|party| [&party.offset, &party.lower, &party.upper]).max(self.total.bits());
        let sum = u64::from(usize::BITS - self.parties.len().leading_zeros());
        // The largest terms are (share + share) * (weight * parties) + share * (weight * parties).
        if weight + share + sum + 3 > 127 {
            return None;
        }
        let party = |party: &Party<BigInt>| {
            let Party { weight, offset, lower, upper } = party;
            Some(Party {
                weight: weight.to_i128()?,
                offset: offset.to_i128()?,
                lower: lower.to_i128()?,
                upper: upper.to_i128()?,
            })
        };
        Some(Problem {
            total: self.total.to_i128()?,
            unit: self.unit.to_i128()?,
            parties: self.parties.iter().map(party).collect::<Option<_>>()?,
        })
    }
}

impl<T: Integer + Clone + ToPrimitive + std::fmt::Display + AddAssign + SubAssign> Problem<T> {
    /// Finds the level and everybody's share at it. The sum of the shares is a piecewise linear function of the level,
    /// which steepens where a party leaves its lower bound and flattens where it reaches its upper one.
    fn solve(&self) -> Result<Vec<Part<T>>> {
        // At a level below all bends those that rise with it have their lower bounds, the others what they always have.
        let rises = |party: &Party<T>| !party.weight.is_zero() && party.lower < party.upper;
        let fixed = |party: &Party<T>| party.offset.clone().clamp(party.lower.clone(), party.upper.clone());
        let lowest = |party: &Party<T>| if rises(party) { party.lower.clone() } else { fixed(party) };
        let highest = |party: &Party<T>| if rises(party) { party.upper.clone() } else { fixed(party) };
        let sum = |of: &dyn Fn(&Party<T>) -> T| self.parties.iter().fold(T::zero(), |sum, party| sum + of(party));
        let (least, most) = (sum(&lowest), sum(&highest));
        if !(least <= self.total && self.total <= most) {
            return Err(Error::Argument(format!(
                "{} cannot be shared out: all shares add up to {} to {}",
                self.total.clone() / self.unit.clone(),
                least.div_ceil(&self.unit),
                most.div_floor(&self.unit),
            )));
        }
        // The levels at which a party leaves its lower bound and reaches its upper one, as fractions.
        let mut bends = Vec::new();
        for (i, party) in self.parties.iter().enumerate().filter(|(_, party)| rises(party)) {
            for (at, bound) in [(At::Between, &party.lower), (At::Upper, &party.upper)] {
                bends.push((bound.clone() - party.offset.clone(), &party.weight, i, at));
            }
        }
        bends.sort_by(|a, b| (a.0.clone() * b.1.clone()).cmp(&(b.0.clone() * a.1.clone())));
        // At this stretch of levels the sum is `base + level * slope`.
        let (mut base, mut slope) = (least, T::zero());
        let mut states = vec![At::Lower; self.parties.len()];
        for (numerator, denominator, i, at) in bends {
            let reached = base.clone() * denominator.clone() + slope.clone() * numerator;
            if reached >= self.total.clone() * denominator.clone() {
                break;
            }
            let Party { weight, offset, lower, upper } = &self.parties[i];
            states[i] = at;
            if at == At::Between {
                base += offset.clone();
                base -= lower.clone();
                slope += weight.clone();
            } else {
                base += upper.clone();
                base -= offset.clone();
                slope -= weight.clone();
            }
        }
        // The level is `missing / slope`; without a slope nobody needs it.
        let missing = self.total.clone() - base;
        let slope = if slope.is_zero() { T::one() } else { slope };
        let unit = self.unit.clone() * slope.clone();
        let part = |(party, &at): (&Party<T>, &At)| {
            let share = match at {
                At::Lower => lowest(party) * slope.clone(),
                At::Upper => party.upper.clone() * slope.clone(),
                At::Between => party.offset.clone() * slope.clone() + missing.clone() * party.weight.clone(),
            };
            let (floor, remainder) = share.div_mod_floor(&unit);
            Part { floor: floor.to_usize().unwrap_or(usize::MAX), remainder }
        };
        Ok(self.parties.iter().zip(&states).map(part).collect())
    }
}

/// Gives what rounding left, one each, to the largest remainders, ties to the larger `priority` and then to the first.
fn round_up<T: Ord>(total: usize, parts: Vec<Part<T>>, priority: impl Fn(usize) -> u64) -> Vec<usize> {
    let mut shares: Vec<usize> = parts.iter().map(|part| part.floor).collect();
    let left = total - shares.iter().sum::<usize>();
    if left > 0 {
        let mut order: Vec<usize> = (0..parts.len()).collect();
        order.sort_by_key(|&i| Reverse((&parts[i].remainder, priority(i), Reverse(i))));
        // Remainders add up to `left` and each is below 1: there are more of them than are rounded up.
        order[..left].iter().for_each(|&i| shares[i] += 1);
    }
    shares
}

/// The integers `values * 2^bits`, for the smallest `bits` with which all are whole.
fn integers(values: &[f64], name: &str) -> Result<(Vec<BigInt>, u64)> {
    let mut dyadic = Vec::with_capacity(values.len());
    for (i, &value) in values.iter().enumerate() {
        if !value.is_finite() {
            return Err(Error::Argument(format!("share {i} with {name} {value}; expected a finite number")));
        }
        dyadic.push(mantissa_exponent(value));
    }
    let bits = dyadic.iter().map(|&(_, exponent)| -i64::from(exponent)).max().unwrap_or(0).max(0);
    let scaled = |(mantissa, exponent): (i64, i32)| BigInt::from(mantissa) << (i64::from(exponent) + bits);
    Ok((dyadic.into_iter().map(scaled).collect(), bits as u64))
}

/// `value = mantissa * 2^exponent` with an odd mantissa, or 0 and 0.
fn mantissa_exponent(value: f64) -> (i64, i32) {
    if value == 0.0 {
        return (0, 0);
    }
    let bits = value.to_bits();
    let exponent = (bits >> 52 & 0x7ff) as i32;
    // Subnormal numbers lack the implicit leading one.
    let mantissa = (bits & ((1 << 52) - 1)) as i64 | if exponent > 0 { 1 << 52 } else { 0 };
    let zeros = mantissa.trailing_zeros();
    let mantissa = mantissa >> zeros;
    (if value < 0.0 { -mantissa } else { mantissa }, exponent.max(1) - 1075 + zeros as i32)
}

#[cfg(test)]
mod tests {
    use num_bigint::BigInt as Int;
    use num_rational::BigRational as Ratio;
    use proptest::prelude::*;

    use super::*;

    fn even(total: usize, uppers: &[usize]) -> Vec<usize> {
        apportion_evenly(total, &bounds(uppers)).unwrap()
    }

    fn bounds(uppers: &[usize]) -> Vec<Bound> {
        uppers.iter().map(|&upper| Bound { lower: 0, upper }).collect()
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
        assert_eq!(even(0, &[]), [0; 0]);
    }

    #[test]
    fn weights_bounds_offsets_and_priorities_count() {
        let bound = |lower, upper| Bound { lower, upper };
        let run = |total, weights: &[f64], bounds: &[Bound]| {
            apportion(total, Weights::Floats(weights), bounds, Options::default()).unwrap()
        };
        assert_eq!(run(9, &[1.0, 2.0], &[bound(0, 100); 2]), [3, 6]);
        assert_eq!(run(9, &[1.0; 3], &[bound(5, 100), bound(0, 100), bound(0, 100)]), [5, 2, 2]);
        assert_eq!(run(3, &[0.0, 1.0], &[bound(1, 9), bound(0, 9)]), [1, 2]);
        // Beyond 128 bits: next to the huge weight the others count for nothing, and yet alike.
        assert_eq!(run(3, &[1e300, 1e-300, 5e-324], &[bound(0, 1), bound(0, 9), bound(0, 9)]), [1, 2, 0]);
        let offsets = |total, offsets: &[f64], bounds: &[Bound]| {
            let options = Options { offsets: Some(offsets), priority: Some(&[0; 3]) };
            apportion(total, Weights::Equal, bounds, options).unwrap()
        };
        assert_eq!(offsets(10, &[8.0, 1.0, 1.0], &[bound(0, 4), bound(0, 9), bound(0, 9)]), [4, 3, 3]);
        assert_eq!(offsets(10, &[6.0, 4.0, 0.0], &[bound(0, 9), bound(0, 9), bound(3, 9)]), [5, 2, 3]);
        assert_eq!(offsets(4, &[1.5, 1.5, 1.0], &[bound(0, 8), bound(0, 9), bound(0, 9)]), [2, 1, 1]);
    }

    #[test]
    fn what_cannot_be_met_is_an_error() {
        for (bound, weight) in [((0, 3), 1.0), ((5, 9), 1.0), ((0, 9), 0.0), ((0, 9), f64::NAN), ((0, 9), -1.0)] {
            let bounds = [Bound { lower: bound.0, upper: bound.1 }];
            let got = apportion(4, Weights::Floats(&[weight]), &bounds, Options::default());
            assert!(matches!(got, Err(Error::Argument(_))), "{bound:?} {weight}");
        }
        let got = apportion(0, Weights::Floats(&[1.0, 1.0]), &bounds(&[1]), Options::default());
        assert!(matches!(got, Err(Error::Shape(_))));
    }

    /// One at a time to whoever holds least: the same level, whoever gets the last ones.
    fn one_at_a_time(total: usize, uppers: &[usize]) -> Vec<usize> {
        let mut given = vec![0; uppers.len()];
        for _ in 0..total {
            let i =
                (0..uppers.len()).filter(|&i| given[i] < uppers[i]).min_by_key(|&i| (given[i], Reverse(uppers[i]), i));
            given[i.unwrap()] += 1;
        }
        given
    }

    /// The definition in rational numbers: tries the level of every stretch between two bends.
    fn oracle(total: usize, weights: &[f64], bounds: &[Bound], offsets: &[f64], priority: &[u64]) -> Vec<usize> {
        let ratio = |value: f64| Ratio::from_float(value).unwrap();
        let whole = |value: usize| Ratio::from_integer(Int::from(value));
        let clipped = |level: &Ratio| -> Vec<Ratio> {
            let share = |i: usize| {
                (ratio(offsets[i]) + level * ratio(weights[i])).clamp(whole(bounds[i].lower), whole(bounds[i].upper))
            };
            (0..weights.len()).map(share).collect()
        };
        let sum = |level: &Ratio| clipped(level).into_iter().sum::<Ratio>();
        let mut bends: Vec<Ratio> = Vec::new();
        for i in (0..weights.len()).filter(|&i| weights[i] > 0.0) {
            bends.push((whole(bounds[i].lower) - ratio(offsets[i])) / ratio(weights[i]));
            bends.push((whole(bounds[i].upper) - ratio(offsets[i])) / ratio(weights[i]));
        }
        bends.sort();
        let end = bends.iter().position(|bend| sum(bend) >= whole(total)).unwrap();
        let level = if sum(&bends[end]) == whole(total) {
            bends[end].clone()
        } else {
            let (low, high) = (&bends[end - 1], &bends[end]);
            low + (whole(total) - sum(low)) * (high - low) / (sum(high) - sum(low))
        };
        let exact = clipped(&level);
        assert_eq!(exact.iter().sum::<Ratio>(), whole(total));
        let mut shares: Vec<usize> = exact.iter().map(|e| e.floor().to_integer().try_into().unwrap()).collect();
        let mut order: Vec<usize> = (0..weights.len()).collect();
        order.sort_by_key(|&i| (Reverse((exact[i].fract(), priority[i])), i));
        let left = total - shares.iter().sum::<usize>();
        order[..left].iter().for_each(|&i| shares[i] += 1);
        shares
    }

    /// Few values, so that remainders tie; any value, so that nothing else decides; and those beyond 128 bits.
    fn weight() -> impl Strategy<Value = f64> {
        prop_oneof![
            (1u8..5).prop_map(f64::from),
            0.01f64..50.0,
            Just(0.0),
            Just(0.1),
            Just(5e-324),
            Just(1e-160),
            Just(1e250)
        ]
    }

    proptest! {
        #[test]
        fn equal_weights_are_served_one_at_a_time(uppers in proptest::collection::vec(0usize..30, 1..12), part in 0f64..=1.0) {
            let total = (part * uppers.iter().sum::<usize>() as f64) as usize;
            prop_assert_eq!(even(total, &uppers), one_at_a_time(total, &uppers));
        }

        #[test]
        fn shares_are_those_of_the_definition_in_rational_numbers(
            parties in proptest::collection::vec((0usize..9, 0usize..30, weight(), 0u64..3), 1..9),
            offset in proptest::option::of(-9f64..9.0),
            part in 0f64..=1.0,
        ) {
            prop_assume!(parties.iter().any(|party| party.2 > 0.0));
            let bounds: Vec<Bound> =
                parties.iter().map(|&(lower, more, ..)| Bound { lower, upper: lower + more }).collect();
            let weights: Vec<f64> = parties.iter().map(|party| party.2).collect();
            let priority: Vec<u64> = parties.iter().map(|party| party.3).collect();
            // Parties of weight 0 start at whole numbers, so that a whole total can be met.
            let start = |(i, weight): (usize, &f64)| {
                offset.map_or(0.0, |offset| if *weight > 0.0 { offset * (i as f64 + 1.0) } else { offset.floor() })
            };
            let offsets: Vec<f64> = weights.iter().enumerate().map(start).collect();
            let fixed = |i: usize| (offsets[i].max(0.0) as usize).clamp(bounds[i].lower, bounds[i].upper);
            let sum = |of: &dyn Fn(usize) -> usize| (0..bounds.len()).map(of).sum::<usize>();
            let least = sum(&|i| if weights[i] > 0.0 { bounds[i].lower } else { fixed(i) });
            let most = sum(&|i| if weights[i] > 0.0 { bounds[i].upper } else { fixed(i) });
            let total = least + (part * (most - least) as f64) as usize;
            let options = Options { offsets: Some(&offsets), priority: Some(&priority) };
            let got = apportion(total, Weights::Floats(&weights), &bounds, options).unwrap();
            prop_assert_eq!(got, oracle(total, &weights, &bounds, &offsets, &priority));
        }

        #[test]
        fn floats_and_integers_in_the_same_proportion_give_the_same(
            weights in proptest::collection::vec(0u32..1000, 1..9),
            part in 0f64..=1.0,
        ) {
            let uppers: Vec<usize> = weights.iter().map(|&weight| weight as usize).collect();
            let total = (part * uppers.iter().sum::<usize>() as f64) as usize;
            let floats: Vec<f64> = weights.iter().map(|&weight| f64::from(weight) / 1024.0).collect();
            // Large enough for big integers.
            let large: Vec<Int> = weights.iter().map(|&weight| Int::from(weight) << 200).collect();
            let run = |weights| apportion(total, weights, &bounds(&uppers), Options::default()).unwrap();
            prop_assert_eq!(run(Weights::Floats(&floats)), run(Weights::Integers(&large)));
        }

        #[test]
        fn floats_are_taken_apart_exactly(value in proptest::num::f64::ANY) {
            prop_assume!(value.is_finite());
            let (mantissa, exponent) = mantissa_exponent(value);
            let power = Ratio::from_integer(Int::from(2)).pow(exponent);
            prop_assert_eq!(Ratio::from_integer(Int::from(mantissa)) * power, Ratio::from_float(value).unwrap());
        }
    }
}
