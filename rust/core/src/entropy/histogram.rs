//! Counts of the 256 gray levels.

/// Levels of an 8-bit gray image.
pub const LEVELS: usize = 256;

/// How many of each level were seen.
#[derive(Debug, Clone)]
pub struct Histogram {
    counts: [u64; LEVELS],
    /// Neighbouring pixels mostly share a level. Four tables taken in turns keep an increment from waiting for the last
    /// one of the same counter.
    tables: [[u32; LEVELS]; 4],
    /// Levels counted in the tables and not yet in `counts`.
    pending: usize,
}

impl Default for Histogram {
    fn default() -> Self {
        Histogram { counts: [0; LEVELS], tables: [[0; LEVELS]; 4], pending: 0 }
    }
}

impl Histogram {
    /// Forgets everything.
    pub fn clear(&mut self) {
        *self = Self::default();
    }

    /// Counts `levels`.
    pub fn add(&mut self, levels: &[u8]) {
        for part in levels.chunks(u32::MAX as usize / 2) {
            if self.pending + part.len() > u32::MAX as usize {
                self.flush();
            }
            self.pending += part.len();
            add_unrolled(&mut self.tables, part);
        }
    }

    /// The counts so far.
    pub fn counts(&mut self) -> &[u64; LEVELS] {
        self.flush();
        &self.counts
    }

    fn flush(&mut self) {
        for table in &mut self.tables {
            for (count, pending) in self.counts.iter_mut().zip(table) {
                *count += u64::from(std::mem::take(pending));
            }
        }
        self.pending = 0;
    }
}

fn add_unrolled(tables: &mut [[u32; LEVELS]; 4], levels: &[u8]) {
    let (words, rest) = levels.as_chunks::<8>();
    let [a, b, c, d] = tables;
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
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn counts_one_by_one(levels: &[u8]) -> [u64; LEVELS] {
        let mut counts = [0; LEVELS];
        levels.iter().for_each(|&level| counts[usize::from(level)] += 1);
        counts
    }

    #[test]
    fn pending_counts_are_flushed_before_they_overflow() {
        let mut histogram = Histogram::default();
        histogram.add(&[3; 8]);
        histogram.tables[0][3] = u32::MAX;
        histogram.pending = u32::MAX as usize;
        histogram.add(&[3; 8]);
        assert_eq!(histogram.counts()[3], u64::from(u32::MAX) + 6 + 8);
    }

    proptest! {
        #[test]
        fn counts_are_those_of_counting_one_by_one(blocks in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..200), 0..5)) {
            let mut histogram = Histogram::default();
            blocks.iter().for_each(|block| histogram.add(block));
            prop_assert_eq!(histogram.counts(), &counts_one_by_one(&blocks.concat()));
        }
    }
}
