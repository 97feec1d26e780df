//! Everything that can go wrong in the core, one variant a cause.

use std::path::PathBuf;

use thiserror::Error;

/// The result of every fallible function of the core.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong. Messages name the value, what was expected and what to do.
#[derive(Debug, Error)]
pub enum Error {
    /// An option has a value that it cannot have.
    #[error("{0}")]
    Argument(String),
    /// An array has the wrong number of dimensions or the wrong extent.
    #[error("{0}")]
    Shape(String),
    /// An array holds numbers of a kind that is not read.
    #[error("{0}")]
    Dtype(String),
    /// A budget that cannot be met.
    #[error("{0}")]
    Budget(String),
    /// Nothing to work on.
    #[error("{0}")]
    Empty(String),
    /// A row without a direction: NaN, infinite or all zero.
    #[error("row {row} {why}")]
    InvalidRow {
        /// The row's number.
        row: usize,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A centroid without a direction.
    #[error("centroid {centroid} {why}")]
    InvalidCentroid {
        /// The centroid's number.
        centroid: usize,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A file that could not be read, or is not what its name says.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's word on it.
        source: std::io::Error,
    },
    /// A file whose content is not what its format demands.
    #[error("{path}: {why}")]
    Format {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// An image that could not be decoded or reduced.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// The caller asked to stop.
    #[error("interrupted")]
    Interrupted,
    /// The system refused to start threads.
    #[error("cannot start {threads} threads: {why}")]
    Threads {
        /// How many were asked for.
        threads: usize,
        /// The system's word on it.
        why: String,
    },
}

/// Why one image yields no samples. [`ImageError::kind`] names the cause in the quarantine table.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ImageError {
    /// No bytes at all.
    #[error("the file is empty (0 bytes)")]
    Empty,
    /// The first bytes belong to no format that is read.
    #[error("not a JPEG, PNG, TIFF or WebP image (it starts with {start})")]
    UnknownFormat {
        /// The first bytes, printable.
        start: String,
    },
    /// The data ends before the image does.
    #[error("truncated {format}: {detail}")]
    Truncated {
        /// The image's format.
        format: &'static str,
        /// Where the data ended.
        detail: String,
    },
    /// The data contradicts its format.
    #[error("corrupt {format}: {detail}")]
    Corrupt {
        /// The image's format.
        format: &'static str,
        /// What contradicts it.
        detail: String,
    },
    /// A valid image of a variant that is not read.
    #[error("unsupported {format}: {detail}")]
    Unsupported {
        /// The image's format.
        format: &'static str,
        /// The variant.
        detail: String,
    },
    /// More declared pixels than the limit: a decompression bomb, or a mosaic that should be cut into tiles.
    #[error("{width} x {height} pixels are more than the limit of {limit}; cut it into tiles, or raise max_pixels")]
    TooLarge {
        /// Declared width.
        width: u64,
        /// Declared height.
        height: u64,
        /// The limit in force.
        limit: u64,
    },
    /// Every pixel is nodata.
    #[error("every pixel is nodata")]
    NoValidPixels,
    /// The bands that were asked for are not there.
    #[error("{0}")]
    Bands(String),
}

impl ImageError {
    /// The cause in one stable word.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Empty => "empty",
            Self::UnknownFormat { .. } => "unknown_format",
            Self::Truncated { .. } => "truncated",
            Self::Corrupt { .. } => "corrupt",
            Self::Unsupported { .. } => "unsupported",
            Self::TooLarge { .. } => "too_large",
            Self::NoValidPixels => "no_valid_pixels",
            Self::Bands(_) => "bands",
        }
    }
}
