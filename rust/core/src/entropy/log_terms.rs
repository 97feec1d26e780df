//! The terms of the entropy sum, remembered.

use super::{LEVELS, term};

/// Counts whose terms are remembered: most of those of an image of usual size.
const REMEMBERED: usize = 2048;

/// The terms `p log2 p` by count, for one number of pixels. Images mostly come in one size, and a logarithm takes longer
/// than all else that is done for a level.
#[derive(Debug)]
pub struct LogTerms {
    total: u64,
    /// NaN where it has not been needed yet.
    terms: Vec<f64>,
}

impl Default for LogTerms {
    fn default() -> Self {
        LogTerms { total: 0, terms: vec![f64::NAN; REMEMBERED] }
    }
}

impl LogTerms {
    /// The entropy of a histogram: that of [`super::entropy_from_counts`], to the bit.
    pub fn entropy(&mut self, counts: &[u64; LEVELS]) -> Option<f64> {
        let total = counts.iter().sum();
        if total == 0 {
            return None;
        }
        if total != self.total {
            self.total = total;
            self.terms.fill(f64::NAN);
            // No pixels have no share, and take nothing from the sum.
            self.terms[0] = 0.0;
        }
        Some(counts.iter().fold(0.0, |sum, &count| sum - self.term(count)))
    }

    #[inline]
    fn term(&mut self, count: u64) -> f64 {
        let Some(known) = usize::try_from(count).ok().and_then(|count| self.terms.get_mut(count)) else {
            return term(count, self.total);
        };
        if known.is_nan() {
            *known = term(count, self.total);
        }
        *known
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::entropy_from_counts;
    use super::*;

    proptest! {
        #[test]
        fn remembered_terms_change_no_bit(
            images in prop::collection::vec(prop::collection::vec(prop_oneof![Just(0), 0u64..9, 0u64..5000], LEVELS), 1..4),
            order in prop::collection::vec(any::<prop::sample::Index>(), 1..8),
        ) {
            let mut terms = LogTerms::default();
            for i in order {
                let counts: [u64; LEVELS] = images[i.index(images.len())].clone().try_into().unwrap();
                prop_assert_eq!(terms.entropy(&counts).map(f64::to_bits), entropy_from_counts(&counts).map(f64::to_bits));
            }
        }
    }

    #[test]
    fn no_counts_have_no_entropy() {
        assert_eq!(LogTerms::default().entropy(&[0; LEVELS]), None);
    }
}
