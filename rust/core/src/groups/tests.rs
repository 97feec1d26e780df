//! Groups against what their definitions say. The Python tests attack them with NumPy oracles.

use super::*;

fn rows(values: &[f32]) -> Rows<'_> {
    Rows::from_slice(values, 2).unwrap()
}

#[test]
fn medians_are_those_of_unit_rows() {
    // (1, 0), (0, 1), (0.6, 0.8) in group 0; (-1, 0) and (0, -1) in group 2; group 1 is empty; the last is in none.
    let values = [2.0, 0.0, 0.0, 5.0, 3.0, 4.0, -7.0, 0.0, 0.0, -1.0, 1.0, 1.0];
    let got = medians(&rows(&values), &[0, 0, 0, 2, 2, -1], 3, &Par::new(Some(2))).unwrap();
    assert_eq!((&got[..2], &got[4..]), (&[0.6, 0.8][..], &[-0.5, -0.5][..]));
    assert!(got[2].is_nan() && got[3].is_nan());
}

#[test]
fn distances_are_to_the_own_centre() {
    let values = [2.0, 0.0, 0.0, 5.0, f32::NAN, 0.0];
    let centres = [1.0, 1.0, 0.0, 0.0];
    let got = distances(&rows(&values), &[0, 1, -1], &centres, &Par::new(Some(2))).unwrap();
    assert_eq!(got[..2], [1.0, 1.0]);
    assert!(got[2].is_nan());
    let error = distances(&rows(&values), &[0, 1, 1], &centres, &Par::new(Some(2)));
    assert!(matches!(error, Err(Error::InvalidRow { row: 2, .. })));
}

#[test]
fn herding_follows_the_mean_and_lower_rows_first() {
    // Mean (1/2, 1/4): first (1, 0), of which there are two; then (1, 1/2) - (1, 0) asks for (0, 1).
    let values = [1.0, 0.0, 3.0, 0.0, 0.0, 1.0, 0.0, -1e-30];
    let values = &values[..6];
    for threads in [1, 3] {
        let par = Par::new(Some(threads));
        assert_eq!(herd(&rows(values), &[0, 0, 0], &[3], &par).unwrap(), [[0, 2, 1]]);
        let groups = herd(&rows(values), &[1, 0, 1], &[1, 2], &par).unwrap();
        assert_eq!(groups, [vec![1], vec![0, 2]]);
    }
    assert!(matches!(herd(&rows(values), &[0, 0, -1], &[3], &Par::new(Some(1))), Err(Error::Argument(_))));
}

#[test]
fn labels_out_of_range_are_named() {
    let values = [1.0, 0.0, 3.0, 0.0];
    let par = Par::new(Some(1));
    assert!(matches!(medians(&rows(&values), &[0, 2], 2, &par), Err(Error::Argument(_))));
    assert!(matches!(medians(&rows(&values), &[0], 2, &par), Err(Error::Shape(_))));
}

#[test]
fn softmax_sums_to_one_and_does_not_overflow() {
    let got = softmax(&[1000.0, 1000.0, 0.0], 0.5);
    assert_eq!(got, [0.5, 0.5, 0.0]);
}
