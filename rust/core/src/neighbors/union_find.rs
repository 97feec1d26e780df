//! Connected components by disjoint-set union, from many threads.

use std::sync::atomic::{AtomicU32, Ordering};

/// Disjoint sets of numbers. A set's root is its lowest number, so that no order of joins shows.
#[derive(Debug)]
pub struct UnionFind {
    /// A lower number of the set, or itself.
    parents: Vec<AtomicU32>,
}

impl UnionFind {
    /// Makes `n` sets of one number each.
    pub fn new(n: usize) -> Self {
        UnionFind { parents: (0..n as u32).map(AtomicU32::new).collect() }
    }

    /// The lowest number of the set of `i`.
    fn root(&self, mut i: u32) -> u32 {
        loop {
            let parent = self.parents[i as usize].load(Ordering::Relaxed);
            let above = self.parents[parent as usize].load(Ordering::Relaxed);
            if parent == above {
                return parent;
            }
            // Halves the path. Whoever else writes here writes a number of the same set, and lower.
            self.parents[i as usize].fetch_min(above, Ordering::Relaxed);
            i = above;
        }
    }

    /// Joins the sets of `a` and `b`.
    pub fn union(&self, a: u32, b: u32) {
        let (mut a, mut b) = (self.root(a), self.root(b));
        while a != b {
            let (low, high) = (a.min(b), a.max(b));
            // Only a root is hung below another: a number that has ceased to be one is looked up again.
            let hung = self.parents[high as usize].compare_exchange(high, low, Ordering::Relaxed, Ordering::Relaxed);
            if hung.is_ok() {
                return;
            }
            (a, b) = (self.root(low), self.root(high));
        }
    }

    /// The lowest number of the set of each number.
    pub fn roots(&self) -> Vec<u32> {
        (0..self.parents.len() as u32).map(|i| self.root(i)).collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::runtime::parallel::Par;

    proptest! {
        #[test]
        fn roots_are_the_lowest_that_edges_reach(edges in proptest::collection::vec((0u32..60, 0u32..60), 0..90)) {
            let mut expected: Vec<u32> = (0..60).collect();
            for _ in 0..60 {
                for &(a, b) in &edges {
                    let low = expected[a as usize].min(expected[b as usize]);
                    (expected[a as usize], expected[b as usize]) = (low, low);
                }
            }
            for threads in [1, 3] {
                let sets = UnionFind::new(60);
                let union = |(): &mut (), i: usize| { sets.union(edges[i].0, edges[i].1); Ok(()) };
                Par::new(Some(threads)).map(edges.len(), || (), union).unwrap();
                prop_assert_eq!(sets.roots(), expected.clone());
            }
        }
    }
}
