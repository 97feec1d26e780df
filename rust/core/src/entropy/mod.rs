//! Stage I: histograms and their entropy.
