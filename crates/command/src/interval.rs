//! Means over seeds with their 95 % intervals.

use serde::Serialize;

/// A mean with its interval; without one where there is a single value.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Interval {
    /// The mean.
    pub mean: f64,
    /// Lower end of the 95 % interval.
    pub low: Option<f64>,
    /// Upper end.
    pub high: Option<f64>,
}

impl Interval {
    /// Of independent values: `mean ± t·s/√n`, t with n − 1 degrees of freedom. For paired runs the values are differences.
    /// `None` of no values.
    #[must_use]
    pub fn of(values: &[f64]) -> Option<Interval> {
        let n = values.len() as f64;
        let mean = values.iter().sum::<f64>() / n;
        match values.len() {
            0 => None,
            1 => Some(Interval { mean, low: None, high: None }),
            count => {
                let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
                let half = student(count - 1) * (squares / (n - 1.0) / n).sqrt();
                Some(Interval { mean, low: Some(mean - half), high: Some(mean + half) })
            }
        }
    }

    /// A mean with half of its interval: `0.654 ± 0.012`; the mean alone where there is one value.
    #[must_use]
    pub fn with_half(&self, digits: usize) -> String {
        let mean = self.mean;
        match self.high {
            Some(high) => format!("{mean:.digits$} ± {:.digits$}", high - mean),
            None => format!("{mean:.digits$}"),
        }
    }

    /// Whether zero lies outside: a difference that chance explains in less than one case of twenty.
    #[must_use]
    pub fn is_clear(&self) -> bool {
        matches!((self.low, self.high), (Some(low), Some(high)) if low > 0.0 || high < 0.0)
    }
}

/// The 97.5 % point of Student's t, from the usual table; beyond it two terms of its expansion about the normal's
/// (Abramowitz and Stegun, 26.7.5).
fn student(degrees: usize) -> f64 {
    const TABLE: [f64; 30] = [
        12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145,
        2.131, 2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048,
        2.045, 2.042,
    ];
    const NORMAL: f64 = 1.959_964;
    match degrees.checked_sub(1).and_then(|index| TABLE.get(index)) {
        Some(&value) => value,
        None => {
            let (z, n) = (NORMAL, degrees as f64);
            let first = (z.powi(3) + z) / 4.0;
            let second = (5.0 * z.powi(5) + 16.0 * z.powi(3) + 3.0 * z) / 96.0;
            z + first / n + second / (n * n)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The density of Student's t integrated from 0, by Simpson's rule.
    fn share(t: f64, degrees: usize) -> f64 {
        let k = degrees as f64;
        // Γ((k+1)/2)/Γ(k/2) by Γ(x+1) = xΓ(x) from Γ(1)/Γ(1/2) or Γ(3/2)/Γ(1).
        let root = std::f64::consts::PI.sqrt();
        let mut ratio = if degrees % 2 == 1 { 1.0 / root } else { root / 2.0 };
        let mut at = if degrees % 2 == 1 { 1 } else { 2 };
        while at < degrees {
            ratio *= (at as f64 + 1.0) / at as f64;
            at += 2;
        }
        let density =
            |x: f64| ratio / (k * std::f64::consts::PI).sqrt() * (1.0 + x * x / k).powf(-(k + 1.0) / 2.0);
        let parts = 20_000;
        let width = t / f64::from(parts);
        let weight = |i: i32| if i == 0 || i == parts { 1.0 } else { 2.0 + 2.0 * f64::from(i % 2) };
        (0..=parts).map(|i| weight(i) * density(f64::from(i) * width)).sum::<f64>() * width / 3.0
    }

    #[test]
    fn the_table_is_students() {
        for degrees in [1, 2, 3, 7, 12, 30, 31, 60] {
            let inside = 2.0 * share(student(degrees), degrees);
            assert!((inside - 0.95).abs() < 3e-4, "{degrees}: {inside}");
        }
    }

    #[test]
    fn an_interval_is_the_textbooks() {
        let interval = Interval::of(&[1.0, 2.0, 6.0]).unwrap();
        // s² = 7, s/√3 = 1.5275, t = 4.303.
        assert!((interval.mean - 3.0).abs() < 1e-12);
        assert!((interval.high.unwrap() - 3.0 - 4.303 * (7.0_f64 / 3.0).sqrt()).abs() < 1e-9);
        assert!(!interval.is_clear() && Interval::of(&[1.0, 1.1, 0.9]).unwrap().is_clear());
        assert_eq!(Interval::of(&[2.0]).unwrap(), Interval { mean: 2.0, low: None, high: None });
        assert!(Interval::of(&[]).is_none() && !Interval::of(&[2.0]).unwrap().is_clear());
    }
}
