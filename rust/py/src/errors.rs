//! The one table from core errors to Python classes. The classes themselves are defined in `rsprune.errors`.

use std::io::ErrorKind;

use pyo3::exceptions::{PyKeyboardInterrupt, PyRuntimeError};
use pyo3::prelude::*;
use rsprune_core::Error;
use rsprune_core::error::ImageError;

/// The exception that stands for `error`.
pub fn to_py(py: Python<'_>, error: Error) -> PyErr {
    let message = error.to_string();
    let class = match &error {
        Error::Argument(_) => "ArgumentError",
        Error::Shape(_) => "ShapeError",
        Error::Dtype(_) => "DtypeError",
        Error::Budget(_) => "BudgetError",
        Error::Empty(_) => "EmptyInputError",
        Error::InvalidRow { .. } | Error::InvalidCentroid { .. } => "InvalidRowError",
        Error::Format { .. } => "FormatError",
        Error::Image(cause) => image_class(cause),
        // An OSError built from its number becomes FileNotFoundError, PermissionError and so on by itself.
        Error::Io { path, source } => {
            return match source.raw_os_error() {
                Some(number) => {
                    let reason = std::io::Error::from_raw_os_error(number).to_string();
                    pyo3::exceptions::PyOSError::new_err((number, reason, path.clone()))
                }
                None => pyo3::exceptions::PyOSError::new_err(message),
            };
        }
        Error::Interrupted => return PyKeyboardInterrupt::new_err(()),
        Error::Threads { .. } => return PyRuntimeError::new_err(message),
    };
    raise(py, class, message)
}

/// The name of the class in `rsprune.errors` that stands for `cause`.
pub fn image_class(cause: &ImageError) -> &'static str {
    match cause {
        ImageError::Empty => "EmptyImageError",
        ImageError::UnknownFormat { .. } => "UnknownImageFormatError",
        ImageError::Truncated { .. } => "TruncatedImageError",
        ImageError::Corrupt { .. } => "CorruptImageError",
        ImageError::Unsupported { .. } => "UnsupportedImageError",
        ImageError::TooLarge { .. } => "ImageTooLargeError",
        ImageError::NoValidPixels => "NoValidPixelsError",
        ImageError::Bands(_) => "BandsError",
    }
}

/// Why an image failed, in one stable word: the `kind` of its class in `rsprune.errors`, or what the system said of its file.
pub fn failure_kind(error: &Error) -> &'static str {
    match error {
        Error::Image(cause) => cause.kind(),
        Error::Io { source, .. } => match source.kind() {
            ErrorKind::NotFound => "not_found",
            ErrorKind::PermissionDenied => "permission",
            ErrorKind::IsADirectory => "is_directory",
            _ => "io",
        },
        _ => "other",
    }
}

fn raise(py: Python<'_>, class: &str, message: String) -> PyErr {
    let build = || py.import("rsprune.errors")?.getattr(class)?.call1((&message,));
    build().map_or_else(|error| error, PyErr::from_value)
}
