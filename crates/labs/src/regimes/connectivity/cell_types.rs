//! Blocks of cell types: `W_ij = μ_pq + σ_pq·ε_ij`, connected with probability `c_pq`, p the type of unit i that receives and q that of unit j that
//! sends. The mean part has at most as many directions as there are types. Tables such as that of mouse V1 are the caller's data (Liu et al., 2024,
//! take the Allen Institute's; their code does not hold it).

use faer::{Mat, MatRef};
use lowrank_record::Seed;
use rand::RngExt;

use super::{Connectivity, Entry, normal, shares};
use crate::regimes::RegimeError;

pub(super) const ENTRY: Entry = Entry {
    name: "cell-types",
    summary: "mean, spread and probability of a connection by the types of the two cells, from a table of yours",
};

/// A table of P cell types.
#[derive(Debug, Clone, PartialEq)]
pub struct CellTypes {
    /// The share of each type, of any sum.
    pub fractions: Vec<f64>,
    /// `[P, P]`: mean weight, a row for each receiving type.
    pub mean: Mat<f64>,
    /// `[P, P]`: standard deviation of the weight.
    pub deviation: Mat<f64>,
    /// `[P, P]`: probability that there is a connection.
    pub probability: Mat<f64>,
}

impl Connectivity for CellTypes {
    fn name(&self) -> &'static str {
        ENTRY.name
    }

    fn draw(&self, control: MatRef<'_, f64>, seed: Seed) -> Result<Mat<f64>, RegimeError> {
        self.check()?;
        let size = control.nrows();
        let counts = shares(&self.fractions, size);
        let types: Vec<usize> =
            counts.iter().enumerate().flat_map(|(kind, &count)| std::iter::repeat_n(kind, count)).collect();
        let noise = normal(size, size, seed.at("cell-types", "weights"));
        let mut rng = seed.at("cell-types", "connections").rng();
        let mut weights = Mat::<f64>::zeros(size, size);
        for (i, &to) in types.iter().enumerate() {
            for (j, &from) in types.iter().enumerate() {
                // Drawn for every pair, so that a probability changes no other pair.
                let draw: f64 = rng.random();
                if draw < self.probability[(to, from)] {
                    weights[(i, j)] = self.mean[(to, from)] + self.deviation[(to, from)] * noise[(i, j)];
                }
            }
        }
        Ok(weights)
    }
}

impl CellTypes {
    fn check(&self) -> Result<(), RegimeError> {
        let count = self.fractions.len();
        for (what, table) in [
            ("rows and columns of the table of means", &self.mean),
            ("rows and columns of the table of deviations", &self.deviation),
            ("rows and columns of the table of probabilities", &self.probability),
        ] {
            if let Some(found) = [table.nrows(), table.ncols()].into_iter().find(|&side| side != count) {
                return Err(RegimeError::Size { what, wanted: count, found });
            }
            lowrank_linalg::finite(table.as_ref())?;
        }
        let bad = |x: &&f64| !(**x >= 0.0 && x.is_finite());
        let all: f64 = self.fractions.iter().sum();
        if let Some(&found) = self.fractions.iter().find(bad).or(Some(&all).filter(|all| **all <= 0.0)) {
            let wanted = "numbers of at least 0, not all of them 0";
            return Err(RegimeError::Value { what: "fractions of the cell types", found, wanted });
        }
        for at in 0..count * count {
            let (i, j) = (at / count, at % count);
            let (found, spread) = (self.probability[(i, j)], self.deviation[(i, j)]);
            if !(0.0..=1.0).contains(&found) {
                let (what, wanted) = ("probability of a connection", "a number from 0 to 1");
                return Err(RegimeError::Value { what, found, wanted });
            }
            if spread < 0.0 {
                let (what, wanted) = ("deviation of a weight", "a number of at least 0");
                return Err(RegimeError::Value { what, found: spread, wanted });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lowrank_linalg::{directions, svd_in_f64};

    fn table(deviation: f64, probability: f64) -> CellTypes {
        CellTypes {
            fractions: vec![0.5, 0.3, 0.2],
            mean: Mat::from_fn(3, 3, |i, j| {
                (1.0 + i as f64) * if j == 0 { 1.0 } else { -1.5 - j as f64 * i as f64 }
            }),
            deviation: Mat::from_fn(3, 3, |_, _| deviation),
            probability: Mat::from_fn(3, 3, |_, _| probability),
        }
    }

    #[test]
    fn means_alone_have_at_most_a_direction_a_type_and_half_of_the_connections_are_there() {
        let control = Mat::<f64>::zeros(40, 40);
        let means = table(0.0, 1.0).draw(control.as_ref(), Seed(1)).unwrap();
        assert!(directions(&svd_in_f64(means.as_ref()).unwrap().values) <= 3);
        assert_eq!((means[(0, 0)], means[(19, 19)], means[(20, 0)], means[(39, 39)]), (1.0, 1.0, 2.0, -16.5));
        let half = table(0.1, 0.5).draw(control.as_ref(), Seed(1)).unwrap();
        let there = (0..1600).filter(|at| half[(at / 40, at % 40)] != 0.0).count();
        assert!((700..900).contains(&there), "{there}");
    }

    #[test]
    fn tables_that_do_not_fit_are_refused() {
        let control = Mat::<f64>::zeros(4, 4);
        let refused = |table: CellTypes| table.draw(control.as_ref(), Seed(1)).unwrap_err().to_string();
        assert!(
            refused(CellTypes { fractions: vec![1.0; 2], ..table(0.1, 0.5) }).contains("expected 2, found 3")
        );
        assert!(
            refused(CellTypes { fractions: vec![0.0; 3], ..table(0.1, 0.5) }).contains("not all of them 0")
        );
        assert!(refused(table(0.1, 1.5)).contains("from 0 to 1"));
        assert!(refused(table(-0.1, 0.5)).contains("at least 0"));
    }
}
