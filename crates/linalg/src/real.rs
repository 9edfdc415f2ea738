//! The two precisions.

use faer::traits::RealField;

/// `f32` or `f64`.
pub trait Real: RealField + Copy + Send + Sync + PartialOrd + private::Sealed + 'static {
    /// The distance from 1 to the next number.
    const EPSILON: f64;

    /// Exact.
    fn to_f64(self) -> f64;
    /// Rounds to nearest.
    fn from_f64(value: f64) -> Self;
}

impl Real for f32 {
    const EPSILON: f64 = f32::EPSILON as f64;

    fn to_f64(self) -> f64 {
        f64::from(self)
    }
    fn from_f64(value: f64) -> Self {
        value as f32
    }
}

impl Real for f64 {
    const EPSILON: f64 = f64::EPSILON;

    fn to_f64(self) -> f64 {
        self
    }
    fn from_f64(value: f64) -> Self {
        value
    }
}

mod private {
    pub trait Sealed {}
    impl Sealed for f32 {}
    impl Sealed for f64 {}
}
