//! Counts of the 256 gray levels.

#[cfg(target_arch = "x86_64")]
use super::bit_sliced;
use crate::image::LevelSink;
use crate::runtime::cpu::{self, Level, dispatch};

/// Levels of an 8-bit gray image.
pub const LEVELS: usize = 256;

/// Levels collected before they are counted, where they come in small pieces.
const COLLECTED: usize = 1 << 14;
/// Fewer levels than this are counted one by one: the vector kernel's set-up takes longer.
const FEW: usize = 1024;

/// The number of pixels of each level.
#[derive(Debug, Clone)]
pub struct Histogram {
    counts: [u64; LEVELS],
    /// Levels that are not in `counts` yet.
    waiting: Vec<u8>,
    level: Level,
}

impl Default for Histogram {
    fn default() -> Self {
        Histogram { counts: [0; LEVELS], waiting: Vec::with_capacity(COLLECTED), level: cpu::active() }
    }
}

impl Histogram {
    /// Forgets everything.
    pub fn clear(&mut self) {
        self.counts = [0; LEVELS];
        self.waiting.clear();
    }

    /// The counts so far.
    pub fn counts(&mut self) -> &[u64; LEVELS] {
        self.flush();
        &self.counts
    }

    fn flush(&mut self) {
        count(self.level, &mut self.counts, &self.waiting);
        self.waiting.clear();
    }
}

impl LevelSink for Histogram {
    fn add(&mut self, levels: &[u8]) {
        if levels.len() >= COLLECTED {
            count(self.level, &mut self.counts, levels);
        } else {
            self.add_with(levels.len(), |to| to.copy_from_slice(levels));
        }
    }

    fn add_with(&mut self, number: usize, write: impl FnOnce(&mut [u8])) {
        let start = self.waiting.len();
        self.waiting.resize(start + number, 0);
        write(&mut self.waiting[start..]);
        if self.waiting.len() >= COLLECTED {
            self.flush();
        }
    }

    fn remove(&mut self, level: u8, count: usize) {
        // The levels may still be waiting.
        let counter = &mut self.counts[usize::from(level)];
        *counter = counter.wrapping_sub(count as u64);
    }
}

/// Adds `levels` to `counts`.
fn count(level: Level, counts: &mut [u64; LEVELS], levels: &[u8]) {
    if levels.len() < FEW {
        count_one_by_one(counts, levels);
    } else {
        count_many(level, counts, levels);
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

    #[test]
    fn what_is_removed_may_still_be_waiting() {
        let mut histogram = Histogram::default();
        histogram.add(&[7, 9, 7, 7]);
        histogram.remove(7, 2);
        histogram.add(&[9; 20_000]);
        assert_eq!(*histogram.counts(), counts_by_the_book(&[&[7][..], &[9; 20_001]].concat()));
    }

    #[test]
    fn nothing_is_left_of_what_was_forgotten() {
        let mut histogram = Histogram::default();
        histogram.add(&[7; 5000]);
        histogram.clear();
        histogram.add(&[9; 3]);
        assert_eq!(*histogram.counts(), counts_by_the_book(&[9; 3]));
    }
}
