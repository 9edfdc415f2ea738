//! Row-wise images: a row a step, the class at the last step ("sMNIST" in the paper: 28 steps of 28 values, 10 classes).
//!
//! The images are the caller's: MNIST where there is one, the 8×8 digits of Alpaydin and Kaynak (1998) as a stand-in without a network.

use lowrank_record::Seed;
use rand::RngExt;

use super::{Batch, Scored, Task};
use crate::regimes::RegimeError;

/// Labelled images of one size.
#[derive(Debug, Clone, PartialEq)]
pub struct Digits {
    pixels: Vec<f32>,
    labels: Vec<usize>,
    rows: usize,
    cols: usize,
    classes: usize,
}

impl Digits {
    /// Images of `rows · cols` values each, one after another and row by row, and the class of each, below `classes`.
    ///
    /// # Errors
    /// [`RegimeError::Size`] where there is no image or the numbers of values and labels do not fit; [`RegimeError::Value`] for a label of no
    /// class, or a pixel that is no number.
    pub fn new(
        pixels: Vec<f32>,
        labels: Vec<usize>,
        rows: usize,
        cols: usize,
        classes: usize,
    ) -> Result<Digits, RegimeError> {
        if labels.is_empty() || rows == 0 || cols == 0 {
            return Err(RegimeError::Size { what: "images with at least one pixel", wanted: 1, found: 0 });
        }
        let wanted = labels.len() * rows * cols;
        if pixels.len() != wanted {
            return Err(RegimeError::Size {
                what: "pixels, one for each row and column of each labelled image",
                wanted,
                found: pixels.len(),
            });
        }
        if let Some(&label) = labels.iter().find(|&&label| label >= classes) {
            let (what, wanted) = ("label of an image", "a class below their number");
            return Err(RegimeError::Value { what, found: label as f64, wanted });
        }
        if let Some(&pixel) = pixels.iter().find(|pixel| !pixel.is_finite()) {
            let (what, wanted) = ("pixel of an image", "a finite number");
            return Err(RegimeError::Value { what, found: f64::from(pixel), wanted });
        }
        Ok(Digits { pixels, labels, rows, cols, classes })
    }
}

impl Task for Digits {
    fn name(&self) -> &'static str {
        "digits"
    }
    fn width(&self) -> usize {
        self.cols
    }
    fn answers(&self) -> usize {
        self.classes
    }

    /// Images drawn with replacement.
    fn batch(&self, trials: usize, seed: Seed) -> Batch {
        let mut rng = seed.rng();
        let mut batch = Batch::zeros(trials, self.rows, self.cols, Scored::Last);
        for trial in 0..trials {
            let image = rng.random_range(0..self.labels.len());
            for (step, row) in
                self.pixels[image * self.rows * self.cols..].chunks(self.cols).take(self.rows).enumerate()
            {
                batch.input(step, trial).iter_mut().zip(row).for_each(|(to, &from)| *to = f64::from(from));
            }
            batch.decide(trial, self.labels[image]);
        }
        batch
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_come_in_order_with_the_label_at_the_end() {
        let digits = Digits::new((0..12).map(|x| x as f32).collect(), vec![4, 9], 2, 3, 10).unwrap();
        let batch = digits.batch(6, Seed(3));
        for trial in 0..6 {
            let label = batch.targets[6 + trial];
            let first = if label == 4 { 0.0 } else { 6.0 };
            let row = |step: usize| &batch.inputs[(step * 6 + trial) * 3..][..3];
            assert_eq!(row(0), [first, first + 1.0, first + 2.0]);
            assert_eq!(row(1), [first + 3.0, first + 4.0, first + 5.0]);
        }
        assert_eq!(batch.first_scored(), 6);
    }

    #[test]
    fn images_that_do_not_fit_are_refused() {
        let refused =
            |pixels: Vec<f32>, labels: Vec<usize>| Digits::new(pixels, labels, 1, 2, 3).unwrap_err();
        assert!(refused(vec![], vec![]).to_string().contains("images"));
        assert!(refused(vec![0.0; 3], vec![0]).to_string().contains("expected 2, found 3"));
        assert!(refused(vec![0.0; 2], vec![3]).to_string().contains("label"));
        assert!(refused(vec![0.0, f32::NAN], vec![0]).to_string().contains("finite"));
    }
}
