//! The one table from core errors to Python classes. The classes themselves are defined in `rsprune.errors`.

use std::io::ErrorKind;

use pyo3::exceptions::{PyKeyboardInterrupt, PyOSError, PyRuntimeError};
use pyo3::prelude::*;
use pyo3::types::PyType;
use rsprune_core::Error;
use rsprune_core::error::ImageError;

/// The classes of `rsprune.errors`, each imported once.
mod python {
    use pyo3::import_exception;

    import_exception!(rsprune.errors, ArgumentError);
    import_exception!(rsprune.errors, ShapeError);
    import_exception!(rsprune.errors, DtypeError);
    import_exception!(rsprune.errors, BudgetError);
    import_exception!(rsprune.errors, EmptyInputError);
    import_exception!(rsprune.errors, InvalidRowError);
    import_exception!(rsprune.errors, FormatError);
    import_exception!(rsprune.errors, NotRegularFileError);
    import_exception!(rsprune.errors, EmptyImageError);
    import_exception!(rsprune.errors, UnknownImageFormatError);
    import_exception!(rsprune.errors, TruncatedImageError);
    import_exception!(rsprune.errors, CorruptImageError);
    import_exception!(rsprune.errors, UnsupportedImageError);
    import_exception!(rsprune.errors, ImageTooLargeError);
    import_exception!(rsprune.errors, EncodedTooLargeError);
    import_exception!(rsprune.errors, ImageMemoryError);
    import_exception!(rsprune.errors, NoValidPixelsError);
    import_exception!(rsprune.errors, BandsError);
    import_exception!(rsprune.errors, ValueRangeError);
}

/// The Python exception for `error`.
pub fn to_py(py: Python<'_>, error: Error) -> PyErr {
    let message = error.to_string();
    let class = match &error {
        Error::Argument(_) => py.get_type::<python::ArgumentError>(),
        Error::Shape(_) => py.get_type::<python::ShapeError>(),
        Error::Dtype(_) => py.get_type::<python::DtypeError>(),
        Error::Budget(_) => py.get_type::<python::BudgetError>(),
        Error::Empty(_) => py.get_type::<python::EmptyInputError>(),
        Error::InvalidRow { .. } | Error::InvalidCentroid { .. } => py.get_type::<python::InvalidRowError>(),
        Error::NotRegular { .. } => py.get_type::<python::NotRegularFileError>(),
        Error::Format { .. } => py.get_type::<python::FormatError>(),
        Error::Image(cause) => image_class(py, cause),
        // An OSError built from its number becomes FileNotFoundError, PermissionError and so on by itself.
        Error::Io { path, source } => {
            return match source.raw_os_error() {
                Some(number) => {
                    let reason = std::io::Error::from_raw_os_error(number).to_string();
                    PyOSError::new_err((number, reason, path.display().to_string()))
                }
                None => PyOSError::new_err(message),
            };
        }
        Error::Interrupted => return PyKeyboardInterrupt::new_err(()),
        Error::Threads { .. } => return PyRuntimeError::new_err(message),
    };
    PyErr::from_type(class, message)
}

/// The class of an image that cannot be used.
fn image_class<'py>(py: Python<'py>, cause: &ImageError) -> Bound<'py, PyType> {
    match cause {
        ImageError::Empty => py.get_type::<python::EmptyImageError>(),
        ImageError::UnknownFormat { .. } => py.get_type::<python::UnknownImageFormatError>(),
        ImageError::Truncated { .. } => py.get_type::<python::TruncatedImageError>(),
        ImageError::Corrupt { .. } => py.get_type::<python::CorruptImageError>(),
        ImageError::Unsupported { .. } => py.get_type::<python::UnsupportedImageError>(),
        ImageError::TooLarge { .. } => py.get_type::<python::ImageTooLargeError>(),
        ImageError::TooManyBytes { .. } => py.get_type::<python::EncodedTooLargeError>(),
        ImageError::OutOfMemory { .. } => py.get_type::<python::ImageMemoryError>(),
        ImageError::Interrupted => py.get_type::<PyKeyboardInterrupt>(),
        ImageError::NoValidPixels => py.get_type::<python::NoValidPixelsError>(),
        ImageError::Bands(_) => py.get_type::<python::BandsError>(),
        ImageError::ValueRange { .. } => py.get_type::<python::ValueRangeError>(),
    }
}

/// Why an image failed, in one stable word: the `kind` of its class in `rsprune.errors`, or that of the OS error.
pub fn failure_kind(error: &Error) -> &'static str {
    match error {
        Error::Image(cause) => cause.kind(),
        Error::NotRegular { kind, .. } => kind,
        Error::Io { source, .. } => match source.kind() {
            ErrorKind::NotFound => "not_found",
            ErrorKind::PermissionDenied => "permission",
            ErrorKind::IsADirectory => "is_directory",
            _ => "io",
        },
        _ => "other",
    }
}
