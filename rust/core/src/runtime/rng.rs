//! Seeded draws that depend on nothing but a seed and a counter, so that no block size or thread count shows in them.

/// The `counter`-th 64-bit draw of the stream `seed`: SplitMix64 (Steele, Lea, Flood 2014) addressed by position.
pub fn hash64(seed: u64, counter: u64) -> u64 {
    // The seed is mixed first: seeds 0, 1, 2 must not be shifted copies of one stream.
    mix(mix(seed ^ GOLDEN).wrapping_add(counter.wrapping_add(1).wrapping_mul(GOLDEN)))
}

/// The `counter`-th uniform draw of the stream `seed`, in [0, 1), a multiple of 2^-53.
pub fn uniform(seed: u64, counter: u64) -> f64 {
    (hash64(seed, counter) >> 11) as f64 * (1.0 / (1u64 << 53) as f64)
}

const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_are_those_of_splitmix64() {
        // Known answers of SplitMix64 with state 1234567: our stream starts from a mixed seed, so unmix by hand.
        let state = 1_234_567u64;
        let next = |n: u64| mix(state.wrapping_add(n.wrapping_mul(GOLDEN)));
        assert_eq!(next(1), 6_457_827_717_110_365_317);
        assert_eq!(next(2), 3_203_168_211_198_807_973);
    }

    #[test]
    fn uniform_fills_the_unit_interval_evenly() {
        let n = 100_000;
        let draws: Vec<f64> = (0..n).map(|i| uniform(7, i)).collect();
        assert!(draws.iter().all(|u| (0.0..1.0).contains(u)));
        let mean = draws.iter().sum::<f64>() / n as f64;
        assert!((mean - 0.5).abs() < 0.005, "mean {mean}");
    }

    #[test]
    fn seeds_give_unrelated_streams() {
        let same = (0..1000).filter(|&i| hash64(0, i + 1) == hash64(1, i)).count();
        assert_eq!(same, 0);
    }
}
