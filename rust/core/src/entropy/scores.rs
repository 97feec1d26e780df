//! Simple properties of an image, which tell the dark, the blurred, the odd-sized and the poorly compressed ones.

use super::LEVELS;
use super::levels::Levels;

/// What the decoding pass of Stage I tells of an image beside its entropy.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Scores {
    /// Pixels in a row.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// The mean of the gray levels.
    pub mean: f64,
    /// Their standard deviation.
    pub deviation: f64,
    /// The variance of their Laplacian; none of an image that is nowhere three pixels wide and high.
    pub sharpness: Option<f64>,
    /// The quality that a JPEG was saved with, 1 to 100.
    pub jpeg_quality: Option<u8>,
}

impl Scores {
    /// Those of an image that has pixels. The sums are whole numbers: nothing but the last steps is rounded.
    pub fn of(levels: &mut Levels) -> Self {
        let sharpness = levels.sharpness();
        let (mean, deviation) = moments(levels.counts());
        let header = levels.header();
        let (width, height, jpeg_quality) = (header.width, header.height, header.jpeg_quality);
        Scores { width, height, mean, deviation, sharpness, jpeg_quality }
    }
}

/// Mean and standard deviation of the levels of a histogram.
fn moments(counts: &[u64; LEVELS]) -> (f64, f64) {
    let (mut count, mut first, mut second) = (0, 0, 0);
    for (&number, level) in counts.iter().zip(0u64..) {
        count += number;
        first += number * level;
        second += number * level * level;
    }
    let [n, sum, squares] = [count, first, second].map(u128::from);
    let variance = (n * squares - sum * sum) as f64 / (n * n) as f64;
    (first as f64 / count as f64, variance.sqrt())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_those_of_all_levels() {
        let mut counts = [0; LEVELS];
        for level in [2, 4, 4, 4, 5, 5, 7, 9] {
            counts[level] += 1;
        }
        assert_eq!(moments(&counts), (5.0, 2.0));
        let mut flat = [0; LEVELS];
        flat[255] = u64::from(u32::MAX);
        assert_eq!(moments(&flat), (255.0, 0.0));
    }
}
