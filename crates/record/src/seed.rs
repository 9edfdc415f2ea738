//! Randomness is an argument. A [`Seed`] is split by name for each purpose and site, so that adding a site, or
//! visiting sites in another order or on another number of threads, changes no other site's draws.

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, StandardNormal, Uniform};

/// A seed that the user can set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct Seed(pub u64);

impl Seed {
    /// The seed for one named thing of one purpose: `seed.at("site", "layers.0.q_proj")`.
    ///
    /// FNV-1a over both names, then the SplitMix64 finaliser so that similar names give unrelated seeds.
    #[must_use]
    pub fn at(self, purpose: &str, name: &str) -> Seed {
        let mut hash = 0xcbf2_9ce4_8422_2325_u64;
        let bytes = self.0.to_le_bytes();
        // 0xff never occurs in UTF-8, so ("ab", "c") and ("a", "bc") differ.
        for &byte in bytes.iter().chain(purpose.as_bytes()).chain(&[0xff]).chain(name.as_bytes()) {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
        let mut z = hash.wrapping_add(0x9e37_79b9_7f4a_7c15);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        Seed(z ^ (z >> 31))
    }

    /// A generator that gives the same stream on every platform.
    #[must_use]
    pub fn rng(self) -> ChaCha8Rng {
        ChaCha8Rng::seed_from_u64(self.0)
    }

    /// `count` draws from the standard normal distribution.
    #[must_use]
    pub fn normal(self, count: usize) -> Vec<f32> {
        let mut rng = self.rng();
        (0..count).map(|_| StandardNormal.sample(&mut rng)).collect()
    }

    /// `count` draws from the uniform distribution on `[-bound, bound)`; zeros when `bound` is 0.
    ///
    /// # Panics
    /// Panics when `bound` is negative, not a number, or so large that the width of the interval is not finite.
    #[must_use]
    pub fn uniform(self, count: usize, bound: f32) -> Vec<f32> {
        assert!(
            bound >= 0.0 && (2.0 * bound).is_finite(),
            "a bound of uniform draws is finite and not negative: {bound}"
        );
        let mut rng = self.rng();
        match Uniform::new(-bound, bound) {
            Ok(distribution) => (0..count).map(|_| distribution.sample(&mut rng)).collect(),
            Err(_) => vec![0.0; count],
        }
    }

    /// A permutation of `0..count` (Fisher–Yates).
    #[must_use]
    pub fn permutation(self, count: usize) -> Vec<usize> {
        use rand::RngExt;
        let mut rng = self.rng();
        let mut order: Vec<usize> = (0..count).collect();
        for last in (1..count).rev() {
            order.swap(last, rng.random_range(0..=last));
        }
        order
    }
}

#[cfg(test)]
mod tests {
    use super::Seed;

    #[test]
    fn names_split_the_stream() {
        let seed = Seed(7);
        assert_eq!(seed.at("site", "q").normal(4), seed.at("site", "q").normal(4));
        assert_ne!(seed.at("site", "q"), seed.at("site", "k"));
        assert_ne!(seed.at("ab", "c"), seed.at("a", "bc"));
        assert_ne!(Seed(8).at("site", "q"), seed.at("site", "q"));
    }

    #[test]
    fn normal_draws_have_unit_variance() {
        let draws = Seed(1).normal(20_000);
        let mean = draws.iter().map(|&x| f64::from(x)).sum::<f64>() / 20_000.0;
        let variance = draws.iter().map(|&x| (f64::from(x) - mean).powi(2)).sum::<f64>() / 20_000.0;
        assert!(mean.abs() < 0.03, "{mean}");
        assert!((variance - 1.0).abs() < 0.04, "{variance}");
    }

    #[test]
    fn uniform_draws_lie_within_their_bound() {
        let draws = Seed(2).uniform(1000, 0.5);
        assert!(draws.iter().all(|&x| (-0.5..0.5).contains(&x)) && draws.iter().any(|&x| x < -0.4));
        assert_eq!(Seed(2).uniform(3, 0.0), [0.0; 3]);
    }

    #[test]
    #[should_panic(expected = "finite and not negative: inf")]
    fn an_infinite_bound_is_a_mistake() {
        let _ = Seed(2).uniform(3, f32::INFINITY);
    }

    #[test]
    fn permutation_holds_each_index_once() {
        let mut order = Seed(3).permutation(100);
        assert_ne!(order, (0..100).collect::<Vec<_>>());
        order.sort_unstable();
        assert_eq!(order, (0..100).collect::<Vec<_>>());
    }
}
