//! Labels of rows: each is a group, 0 to K - 1, or none if negative.

use crate::error::{Error, Result};

/// Lists the rows of every group, ascending.
///
/// # Errors
/// [`Error::Shape`] unless there are `n` labels, [`Error::Argument`] for a label of `k` or more.
pub(crate) fn members(labels: &[i32], n: usize, k: usize) -> Result<Vec<Vec<usize>>> {
    if labels.len() != n {
        return Err(Error::Shape(format!("{} labels for {n} rows", labels.len())));
    }
    let mut members = vec![Vec::new(); k];
    for (row, &label) in labels.iter().enumerate() {
        match usize::try_from(label) {
            Err(_) => {}
            Ok(group) if group < k => members[group].push(row),
            Ok(_) => {
                return Err(Error::Argument(format!("row {row} has label {label}; expected -1 to {}", k as i64 - 1)));
            }
        }
    }
    Ok(members)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn negative_labels_are_in_no_group() {
        assert_eq!(members(&[2, -1, 0, 2], 4, 3).unwrap(), [vec![2], vec![], vec![0, 3]]);
    }

    #[test]
    fn labels_that_do_not_fit_are_refused() {
        assert!(matches!(members(&[0, 2], 2, 2), Err(Error::Argument(_))));
        assert!(matches!(members(&[0], 2, 2), Err(Error::Shape(_))));
    }
}
