//! Which bands of an image are looked at.

use super::Result;
use crate::error::ImageError;

/// The bands to read of an image that has `available`: those asked for, or else the first three, or the only one.
///
/// # Errors
///
/// [`ImageError::Bands`] when a band asked for is not there, or when two bands leave the choice open.
pub fn select(requested: Option<&[usize]>, available: usize) -> Result<&[usize]> {
    match requested {
        Some(bands) => match bands.iter().find(|&&band| band >= available) {
            None => Ok(bands),
            Some(_) => Err(ImageError::Bands(format!(
                "bands {bands:?} were asked for, but the image has {available} (they are counted from 0)"
            ))),
        },
        None if available == 2 => {
            Err(ImageError::Bands("the image has 2 bands; say which to use, for example bands=(0,)".into()))
        }
        None => Ok(&[0, 1, 2][..available.min(3)]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_is_the_first_three_or_the_only_one() {
        assert_eq!(select(None, 1), Ok(&[0][..]));
        assert_eq!(select(None, 3), Ok(&[0, 1, 2][..]));
        assert_eq!(select(None, 13), Ok(&[0, 1, 2][..]));
        assert!(select(None, 2).unwrap_err().to_string().contains("2 bands"));
    }

    #[test]
    fn asked_for_bands_must_be_there() {
        assert_eq!(select(Some(&[3, 0, 0]), 4), Ok(&[3, 0, 0][..]));
        let message = select(Some(&[0, 4]), 4).unwrap_err().to_string();
        assert!(message.contains("[0, 4]") && message.contains("has 4"), "{message}");
    }
}
