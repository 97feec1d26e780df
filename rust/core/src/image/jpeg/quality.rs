//! The quality that a JPEG was saved with, told from its first quantization table.

/// The luminance table of T.81 K.1, which libjpeg scales by the quality; in natural order.
const LUMINANCE: [u32; 64] = [
    16, 11, 10, 16, 24, 40, 51, 61, 12, 12, 14, 19, 26, 58, 60, 55, 14, 13, 16, 24, 40, 57, 69, 56, 14, 17, 22, 29, 51,
    87, 80, 62, 18, 22, 37, 56, 68, 109, 103, 77, 24, 35, 55, 64, 81, 104, 113, 92, 49, 64, 78, 87, 103, 121, 120, 101,
    72, 92, 95, 98, 112, 100, 103, 99,
];

/// The sums of libjpeg's tables of the qualities 1 to 100: each is lower than the one before.
static SUMS: [u32; 100] = {
    let (mut sums, mut i) = ([0; 100], 0);
    while i < 100 {
        let quality = i as u32 + 1;
        let scale = if quality < 50 { 5000 / quality } else { 200 - 2 * quality };
        let mut j = 0;
        while j < 64 {
            let step = (LUMINANCE[j] * scale + 50) / 100;
            sums[i] += if step < 1 {
                1
            } else if step > 255 {
                255
            } else {
                step
            };
            j += 1;
        }
        i += 1;
    }
    sums
};

/// The quality, 1 to 100, whose table has the sum that is nearest to that of this one. It is the one that libjpeg was asked
/// for, and an estimate where a writer has tables of its own.
pub fn estimate(table: &[u16; 64]) -> u8 {
    let sum: u32 = table.iter().map(|&step| u32::from(step)).sum();
    let finer = SUMS.partition_point(|&other| other > sum);
    let (coarser, finer) = (finer.saturating_sub(1), finer.min(SUMS.len() - 1));
    let nearest = if SUMS[coarser].abs_diff(sum) < SUMS[finer].abs_diff(sum) { coarser } else { finer };
    nearest as u8 + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_quality_has_a_sum_of_its_own() {
        assert!(SUMS.windows(2).all(|pair| pair[0] > pair[1]));
        assert_eq!((SUMS[49], SUMS[99]), (LUMINANCE.iter().sum(), 64));
    }

    #[test]
    fn tables_of_libjpeg_have_their_quality_and_others_the_nearest() {
        assert_eq!(estimate(&LUMINANCE.map(|step| step as u16)), 50);
        assert_eq!(estimate(&[1; 64]), 100);
        assert_eq!(estimate(&[0; 64]), 100);
        assert_eq!(estimate(&[u16::MAX; 64]), 1);
        let mut almost = LUMINANCE.map(|step| step as u16);
        almost[63] += 1;
        assert_eq!(estimate(&almost), 50);
    }
}
