//! Within groups of rows: the most similar earlier row of each, and which rows are too similar to an earlier one.
//!
//! A group is a list of rows in an order that the caller chooses; every row is compared with those before it. Groups are
//! cut into panels, the rows that come after a panel's first into blocks, and both are searched in parallel.

use std::ops::Range;

use super::{BasePanel, Options, Scratch, Source, UnionFind, Visitor, check_count};
use crate::error::{Error, Result};
use crate::linalg::Query;
use crate::rows::Rows;
use crate::runtime::parallel::Par;

/// Lists of rows.
#[derive(Debug, Clone, Copy)]
pub struct RowGroups<'g> {
    /// The rows of one group after the other.
    order: &'g [u32],
    /// Group `g` is `order[starts[g]..starts[g + 1]]`.
    starts: &'g [usize],
}

impl<'g> RowGroups<'g> {
    /// Group `g` is `order[starts[g]..starts[g + 1]]`, numbers of rows below `n`.
    ///
    /// # Errors
    /// [`Error::Argument`] when `starts` does not ascend from 0 to the end of `order`, or a number is too large.
    pub fn new(order: &'g [u32], starts: &'g [usize], n: usize) -> Result<Self> {
        let is_cut = starts.first() == Some(&0) && starts.last() == Some(&order.len()) && starts.is_sorted();
        if !is_cut {
            return Err(Error::Argument(format!("groups must start at 0, ascend, and end at {}", order.len())));
        }
        match order.iter().find(|&&row| row as usize >= n) {
            Some(row) => Err(Error::Argument(format!("row {row} of a group; there are {n} rows"))),
            None => Ok(RowGroups { order, starts }),
        }
    }

    /// Number of groups.
    pub fn count(&self) -> usize {
        self.starts.len() - 1
    }

    /// The rows of group `g`.
    pub fn rows(&self, g: usize) -> &'g [u32] {
        &self.order[self.starts[g]..self.starts[g + 1]]
    }
}

/// The largest similarity of each row of the groups, in their order, to an earlier row of its group, and at least 0.
///
/// SemDeDup (Abbas et al., 2023) removes the rows whose similarity exceeds `1 - eps`.
///
/// # Errors
/// What reading files can raise.
pub fn max_similarity_to_earlier(
    rows: &Rows<'_>,
    groups: RowGroups<'_>,
    options: Options,
    par: &Par<'_>,
) -> Result<Vec<f32>> {
    let mut nearest = vec![0f32; groups.order.len()];
    for batch in batches(groups, options.panel_rows(rows.dim())) {
        let so_far = &nearest;
        let found = search(rows, groups, &batch, options, par, |part, block| {
            let best = so_far[block.clone()].to_vec();
            Nearest { best, ahead: block.start - part.start }
        })?;
        for (block, found) in found {
            nearest[block].iter_mut().zip(found.best).for_each(|(a, b)| *a = a.max(b));
        }
    }
    Ok(nearest)
}

/// The connected components of a graph that joins rows of one group whose similarity exceeds `threshold`.
///
/// # Errors
/// What reading files can raise.
pub fn similar_components(
    rows: &Rows<'_>,
    groups: RowGroups<'_>,
    threshold: f32,
    options: Options,
    par: &Par<'_>,
) -> Result<UnionFind> {
    let components = UnionFind::new(rows.len());
    for batch in batches(groups, options.panel_rows(rows.dim())) {
        search(rows, groups, &batch, options, par, |part, block| Edges {
            components: &components,
            earlier: &groups.order[part.clone()],
            later: &groups.order[block.clone()],
            threshold,
            ahead: block.start - part.start,
        })?;
    }
    Ok(components)
}

/// Removes rows greedily: each whose similarity to an earlier row that remains exceeds `threshold`. Returns which rows of
/// the groups, in their order, remain: a maximal set in which no two are more similar than that.
///
/// # Errors
/// What reading files can raise.
pub fn greedy_dedup(
    rows: &Rows<'_>,
    groups: RowGroups<'_>,
    threshold: f32,
    options: Options,
    par: &Par<'_>,
) -> Result<Vec<bool>> {
    check_count(rows)?;
    let (dim, level) = (rows.dim(), options.level()?);
    let (size, panel_rows) = (options.block_rows(dim), options.panel_rows(dim));
    let scratch = || (Source::new(rows), Scratch::default(), Vec::new());
    let of_group = |(source, scratch, values): &mut (Source<'_>, Scratch, Vec<f32>), g: usize| -> Result<Vec<bool>> {
        let numbers = groups.rows(g);
        let mut kept = Vec::with_capacity(numbers.len());
        // Panels of what remains, and what has come since the last of them.
        let mut panels: Vec<BasePanel> = Vec::new();
        let mut recent: Vec<u32> = Vec::new();
        for block in numbers.chunks(size) {
            par.check()?;
            source.gather(block, values)?;
            let mut removed = vec![false; block.len()];
            let mut last = Vec::new();
            if !recent.is_empty() {
                let mut vectors = Vec::new();
                source.gather(&recent, &mut vectors)?;
                last.push(BasePanel::new(vectors, dim, level));
            }
            for panel in panels.iter().chain(&last) {
                panel.search(values, &mut Any { removed: &mut removed, threshold }, scratch);
            }
            let mut pairs = Pairs { found: Vec::new(), removed: &removed, threshold };
            BasePanel::new(values.clone(), dim, level).search(values, &mut pairs, scratch);
            let found = pairs.found;
            for (later, earlier) in found {
                removed[later] |= !removed[earlier];
            }
            recent.extend(block.iter().zip(&removed).filter(|(_, removed)| !**removed).map(|(row, _)| row));
            kept.extend(removed.iter().map(|removed| !removed));
            if recent.len() >= panel_rows.min(numbers.len().div_ceil(8)) {
                let mut vectors = Vec::new();
                source.gather(&recent, &mut vectors)?;
                panels.push(BasePanel::new(vectors, dim, level));
                recent.clear();
            }
        }
        Ok(kept)
    };
    Ok(par.map(groups.count(), scratch, of_group)?.concat())
}

/// Part of a group: the panel, and the end of the group.
#[derive(Debug, Clone)]
struct Part {
    panel: Range<usize>,
    end: usize,
}

/// Parts of about `panel_rows` rows, in batches of about as many.
fn batches(groups: RowGroups<'_>, panel_rows: usize) -> Vec<Vec<Part>> {
    let mut batches = vec![Vec::new()];
    let mut rows = 0;
    for group in groups.starts.windows(2) {
        for first in (group[0]..group[1]).step_by(panel_rows) {
            let panel = first..group[1].min(first + panel_rows);
            if rows + panel.len() > panel_rows {
                batches.push(Vec::new());
                rows = 0;
            }
            rows += panel.len();
            batches.last_mut().into_iter().for_each(|batch| batch.push(Part { panel: panel.clone(), end: group[1] }));
        }
    }
    batches
}

/// Searches the panels of a batch by all blocks of rows that come after their firsts.
fn search<S: Visitor + Send>(
    rows: &Rows<'_>,
    groups: RowGroups<'_>,
    batch: &[Part],
    options: Options,
    par: &Par<'_>,
    make: impl Fn(&Range<usize>, &Range<usize>) -> S + Sync + Send,
) -> Result<Vec<(Range<usize>, S)>> {
    check_count(rows)?;
    let (dim, level) = (rows.dim(), options.level()?);
    let size = options.block_rows(dim);
    let panels = par.map(
        batch.len(),
        || Source::new(rows),
        |source, i| {
            let mut vectors = Vec::new();
            source.gather(&groups.order[batch[i].panel.clone()], &mut vectors)?;
            Ok(BasePanel::new(vectors, dim, level))
        },
    )?;
    let blocks = |(part, panel)| {
        let &Part { panel: Range { start, .. }, end } = part;
        (start..end).step_by(size).map(move |first| (part, panel, first..end.min(first + size)))
    };
    let items: Vec<(&Part, &BasePanel, Range<usize>)> = batch.iter().zip(&panels).flat_map(blocks).collect();
    let scratch = || (Source::new(rows), Scratch::default(), Vec::new());
    par.map(items.len(), scratch, |(source, scratch, values), i| {
        let (part, panel, block) = &items[i];
        let mut found = make(&part.panel, block);
        if block.end <= part.panel.end {
            let inside = block.start - part.panel.start..block.end - part.panel.start;
            panel.search(panel.vectors(inside), &mut found, scratch);
        } else {
            source.gather(&groups.order[block.clone()], values)?;
            panel.search(values, &mut found, scratch);
        }
        Ok((block.clone(), found))
    })
}

struct Nearest {
    best: Vec<f32>,
    /// Vectors of the panel before the first row.
    ahead: usize,
}

impl Visitor for Nearest {
    fn query(&self, row: usize) -> Query {
        Query { floor: self.best[row], limit: self.ahead + row, best: 1 }
    }

    fn visit(&mut self, row: usize, _: usize, similarity: f32) {
        self.best[row] = self.best[row].max(similarity);
    }
}

struct Edges<'e> {
    components: &'e UnionFind,
    /// The rows of the panel and of the block.
    earlier: &'e [u32],
    later: &'e [u32],
    threshold: f32,
    ahead: usize,
}

impl Visitor for Edges<'_> {
    fn query(&self, row: usize) -> Query {
        Query { floor: self.threshold, limit: self.ahead + row, best: 0 }
    }

    fn visit(&mut self, row: usize, vector: usize, similarity: f32) {
        if similarity > self.threshold {
            self.components.union(self.later[row], self.earlier[vector]);
        }
    }
}

/// Marks the rows that have a vector above the threshold.
struct Any<'a> {
    removed: &'a mut [bool],
    threshold: f32,
}

impl Visitor for Any<'_> {
    fn query(&self, row: usize) -> Query {
        // Enough is known of a row that is removed.
        Query { floor: self.threshold, limit: if self.removed[row] { 0 } else { usize::MAX }, best: 0 }
    }

    fn visit(&mut self, row: usize, _: usize, similarity: f32) {
        self.removed[row] |= similarity > self.threshold;
    }
}

/// The pairs above the threshold among the rows of a block, as later and earlier.
struct Pairs<'p> {
    found: Vec<(usize, usize)>,
    removed: &'p [bool],
    threshold: f32,
}

impl Visitor for Pairs<'_> {
    fn query(&self, row: usize) -> Query {
        Query { floor: self.threshold, limit: if self.removed[row] { 0 } else { row }, best: 0 }
    }

    fn visit(&mut self, row: usize, vector: usize, similarity: f32) {
        if similarity > self.threshold {
            self.found.push((row, vector));
        }
    }
}
