//! The errors of the core, one variant for each cause.

use std::path::PathBuf;

use thiserror::Error;

/// The result of every fallible function of the core.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error. Messages name the value, the expectation and the remedy.
#[derive(Debug, Error)]
pub enum Error {
    /// An argument with an invalid value.
    #[error("{0}")]
    Argument(String),
    /// An array of the wrong shape.
    #[error("{0}")]
    Shape(String),
    /// An array of a dtype that is not supported.
    #[error("{0}")]
    Dtype(String),
    /// A budget that cannot be met.
    #[error("{0}")]
    Budget(String),
    /// An input without rows.
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
    /// A file that could not be read.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// The OS error message.
        source: std::io::Error,
    },
    /// A pipe, a device or a socket, whose reading may never end.
    #[error("{path} is a {}; only regular files are read", kind.replace('_', " "))]
    NotRegular {
        /// What the path leads to.
        path: PathBuf,
        /// Its kind in one stable word: "fifo", "character_device", "block_device" or "socket".
        kind: &'static str,
    },
    /// A file whose content violates its format.
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
    /// The OS did not start as many threads.
    #[error("cannot start {threads} threads: {why}")]
    Threads {
        /// How many were asked for.
        threads: usize,
        /// The OS error message.
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
    #[error("not an image of a format that is read, but {name}")]
    UnknownFormat {
        /// The format's name, or what kind of file it is.
        name: String,
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
    /// A larger file than the limit; it was not read.
    #[error("{bytes} bytes are more than the limit of {limit}; cut the image into tiles, or raise max_bytes")]
    TooManyBytes {
        /// The size of the encoded image.
        bytes: u64,
        /// The limit in force.
        limit: u64,
    },
    /// Not as much memory as the pixels take.
    #[error("there is no memory for {bytes} bytes of pixels")]
    OutOfMemory {
        /// How much was asked for.
        bytes: u64,
    },
    /// The caller has asked to stop while the image was read.
    #[error("interrupted")]
    Interrupted,
    /// Every pixel is nodata.
    #[error("every pixel is nodata")]
    NoValidPixels,
    /// The bands that were asked for are not there.
    #[error("{0}")]
    Bands(String),
    /// Samples of more than 8 bits that came without their range: taken for the whole one, they would be all but black; or with
    /// one that they cannot be of.
    #[error("{0}")]
    ValueRange(String),
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
            Self::TooManyBytes { .. } => "too_many_bytes",
            Self::OutOfMemory { .. } => "out_of_memory",
            Self::Interrupted => "interrupted",
            Self::NoValidPixels => "no_valid_pixels",
            Self::Bands(_) => "bands",
            Self::ValueRange(_) => "value_range",
        }
    }
}
