//! Takes an image's gray levels as they come, for all that is measured of them.

use super::histogram::{Histogram, LEVELS};
use super::laplacian::Sums;
use crate::image::{Header, LevelSink};
use crate::runtime::cpu::{self, Level};

/// Levels collected before they are looked at.
const COLLECTED: usize = 1 << 14;
/// What one image leaves of the buffer to the next. The rest is given back.
const KEPT: usize = 1 << 20;

/// The histogram of an image's levels, and the sums of their Laplacian if these are asked for.
#[derive(Debug, Clone)]
pub struct Levels {
    level: Level,
    header: Header,
    histogram: Histogram,
    laplacian: Option<Sums>,
    /// The levels that are collected; with the Laplacian, behind the rows that it still needs.
    rows: Vec<u8>,
    /// How many of `rows` the histogram has counted.
    counted: usize,
}

impl Default for Levels {
    fn default() -> Self {
        Levels {
            level: cpu::active(),
            header: Header::default(),
            histogram: Histogram::default(),
            laplacian: None,
            rows: Vec::with_capacity(COLLECTED),
            counted: 0,
        }
    }
}

impl Levels {
    /// Those of which the Laplacian is wanted, too.
    pub fn with_laplacian() -> Self {
        Levels { laplacian: Some(Sums::default()), ..Levels::default() }
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.start(Header::default());
        self.histogram.clear();
    }

    /// What was said of the image before its levels.
    pub fn header(&self) -> Header {
        self.header
    }

    /// The number of pixels of each level so far.
    pub fn counts(&mut self) -> &[u64; LEVELS] {
        self.flush();
        self.histogram.counts()
    }

    /// The variance of the Laplacian; none where it was not asked for, and of an image that has none.
    pub fn sharpness(&mut self) -> Option<f64> {
        self.flush();
        self.laplacian.and_then(Sums::variance)
    }

    /// Looks at what was collected.
    fn flush(&mut self) {
        self.histogram.add(&self.rows[self.counted..]);
        match &mut self.laplacian {
            Some(laplacian) => {
                let width = self.header.width.max(1);
                let whole = self.rows.len() / width;
                laplacian.add(self.level, &self.rows[..whole * width], width, self.header.missing);
                // The last row waits for the one below, and needs the one above.
                self.rows.drain(..whole.saturating_sub(2) * width);
            }
            None => self.rows.clear(),
        }
        self.counted = self.rows.len();
    }

    /// How many levels are looked at at a time: of wide images some rows, so that few are looked for twice.
    fn block(&self) -> usize {
        match self.laplacian {
            Some(_) => COLLECTED.max(4 * self.header.width),
            None => COLLECTED,
        }
    }
}

impl LevelSink for Levels {
    fn start(&mut self, header: Header) {
        self.header = header;
        self.rows.clear();
        self.rows.shrink_to(KEPT);
        self.counted = 0;
        self.laplacian = self.laplacian.map(|_| Sums::default());
    }

    fn add(&mut self, levels: &[u8]) {
        if self.laplacian.is_none() && levels.len() >= COLLECTED {
            return self.histogram.add(levels);
        }
        for part in levels.chunks(self.block()) {
            self.add_with(part.len(), |to| to.copy_from_slice(part));
        }
    }

    fn add_with(&mut self, number: usize, write: impl FnOnce(&mut [u8])) {
        let start = self.rows.len();
        self.rows.resize(start + number, 0);
        write(&mut self.rows[start..]);
        if self.rows.len() - self.counted >= self.block() {
            self.flush();
        }
    }

    fn remove(&mut self, level: u8, count: usize) {
        self.histogram.remove(level, count);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(levels: &[(u8, u64)]) -> [u64; LEVELS] {
        let mut counts = [0; LEVELS];
        levels.iter().for_each(|&(level, count)| counts[usize::from(level)] = count);
        counts
    }

    #[test]
    fn what_is_removed_may_still_be_waiting() {
        let mut levels = Levels::default();
        levels.add(&[7, 9, 7, 7]);
        levels.remove(7, 2);
        levels.add(&[9; 20_000]);
        assert_eq!(*levels.counts(), counts(&[(7, 1), (9, 20_001)]));
    }

    #[test]
    fn nothing_is_left_of_what_was_forgotten() {
        let mut levels = Levels::default();
        levels.add(&[7; 5000]);
        levels.clear();
        levels.add(&[9; 3]);
        assert_eq!(*levels.counts(), counts(&[(9, 3)]));
    }

    #[test]
    fn large_pieces_keep_their_place_among_small_ones() {
        let (width, height) = (1 << 14, 7);
        let image: Vec<u8> = (0..width * height).map(|i| crate::runtime::rng::hash64(1, i as u64) as u8).collect();
        let sharpness = |sizes: &[usize]| {
            let (mut levels, mut rest) = (Levels::with_laplacian(), &image[..]);
            levels.start(Header { width, height, ..Header::default() });
            for &size in sizes.iter().cycle() {
                let (piece, after) = rest.split_at(size.min(rest.len()));
                levels.add(piece);
                rest = after;
                if rest.is_empty() {
                    return levels.sharpness();
                }
            }
            None
        };
        let whole = sharpness(&[image.len()]);
        assert!(whole.is_some());
        assert_eq!(sharpness(&[100, 20_000, 3]), whole);
    }
}
