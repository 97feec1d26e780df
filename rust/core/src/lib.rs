//! The algorithms of rsprune, without Python.
//!
//! | module | what it holds |
//! | --- | --- |
//! | [`image`] | decoding of encoded images to samples, their reduction to gray, and resizing |
//! | [`entropy`] | Stage I: histograms and their entropy |
//! | [`rows`] | embeddings where they lie: arrays, memory maps, `.npy` files, shards |
//! | [`assign`] | Stage II: the nearest centroid of every row, exactly |
//! | [`select`] | Stage II: which rows a budget keeps |
//! | [`neighbors`] | similar rows: near-duplicates, k-center, facility location |
//! | [`kmeans`] | reference centroids by spherical K-means |
//! | [`herding`], [`medians`] | rows in groups, as other selection methods see them |
//! | [`math`] | functions of plain numbers |
//! | [`linalg`] | products of rows with columns: exact ones, and whole-number ones with bounds on their error |
//! | `simd` | vectors in the registers of each instruction set |
//! | [`runtime`], [`files`], [`error`] | threads, the choice of kernels, random numbers; opening files; errors |
//!
//! Every result is a function of its input and seed alone: no thread count, block size or instruction set shows in it.

pub mod assign;
pub mod entropy;
pub mod error;
pub mod files;
pub mod herding;
pub mod image;
pub mod kmeans;
pub mod linalg;
pub mod math;
pub mod medians;
pub mod neighbors;
pub mod rows;
pub mod runtime;
pub mod select;
mod simd;

pub use error::{Error, Result};
pub use runtime::parallel::Par;
