//! Functions of plain numbers that give the same bits on every machine.

/// Divides `exp(v / temperature)` of every value `v` by the sum of all of them.
pub fn softmax(values: &[f64], temperature: f64) -> Vec<f64> {
    let largest = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let powers: Vec<f64> = values.iter().map(|v| libm::exp((v - largest) / temperature)).collect();
    let sum: f64 = powers.iter().sum();
    powers.iter().map(|power| power / sum).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn softmax_sums_to_one_and_does_not_overflow() {
        assert_eq!(softmax(&[1000.0, 1000.0, 0.0], 0.5), [0.5, 0.5, 0.0]);
    }
}
