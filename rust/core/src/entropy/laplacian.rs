//! The variance of the Laplacian of an image's gray levels, of which a blurred image has little.
//!
//! The Laplacian of a level is the sum of its four neighbors less four times itself; levels at the border have none. Its sum
//! and that of its squares are whole numbers: no kernel, and no order of the rows' pieces, shows in the result.

use crate::runtime::cpu::{Level, dispatch};

/// Squares of at most 1020² that a number of 32 bits has room for.
const ROOM: usize = 2048;

/// What is added up, over the levels that have a Laplacian.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Sums {
    count: u64,
    sum: i64,
    squares: u64,
}

impl Sums {
    /// Adds the Laplacian of all `rows` but the first and the last one. Where a level or one of its neighbors is `missing`,
    /// there is none.
    pub fn add(&mut self, level: Level, rows: &[u8], width: usize, missing: Option<u8>) {
        if width >= 3 && rows.len() >= 3 * width {
            add(level, rows, width, missing, self);
        }
    }

    /// The variance; none of an image without a level that has all four neighbors.
    pub fn variance(self) -> Option<f64> {
        let (count, sum) = (u128::from(self.count), u128::from(self.sum.unsigned_abs()));
        (count > 0).then(|| (count * u128::from(self.squares) - sum * sum) as f64 / (count * count) as f64)
    }
}

dispatch! {
    fn add(level: Level, rows: &[u8], width: usize, missing: Option<u8>, sums: &mut Sums) {
        Avx2 => match missing {
            None if width - 2 >= avx2::COLUMNS => avx2::add(rows, width, sums),
            None => portable::<false>(rows, width, 0, sums),
            Some(missing) => portable::<true>(rows, width, missing, sums),
        },
        Scalar => match missing {
            None => portable::<false>(rows, width, 0, sums),
            Some(missing) => portable::<true>(rows, width, missing, sums),
        },
    }
}

/// The portable kernel. `missing` is looked for if there may be `ANY`.
#[inline(always)]
fn portable<const ANY: bool>(rows: &[u8], width: usize, missing: u8, sums: &mut Sums) {
    for middle in (width..rows.len() - width).step_by(width) {
        for start in (1..width - 1).step_by(ROOM) {
            let (at, length) = (middle + start, ROOM.min(width - 1 - start));
            let part = |at: usize| &rows[at..][..length];
            let (above, left, here, right, below) =
                (part(at - width), part(at - 1), part(at), part(at + 1), part(at + width));
            let (mut count, mut sum, mut squares) = (0i32, 0i32, 0u32);
            for i in 0..length {
                let five = [above[i], left[i], right[i], below[i], here[i]];
                let [a, b, c, d, e] = five.map(i32::from);
                let there = !ANY || five.iter().fold(true, |there, &one| there & (one != missing));
                let laplacian = if there { a + b + c + d - 4 * e } else { 0 };
                count += i32::from(there);
                sum += laplacian;
                squares += (laplacian * laplacian) as u32;
            }
            sums.count += count as u64;
            sums.sum += i64::from(sum);
            sums.squares += u64::from(squares);
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod avx2 {
    use std::arch::x86_64::*;

    use super::Sums;

    /// Columns of a strip.
    pub const COLUMNS: usize = 32;
    /// Rows whose squares, four of at most 1020² in each of eight sums, 32 bits have room for.
    const ROWS: usize = 512;

    /// [`super::portable`] of rows of at least 34 levels, in strips of 32 columns. Vectors of 512 bits would be slower: they
    /// make the CPU slow down what decodes the image.
    #[target_feature(enable = "avx2")]
    pub fn add(rows: &[u8], width: usize, sums: &mut Sums) {
        let (inner, height) = (width - 2, rows.len() / width);
        for start in (0..inner).step_by(COLUMNS) {
            // The last strip may overlap the one before.
            let first = start.min(inner - COLUMNS);
            for top in (0..height - 2).step_by(ROWS) {
                let part = &rows[top * width..(top + ROWS + 2).min(height) * width];
                sums.squares += if first == start {
                    squares::<false>(part, width, first, 0)
                } else {
                    squares::<true>(part, width, first, start - first)
                };
            }
        }
        sums.count += (inner * (height - 2)) as u64;
        sums.sum += sum(rows, width);
    }

    /// The sum of the Laplacians. All levels cancel out but those at the border.
    fn sum(rows: &[u8], width: usize) -> i64 {
        let row = |row: &[u8]| row[1..width - 1].iter().map(|&level| u32::from(level)).map(i64::from).sum::<i64>();
        let second = row(&rows[width..]) - row(rows);
        let last = row(&rows[rows.len() - width..]) - row(&rows[rows.len() - 2 * width..]);
        let across = rows[width..rows.len() - width].chunks_exact(width).map(|row| {
            let [a, b, c, d] = [row[0], row[1], row[width - 2], row[width - 1]].map(i64::from);
            d - c - b + a
        });
        last - second + across.sum::<i64>()
    }

    /// The sum of the squares of a strip whose first column has `first` columns at its left and the border. With `PART` the
    /// first `known` columns are left out.
    #[target_feature(enable = "avx2")]
    fn squares<const PART: bool>(rows: &[u8], width: usize, first: usize, known: usize) -> u64 {
        let low = |bytes| _mm256_and_si256(bytes, _mm256_set1_epi16(0xff));
        let high = |bytes| _mm256_srli_epi16::<8>(bytes);
        // -4 of the even and 1 of the odd byte, and the other way round.
        let (even_weights, odd_weights) = (_mm256_set1_epi16(0x01fc), _mm256_set1_epi16(0xfc01_u16 as i16));
        // Columns by their words: the even ones, and the odd ones.
        let number = _mm256_setr_epi16(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
        let even_new = _mm256_cmpgt_epi16(number, _mm256_set1_epi16(known as i16 - 1));
        let odd_new = _mm256_cmpgt_epi16(number, _mm256_set1_epi16(known as i16 - 2));
        let mut squares = _mm256_setzero_si256();
        let (mut here, above) = (load(&rows[width + first + 1..]), load(&rows[first + 1..]));
        let ([mut even_above, mut odd_above], [mut even_here, mut odd_here]) =
            ([low(above), high(above)], [low(here), high(here)]);
        for y in 1..rows.len() / width - 1 {
            let row = &rows[y * width + first..][..width + COLUMNS + 1];
            let (left, right, below) = (load(row), load(&row[2..]), load(&row[width + 1..]));
            let (even_below, odd_below) = (low(below), high(below));
            let vertical = [_mm256_add_epi16(even_above, even_below), _mm256_add_epi16(odd_above, odd_below)];
            // An even level has its right neighbor beside it, an odd one its left one.
            let horizontal = [
                _mm256_add_epi16(_mm256_maddubs_epi16(here, even_weights), low(left)),
                _mm256_add_epi16(_mm256_maddubs_epi16(here, odd_weights), high(right)),
            ];
            let mut even = _mm256_add_epi16(vertical[0], horizontal[0]);
            let mut odd = _mm256_add_epi16(vertical[1], horizontal[1]);
            if PART {
                (even, odd) = (_mm256_and_si256(even, even_new), _mm256_and_si256(odd, odd_new));
            }
            let both = _mm256_add_epi32(_mm256_madd_epi16(even, even), _mm256_madd_epi16(odd, odd));
            squares = _mm256_add_epi32(squares, both);
            (even_above, odd_above, even_here, odd_here, here) = (even_here, odd_here, even_below, odd_below, below);
        }
        let mut all = [0u32; 8];
        // SAFETY: 32 writable bytes; the instruction needs no alignment.
        unsafe { _mm256_storeu_si256(all.as_mut_ptr().cast(), squares) };
        all.into_iter().map(u64::from).sum()
    }

    /// The first 32 of these levels.
    #[target_feature(enable = "avx2")]
    #[inline]
    fn load(levels: &[u8]) -> __m256i {
        let levels = &levels[..COLUMNS];
        // SAFETY: 32 readable bytes; the instruction needs no alignment.
        unsafe { _mm256_loadu_si256(levels.as_ptr().cast()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The sums, one level at a time.
    fn sums_by_the_book(levels: &[u8], width: usize, missing: Option<u8>) -> Sums {
        let (height, mut sums) = (levels.len() / width, Sums::default());
        for (y, x) in (1..height.max(2) - 1).flat_map(|y| (1..width.max(2) - 1).map(move |x| (y, x))) {
            let level = |dx: isize, dy: isize| levels[y.wrapping_add_signed(dy) * width + x.wrapping_add_signed(dx)];
            let neighbors = [level(0, -1), level(-1, 0), level(1, 0), level(0, 1)];
            if neighbors.iter().chain([&level(0, 0)]).any(|&one| Some(one) == missing) {
                continue;
            }
            let laplacian = neighbors.into_iter().map(i64::from).sum::<i64>() - 4 * i64::from(level(0, 0));
            sums.count += 1;
            sums.sum += laplacian;
            sums.squares += laplacian.pow(2) as u64;
        }
        sums
    }

    fn sums(level: Level, levels: &[u8], width: usize, missing: Option<u8>) -> Sums {
        let mut sums = Sums::default();
        sums.add(level, levels, width, missing);
        sums
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]
        #[test]
        fn sums_are_those_of_one_level_at_a_time(
            width in prop_oneof![1..10usize, 30..70usize, 1..400usize],
            height in 1..12usize,
            few in any::<bool>(),
            missing in prop_oneof![Just(None), Just(Some(0)), Just(Some(255))],
            seed in any::<u64>(),
        ) {
            let draw = |i: usize| crate::runtime::rng::hash64(seed, i as u64) as u8;
            let levels: Vec<u8> = (0..width * height).map(|i| if few { draw(i) % 2 * 255 } else { draw(i) }).collect();
            let expected = sums_by_the_book(&levels, width, missing);
            for level in Level::present() {
                prop_assert_eq!(sums(level, &levels, width, missing), expected);
            }
        }
    }

    #[test]
    fn the_highest_sums_have_room() {
        // A chessboard: every square is 1020².
        for (width, height) in [(5000, 40), (34, 1500)] {
            let levels: Vec<u8> =
                (0..width * height).map(|i| if (i / width + i % width) % 2 == 0 { 255 } else { 0 }).collect();
            let expected = sums_by_the_book(&levels, width, None);
            assert_eq!(expected.squares, (width as u64 - 2) * (height as u64 - 2) * 1020 * 1020);
            for level in Level::present() {
                assert_eq!(sums(level, &levels, width, None), expected);
            }
        }
    }

    #[test]
    fn the_variance_is_that_of_the_laplacians() {
        let mut sums = Sums::default();
        assert_eq!(sums.variance(), None);
        // Laplacians of 8 and -4.
        sums.add(Level::present().next().unwrap(), &[1, 2, 1, 2, 0, 2, 1, 2, 1, 2, 2, 2], 3, None);
        assert_eq!(sums.variance(), Some(36.0));
    }

    #[test]
    fn small_images_have_no_variance() {
        for (width, levels) in [(2, &[1u8; 40][..]), (20, &[1; 40]), (1, &[1]), (3, &[])] {
            for level in Level::present() {
                assert_eq!(sums(level, levels, width, None).variance(), None);
            }
        }
    }
}
