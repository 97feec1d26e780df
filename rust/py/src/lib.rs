//! `rsprune._core`: conversions between Python and rsprune-core, one file a core module, and nothing else.
#![allow(missing_docs, reason = "the docstrings that users read are those of the Python package")]

mod assign;
mod cpu;
mod entropy;
mod errors;
mod gil;
mod herding;
mod images;
mod kmeans;
mod math;
mod medians;
mod neighbors;
mod rng;
mod rows;
mod select;

use pyo3::prelude::*;

#[pymodule]
mod _core {
    #[pymodule_export]
    use super::assign::{Centroids, assign};
    #[pymodule_export]
    use super::cpu::cpu_features;
    #[pymodule_export]
    use super::entropy::{entropy_arrays, entropy_images, score_images};
    #[pymodule_export]
    use super::herding::herd;
    #[pymodule_export]
    use super::images::{decode_images, preprocess_images, sample_values};
    #[pymodule_export]
    use super::kmeans::{Clustering, kmeans};
    #[pymodule_export]
    use super::math::softmax;
    #[pymodule_export]
    use super::medians::{distances, medians};
    #[pymodule_export]
    use super::neighbors::{
        facility_location, facility_location_on_graph, farthest_first, graph_components, greedy_dedup, knn,
        max_similarity_to_earlier, pass_messages, similar_components,
    };
    #[pymodule_export]
    use super::rng::{hash_strings, hash64};
    #[pymodule_export]
    use super::rows::{Rows, dots, take_rows, valid};
    #[pymodule_export]
    use super::select::{Selection, apportion, select};

    /// The version of the compiled core.
    #[pymodule_export]
    const VERSION: &str = env!("CARGO_PKG_VERSION");
}
