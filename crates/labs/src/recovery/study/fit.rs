//! Lines through measured points: slopes of logarithms are powers and rates.

/// A least-squares line.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Fit {
    pub(super) slope: f64,
    /// The share of the variance that the line explains.
    pub(super) explained: f64,
}

/// The line through the points; not a number of fewer than two different x.
pub(super) fn line(points: &[(f64, f64)]) -> Fit {
    let n = points.len() as f64;
    let mean = |of: &dyn Fn(&(f64, f64)) -> f64| points.iter().map(of).sum::<f64>() / n;
    let (x, y) = (mean(&|p| p.0), mean(&|p| p.1));
    let (xx, xy, yy) =
        (mean(&|p| (p.0 - x).powi(2)), mean(&|p| (p.0 - x) * (p.1 - y)), mean(&|p| (p.1 - y).powi(2)));
    Fit { slope: xy / xx, explained: if yy > 0.0 { xy * xy / (xx * yy) } else { 1.0 } }
}

/// The power p of `y ~ x^p`.
pub(super) fn power(points: impl Iterator<Item = (f64, f64)>) -> Fit {
    line(&points.map(|(x, y)| (x.ln(), y.ln())).collect::<Vec<_>>())
}

/// The rate c of `y ~ exp(−c·x)`.
pub(super) fn rate(points: impl Iterator<Item = (f64, f64)>) -> Fit {
    let fit = line(&points.map(|(x, y)| (x, y.ln())).collect::<Vec<_>>());
    Fit { slope: -fit.slope, ..fit }
}

/// The largest by the smallest.
pub(super) fn ratio(values: &[f64]) -> f64 {
    let (least, most) = ends(values);
    most / least
}

/// How far apart they are, by their mean.
pub(super) fn relative_spread(values: &[f64]) -> f64 {
    let (least, most) = ends(values);
    (most - least) / (values.iter().sum::<f64>() / values.len() as f64)
}

/// Least and largest; not a number where one is not, so that a missing value is never taken for agreement.
fn ends(values: &[f64]) -> (f64, f64) {
    if values.iter().any(|value| value.is_nan()) {
        return (f64::NAN, f64::NAN);
    }
    values.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(least, most), &x| (least.min(x), most.max(x)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn powers_and_rates_are_found() {
        let xs = || (1..20).map(f64::from);
        let fit = power(xs().map(|x| (x, 3.0 * x.powf(-2.0))));
        assert!((fit.slope + 2.0).abs() < 1e-12 && (fit.explained - 1.0).abs() < 1e-12);
        assert!((rate(xs().map(|x| (x, 5.0 * (-0.3 * x).exp()))).slope - 0.3).abs() < 1e-12);
        assert!(line(&[(0.0, 0.0), (1.0, 1.0), (2.0, 0.0)]).explained < 1e-12);
        assert!(line(&[(1.0, 1.0)]).slope.is_nan() && ratio(&[1.0, f64::NAN]).is_nan());
        assert_eq!((ratio(&[2.0, 6.0]), relative_spread(&[1.0, 3.0])), (3.0, 1.0));
    }
}
