//! What is to be selected.

/// How the budget left over after the quotas is distributed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fill {
    /// To the best of all remaining rows, whatever their cluster: the paper.
    Global,
    /// To all clusters evenly, as far as their rows reach: see [`apportion`](super::apportion::apportion).
    Waterfill,
    /// As [`Fill::Global`], by similarity standardized within the cluster.
    Zscore,
    /// It is not: only the quotas are selected, so fewer than B rows.
    None,
}

/// Which rows of a cluster come first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Within {
    /// The most similar to the centroid: the paper.
    Nearest,
    /// The least similar.
    Far,
    /// Rows in a random order that depends on the seed.
    Random,
    /// Rows of middle rank by similarity.
    Mid,
}

/// The options of [`select`](super::select).
#[derive(Debug, Clone, Copy)]
pub struct Options<'a> {
    /// Number of clusters, K.
    pub k: usize,
    /// Number of rows to select, B.
    pub budget: usize,
    /// How the budget left over after the quotas is distributed.
    pub fill: Fill,
    /// Which rows of a cluster come first.
    pub within: Within,
    /// The seed of [`Within::Random`].
    pub seed: u64,
    /// The number by which [`Within::Random`] draws for each row, where the rows are some of many; by default its own.
    pub numbers: Option<&'a [i64]>,
    /// The number of rows of each cluster, where the rows are some of these: those that can be selected. By default
    /// they are all there are.
    pub pools: Option<&'a [usize]>,
    /// What the quotas, and the shares of [`Fill::Waterfill`], are in proportion to: `floor(B * weight / sum)` rows
    /// of each cluster. By default all are alike.
    pub weights: Option<&'a [u64]>,
    /// Rows that are never selected.
    pub exclude: &'a [i64],
    /// Rows that are always selected: they count towards B and towards their cluster's quota.
    pub preselected: &'a [i64],
    /// Whether fewer than B rows to select from are an error, instead of all being selected.
    pub strict: bool,
}

impl Options<'_> {
    /// The paper's selection of `budget` rows from `k` clusters.
    pub fn new(k: usize, budget: usize) -> Self {
        Options {
            k,
            budget,
            fill: Fill::Global,
            within: Within::Nearest,
            seed: 0,
            numbers: None,
            pools: None,
            weights: None,
            exclude: &[],
            preselected: &[],
            strict: true,
        }
    }
}
