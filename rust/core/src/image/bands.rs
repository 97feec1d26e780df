//! Which bands of an image are looked at.

use super::Result;
use crate::error::ImageError;

/// Bands that a message lists at most.
const LISTED: usize = 8;

/// The most bands of which the first three are taken for red, green and blue: a fourth one is near infrared, or alpha.
const MAX_DEFAULT_BANDS: usize = 4;

/// The bands to read of an image that has `available`: those asked for, or else the only one, or the first three of three or
/// four.
///
/// # Errors
///
/// [`ImageError::Bands`] when a band asked for is not there, or when none was asked for and their number leaves it open which
/// of them are red, green and blue.
pub fn select(requested: Option<&[usize]>, available: usize) -> Result<&[usize]> {
    match requested {
        Some(bands) => match bands.iter().find(|&&band| band >= available) {
            None => Ok(bands),
            Some(_) => {
                let (listed, more) =
                    (&bands[..bands.len().min(LISTED)], if bands.len() > LISTED { ", ..." } else { "" });
                Err(ImageError::Bands(format!(
                    "bands {listed:?}{more} were asked for, but the image has {available} (they are counted from 0)"
                )))
            }
        },
        None if available == 2 => {
            Err(ImageError::Bands("the image has 2 bands; say which to use, for example bands=(0,)".into()))
        }
        None if available > MAX_DEFAULT_BANDS => Err(ImageError::Bands(format!(
            "the image has {available} bands, and which of them are red, green and blue is not known; say which to use, \
             for example bands=(3, 2, 1)"
        ))),
        None => Ok(&[0, 1, 2][..available.min(3)]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_is_the_only_one_or_the_first_three_of_up_to_four() {
        assert_eq!(select(None, 1), Ok(&[0][..]));
        assert_eq!(select(None, 3), Ok(&[0, 1, 2][..]));
        assert_eq!(select(None, 4), Ok(&[0, 1, 2][..]));
        for available in [2, 5, 13] {
            let message = select(None, available).unwrap_err().to_string();
            assert!(message.contains(&format!("{available} bands")), "{message}");
            assert_eq!(select(Some(&[available - 1]), available), Ok(&[available - 1][..]));
        }
    }

    #[test]
    fn asked_for_bands_must_be_there() {
        assert_eq!(select(Some(&[3, 0, 0]), 4), Ok(&[3, 0, 0][..]));
        let message = select(Some(&[0, 4]), 4).unwrap_err().to_string();
        assert!(message.contains("[0, 4]") && message.contains("has 4"), "{message}");
        assert!(select(Some(&[9; 60_000]), 4).unwrap_err().to_string().len() < 200);
    }
}
