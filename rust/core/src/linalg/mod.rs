//! Products of rows with columns: exact ones, and whole-number ones with a bound on their error.
//!
//! | module | what it holds |
//! | --- | --- |
//! | [`dot`] | the dot product that defines every result |
//! | [`norm`] | norms of rows, also of those whose squares leave the range of float64 |
//! | [`exact_gemm`] | that dot product for matrices |
//! | [`quantize`] | rows as whole numbers of 8 or 16 bits |
//! | [`int_gemm`] | their products, in 32 bits |
//! | [`packed`] | columns as whole numbers |
//! | [`bounds`] | intervals of scores, and the columns that they cannot exclude |
//! | [`refine`] | the same of single pairs, with more bits |
//! | [`nearest`] | candidates for the nearest column of each row |
//! | [`bounded_search`] | candidates for columns above a threshold |
//! | [`quantized_rows`] | rows in memory that are assigned again and again |
//!
//! The last three exclude what cannot be the answer, and exact products decide among the rest: no result depends on the
//! number of bits, on the instruction set or on the size of a block.

mod bounded_search;
mod bounds;
pub mod dot;
pub(crate) mod exact_gemm;
mod int_gemm;
pub(crate) mod nearest;
pub(crate) mod norm;
mod packed;
mod quantize;
pub(crate) mod quantized_rows;
mod refine;
#[cfg(test)]
mod tests;

pub(crate) use bounded_search::{BoundedSearch, PANEL_COLUMNS, Query, RowNorm, SearchScratch};
