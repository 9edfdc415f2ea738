//! The scale of an adapter, computed here and nowhere else.

/// `α / r`, or `α / √r` when rank-stabilised (Kalajdzievski, "A Rank Stabilization Scaling Factor for Fine-Tuning
/// with LoRA", 2023): with `α / r` the change shrinks like `1/√r` as the rank grows, with `α / √r` it keeps its size.
///
/// Rank 0 has no scale; callers refuse it before, and this returns 0.
#[must_use]
pub fn scale(alpha: f64, rank: usize, rank_stabilised: bool) -> f64 {
    match (rank, rank_stabilised) {
        (0, _) => 0.0,
        (rank, true) => alpha / (rank as f64).sqrt(),
        (rank, false) => alpha / rank as f64,
    }
}

#[cfg(test)]
mod tests {
    use super::scale;

    #[test]
    fn divides_by_the_rank_or_its_root() {
        assert_eq!(scale(16.0, 4, false), 4.0);
        assert_eq!(scale(16.0, 4, true), 8.0);
        assert_eq!(scale(16.0, 0, true), 0.0);
    }
}
