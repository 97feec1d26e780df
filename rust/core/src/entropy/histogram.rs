//! Counts of the 256 gray levels.

#[cfg(target_arch = "x86_64")]
use super::bit_sliced;
use crate::runtime::cpu::{self, Level, dispatch};

/// Levels of an 8-bit gray image.
pub const LEVELS: usize = 256;

/// Fewer levels than this are counted one by one: the vector kernel's set-up takes longer.
const FEW: usize = 1024;

/// The number of pixels of each level.
#[derive(Debug, Clone)]
pub struct Histogram {
    counts: [u64; LEVELS],
    level: Level,
}

impl Default for Histogram {
    fn default() -> Self {
        Histogram { counts: [0; LEVELS], level: cpu::active() }
    }
}

impl Histogram {
    /// Forgets everything.
    pub fn clear(&mut self) {
        self.counts = [0; LEVELS];
    }

    /// The counts so far.
    pub fn counts(&self) -> &[u64; LEVELS] {
        &self.counts
    }

    /// Counts more levels.
    pub fn add(&mut self, levels: &[u8]) {
        if levels.len() < FEW {
            count_one_by_one(&mut self.counts, levels);
        } else {
            count_many(self.level, &mut self.counts, levels);
        }
    }

    /// Takes back `count` of one level, which may be counted later.
    pub fn remove(&mut self, level: u8, count: usize) {
        let counter = &mut self.counts[usize::from(level)];
        *counter = counter.wrapping_sub(count as u64);
    }
}

dispatch! {
    /// Adds so many levels that setting up vectors pays.
    fn count_many(level: Level, counts: &mut [u64; LEVELS], levels: &[u8]) {
        Avx512Icl => {
            let rest = bit_sliced::add(counts, levels);
            count_one_by_one(counts, rest);
        },
        Scalar => levels.chunks(u32::MAX as usize).for_each(|part| count_one_by_one(counts, part)),
    }
}

/// Adds fewer than 2^32 levels.
fn count_one_by_one(counts: &mut [u64; LEVELS], levels: &[u8]) {
    if levels.is_empty() {
        return;
    }
    // Neighboring pixels mostly share a level. Four tables taken in turns keep an increment from waiting for the last
    // one of the same counter.
    let mut tables = [[0u32; LEVELS]; 4];
    let [a, b, c, d] = &mut tables;
    let (words, rest) = levels.as_chunks::<8>();
    for &word in words {
        // One load for eight levels: the ports are busy with the counters.
        let word = u64::from_le_bytes(word);
        let level = |place: u32| (word >> (8 * place)) as u8 as usize;
        a[level(0)] += 1;
        b[level(1)] += 1;
        c[level(2)] += 1;
        d[level(3)] += 1;
        a[level(4)] += 1;
        b[level(5)] += 1;
        c[level(6)] += 1;
        d[level(7)] += 1;
    }
    for &level in rest {
        a[usize::from(level)] += 1;
    }
    for table in tables {
        for (count, more) in counts.iter_mut().zip(table) {
            *count = count.wrapping_add(more.into());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn counts_by_the_book(levels: &[u8]) -> [u64; LEVELS] {
        let mut counts = [0; LEVELS];
        levels.iter().for_each(|&level| counts[usize::from(level)] += 1);
        counts
    }

    /// Long enough for the vector kernel, in blocks of any length; few levels or all of them.
    fn blocks() -> impl Strategy<Value = Vec<Vec<u8>>> {
        let level = prop_oneof![Just(any::<u8>().boxed()), Just((100..120u8).boxed()), Just(Just(255u8).boxed())];
        level.prop_flat_map(|level| prop::collection::vec(prop::collection::vec(level, 0..6000), 0..5))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(100))]
        #[test]
        fn counts_are_those_of_counting_by_the_book(blocks in blocks()) {
            for level in Level::present() {
                let mut histogram = Histogram { level, ..Histogram::default() };
                blocks.iter().for_each(|block| histogram.add(block));
                prop_assert_eq!(*histogram.counts(), counts_by_the_book(&blocks.concat()));
            }
        }
    }
}
