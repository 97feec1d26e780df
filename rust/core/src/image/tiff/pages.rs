//! Which of a file's directories are the image: it may come with a thumbnail, overviews and masks, or in a page a band.

use std::collections::HashSet;

use super::directory::{Directory, File};
use super::layout::{Layout, Photometric};
use super::{Result, corrupt, unsupported};
use crate::error::ImageError;

mod tag {
    pub const NEW_SUBFILE_TYPE: u16 = 254;
    pub const SUBFILE_TYPE: u16 = 255;
    pub const WIDTH: u16 = 256;
    pub const HEIGHT: u16 = 257;
    pub const PHOTOMETRIC: u16 = 262;
    pub const SUB_DIRECTORIES: u16 = 330;
}

/// What a directory holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    /// An image of so many pixels in a row, and rows.
    Image(u64, u64),
    /// A smaller copy of an image.
    Reduced,
    /// Which of an image's pixels are there.
    Mask,
}

impl Role {
    fn of(directory: &Directory<'_>) -> Result<Self> {
        let flags = directory.number(tag::NEW_SUBFILE_TYPE, "NewSubfileType")?.unwrap_or(0);
        let old = directory.number(tag::SUBFILE_TYPE, "SubfileType")?;
        if flags & 4 != 0 || directory.number(tag::PHOTOMETRIC, "PhotometricInterpretation")? == Some(4) {
            return Ok(Self::Mask);
        }
        if flags & 1 != 0 || old == Some(2) {
            return Ok(Self::Reduced);
        }
        Ok(Self::Image(directory.require(tag::WIDTH, "ImageWidth")?, directory.require(tag::HEIGHT, "ImageLength")?))
    }
}

/// The directory of the image at full size, or those of its bands if it comes in a page a band.
///
/// Pages that are smaller than the first both ways count as copies of it, whatever they say of themselves. A file of which no
/// page is an image at full size has it in a subdirectory, or is read for what it is.
///
/// # Errors
///
/// [`ImageError::Unsupported`] when several pages could be the image.
pub fn of_image(file: File<'_>, first: u64) -> Result<Vec<Directory<'_>>> {
    let mut chain = Chain { file, seen: HashSet::new(), tags: 0 };
    let mut pages = chain.read(first)?;
    if pages.iter().all(|(role, _)| !matches!(role, Role::Image(..))) {
        let mut below = Vec::new();
        for (_, directory) in &pages {
            for at in directory.numbers(tag::SUB_DIRECTORIES, "SubIFDs")?.unwrap_or_default() {
                below.append(&mut chain.read(at)?);
            }
        }
        if below.iter().any(|(role, _)| matches!(role, Role::Image(..))) {
            pages = below;
        }
    }
    let images = pages.iter().filter_map(|&(role, _)| if let Role::Image(w, h) = role { Some((w, h)) } else { None });
    let images: Vec<_> = images.collect();
    let Some(&(width, height)) = images.first() else {
        let best = pages.iter().position(|&(role, _)| role == Role::Reduced).unwrap_or(0);
        return Ok(pages.into_iter().map(|(_, directory)| directory).skip(best).take(1).collect());
    };
    if images.iter().any(|&(w, h)| (w, h) != (width, height) && (w >= width || h >= height)) {
        let pages = images.len();
        return Err(unsupported(format!("{pages} pages of different sizes; save the one that is meant by itself")));
    }
    pages.retain(|&(role, _)| role == Role::Image(width, height));
    Ok(pages.into_iter().map(|(_, directory)| directory).collect())
}

/// Fails unless pages of one size can be the bands of one image.
///
/// # Errors
///
/// [`ImageError::Unsupported`] with their number.
pub fn check_bands(pages: &[Layout<'_>]) -> Result<()> {
    let gray = |page: &Layout<'_>| page.bands == 1 && !matches!(page.photometric, Photometric::Palette(_));
    if pages.iter().all(|page| gray(page) && (page.bits, page.kind) == (pages[0].bits, pages[0].kind)) {
        return Ok(());
    }
    Err(unsupported(format!(
        "{} pages of one size that are no bands; save the one that is meant by itself",
        pages.len()
    )))
}

/// Reads directories, each of them once.
struct Chain<'a> {
    file: File<'a>,
    seen: HashSet<u64>,
    tags: usize,
}

impl<'a> Chain<'a> {
    /// All directories from the one at `at` on, and what each of them holds.
    fn read(&mut self, mut at: u64) -> Result<Vec<(Role, Directory<'a>)>> {
        let mut pages = Vec::new();
        while (pages.is_empty() || at != 0) && self.seen.insert(at) {
            let page = Directory::read(self.file, at).and_then(|directory| Ok((Role::of(&directory)?, directory)));
            match page {
                // What follows a single image is nobody's concern who wants that one, as long as it is not another one.
                Err(ImageError::Corrupt { .. }) if pages.len() == 1 => break,
                page => pages.push(page?),
            }
            let directory = &pages[pages.len() - 1].1;
            // Directories that overlap could be visited without end.
            self.tags += directory.len();
            if self.tags as u64 > self.file.len() {
                return Err(corrupt("directories that overlap"));
            }
            at = directory.next;
        }
        Ok(pages)
    }
}
