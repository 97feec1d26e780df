//! `rsprune._core`: conversions between Python and rsprune-core, one file a core module, and nothing else.
#![allow(missing_docs, reason = "the docstrings that users read are those of the Python package")]

mod assign;
mod cluster;
mod cpu;
mod door;
mod entropy;
mod errors;
mod groups;
mod images;
mod neighbors;
mod rows;
mod seed;
mod select;

use pyo3::prelude::*;

#[pymodule]
mod _core {
    #[pymodule_export]
    use super::assign::{Centroids, assign_rows};
    #[pymodule_export]
    use super::cluster::fit_rows;
    #[pymodule_export]
    use super::cpu::cpu_features;
    #[pymodule_export]
    use super::entropy::{entropy_arrays, entropy_images};
    #[pymodule_export]
    use super::groups::{group_distances, group_medians, herd_rows, row_dots, softmax, valid_rows};
    #[pymodule_export]
    use super::images::{decode_images, preprocess_images};
    #[pymodule_export]
    use super::neighbors::{
        earlier_similarity, facility_neighbours, facility_rows, farthest_rows, nearest_rows, neighbour_components,
        pass_messages, separated_rows, similar_components,
    };
    #[pymodule_export]
    use super::rows::{Rows, take_rows};
    #[pymodule_export]
    use super::seed::draws;
    #[pymodule_export]
    use super::select::{RankHistogram, Selection, apportion, select};

    /// The version of the compiled core.
    #[pymodule_export]
    const VERSION: &str = env!("CARGO_PKG_VERSION");
}
