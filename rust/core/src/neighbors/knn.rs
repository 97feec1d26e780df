//! The k most similar rows of every row.

use super::{BasePanel, Options, Scratch, Source, Visitor, check_count, check_dim};
use crate::error::{Error, Result};
use crate::linalg::Query;
use crate::rows::Rows;
use crate::runtime::parallel::Par;

/// A row of the base, and how similar it is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Neighbor {
    /// Its number, or [`NO_ROW`].
    pub row: u32,
    /// The similarity, or NaN.
    pub similarity: f32,
}

/// The number of a neighbor that is missing, since the base has too few rows with a direction.
pub const NO_ROW: u32 = u32::MAX;

const MISSING: Neighbor = Neighbor { row: NO_ROW, similarity: f32::NAN };

/// The `k` rows of `base` that are most similar to each of `queries`, by (similarity descending, number ascending): `k`
/// neighbors a query, one query after the other. With `exclude_self` a query does not find the row of its own number.
///
/// # Errors
/// [`Error::Argument`] for `k` of 0, [`Error::Shape`] when the dimensions differ, and what reading files can raise.
pub fn knn(
    queries: &Rows<'_>,
    base: &Rows<'_>,
    k: usize,
    exclude_self: bool,
    options: Options,
    par: &Par<'_>,
) -> Result<Vec<Neighbor>> {
    if k == 0 {
        return Err(Error::Argument("k is 0; expected at least 1 neighbor".into()));
    }
    check_dim(queries, base)?;
    check_count(base)?;
    let (dim, level) = (base.dim(), options.level()?);
    let size = options.block_rows(dim);
    let mut neighbors = vec![MISSING; queries.len() * k];
    let mut source = Source::new(base);
    for first in (0..base.len()).step_by(options.panel_rows(dim)) {
        let end = base.len().min(first + options.panel_rows(dim));
        let panel = BasePanel::new(source.read(first..end)?.to_vec(), dim, level);
        let scratch = || (Source::new(queries), Scratch::default());
        par.for_blocks(&mut neighbors, size * k, scratch, |(source, scratch), i, block| {
            let query = i * size;
            let rows = source.read(query..query + block.len() / k)?;
            let query = exclude_self.then_some(query);
            panel.search(rows, &mut Best { lists: block, k, first, query }, scratch);
            Ok(())
        })?;
    }
    Ok(neighbors)
}

/// The best neighbors of a block of queries so far.
struct Best<'b> {
    /// `k` a query, best first, [`MISSING`] at the end.
    lists: &'b mut [Neighbor],
    k: usize,
    /// The number of the first row of the panel.
    first: usize,
    /// The number of the first query, if none may find its own row.
    query: Option<usize>,
}

impl Visitor for Best<'_> {
    fn query(&self, row: usize) -> Query {
        let last = self.lists[(row + 1) * self.k - 1];
        let is_full = last.row != NO_ROW;
        Query {
            floor: if is_full { last.similarity } else { f32::NEG_INFINITY },
            limit: usize::MAX,
            // One may be the query itself.
            best: if is_full { 0 } else { self.k + usize::from(self.query.is_some()) },
        }
    }

    fn visit(&mut self, row: usize, vector: usize, similarity: f32) {
        let number = self.first + vector;
        if self.query.is_some_and(|query| query + row == number) {
            return;
        }
        let list = &mut self.lists[row * self.k..(row + 1) * self.k];
        // Numbers ascend, so that equals go behind.
        let place = list.partition_point(|other| other.row != NO_ROW && other.similarity >= similarity);
        if place < self.k {
            list.copy_within(place..self.k - 1, place + 1);
            list[place] = Neighbor { row: number as u32, similarity };
        }
    }
}
