//! What a comparison comes to, in words that say when a difference is noise.

use lowrank_command::Interval;

/// A method as it is judged.
#[derive(Debug, Clone)]
pub(super) struct Score<'a> {
    pub(super) name: &'a str,
    /// Held-out loss of each seed, in the order of the seeds.
    pub(super) losses: Vec<f64>,
    /// Whether its rate is the smallest or largest that was tried.
    pub(super) at_the_end: bool,
}

impl Score<'_> {
    fn mean(&self) -> f64 {
        self.losses.iter().sum::<f64>() / self.losses.len().max(1) as f64
    }
}

/// The verdict, and which method it recommends (an index).
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Verdict {
    pub(super) sentences: Vec<String>,
    pub(super) recommended: usize,
}

/// The paired difference `of − from` over the seeds that both have.
pub(super) fn difference(of: &[f64], from: &[f64]) -> Option<Interval> {
    let pairs: Vec<f64> = of.iter().zip(from).map(|(of, from)| of - from).collect();
    Interval::of(&pairs)
}

/// Judges methods, the first of which is what the others are measured against.
pub(super) fn verdict(scores: &[Score<'_>]) -> Verdict {
    let seeds = scores.first().map_or(0, |score| score.losses.len());
    let Some((first, rest)) = scores.split_first() else {
        return Verdict { sentences: Vec::new(), recommended: 0 };
    };
    let best = (0..scores.len()).min_by(|&a, &b| scores[a].mean().total_cmp(&scores[b].mean())).unwrap_or(0);
    let leader = &scores[best];
    // What the others are behind the leader: above zero.
    let behind = |score: &Score<'_>| difference(&score.losses, &leader.losses);
    let mut sentences = Vec::new();
    let other = if best == 0 {
        rest.iter().min_by(|a, b| a.mean().total_cmp(&b.mean())).unwrap_or(first)
    } else {
        first
    };
    if let Some(gap) = behind(other) {
        sentences.push(format!("{} is ahead of {} by {}.", leader.name, other.name, told(&gap, seeds)));
    }
    let others = || (0..scores.len()).filter(|&index| index != best);
    let clear = |index: usize| behind(&scores[index]).is_some_and(|gap| gap.is_clear());
    let tied: Vec<usize> = others().filter(|&index| !clear(index)).collect();
    let names = |of: &[usize]| of.iter().map(|&index| scores[index].name).collect::<Vec<_>>().join(", ");
    let recommended = if tied.contains(&0) { 0 } else { best };
    if seeds < 2 {
        sentences.push(format!(
            "With one seed nothing is known of noise: run at least three (--seeds 3) before choosing {}.",
            leader.name
        ));
    } else if tied.is_empty() {
        sentences.push(format!("Every other method is behind by more than noise: use {}.", leader.name));
    } else if recommended == 0 && best != 0 {
        let rest: Vec<usize> = tied.iter().copied().filter(|&index| index != 0).collect();
        let also = match rest.len() {
            0 => String::new(),
            _ => format!(" (nor of {})", names(&rest)),
        };
        sentences.push(format!(
            "So {} is not ahead of {}{also} by more than noise: stay with {}, or look closer with more seeds or more steps.",
            leader.name, first.name, first.name
        ));
    } else {
        sentences.push(format!(
            "Not to be told apart from {} by these seeds: {}. Use {}.",
            leader.name,
            names(&tied),
            leader.name
        ));
    }
    if seeds == 2 {
        sentences
            .push("Two seeds make wide intervals (t = 12.7); a third makes them a third as wide.".to_owned());
    }
    if scores.len() > 2 && seeds > 1 {
        sentences
            .push("Each interval is of its pair alone; of twenty such, one is wrong by chance.".to_owned());
    }
    for score in scores.iter().filter(|score| score.at_the_end) {
        sentences.push(format!(
            "The rate of {} is at the end of what was tried: a better one may lie beyond (give it as {}@RATE).",
            score.name, score.name
        ));
    }
    Verdict { sentences, recommended }
}

/// A gap with its interval.
fn told(gap: &Interval, seeds: usize) -> String {
    match (gap.low, gap.high) {
        (Some(low), Some(high)) => format!(
            "{:.4} nats (95 % interval {} … {}): {} at {seeds} seeds",
            gap.mean,
            signed(low),
            signed(high),
            if gap.is_clear() { "more than noise" } else { "within noise" }
        ),
        _ => format!("{:.4} nats at one seed", gap.mean),
    }
}

/// A number with a true minus sign.
pub(super) fn signed(value: f64) -> String {
    format!("{value:.4}").replace('-', "−")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(all: &[(&'static str, &[f64])]) -> Verdict {
        let scores: Vec<Score> = all
            .iter()
            .map(|(name, losses)| Score { name, losses: losses.to_vec(), at_the_end: false })
            .collect();
        verdict(&scores)
    }

    #[test]
    fn a_difference_within_noise_is_none() {
        let found = judged(&[("lora", &[4.50, 4.62, 4.40]), ("eva", &[4.48, 4.63, 4.37])]);
        assert_eq!(
            found.sentences[0],
            "eva is ahead of lora by 0.0133 nats (95 % interval −0.0384 … 0.0650): within noise at 3 seeds."
        );
        assert!(found.sentences[1].contains("stay with lora"), "{found:?}");
        assert_eq!(found.recommended, 0);
    }

    #[test]
    fn a_paired_difference_is_clear_though_the_seeds_differ() {
        // The seeds differ by 0.2, the methods by 0.03 at each of them.
        let found = judged(&[
            ("lora", &[4.50, 4.62, 4.40]),
            ("pissa", &[4.60, 4.7, 4.5]),
            ("eva", &[4.47, 4.589, 4.371]),
        ]);
        assert!(found.sentences[0].starts_with("eva is ahead of lora by 0.0300 nats"), "{found:?}");
        assert!(found.sentences[0].contains("more than noise"));
        assert!(found.sentences[1].contains("use eva") && found.recommended == 2);
    }

    #[test]
    fn one_that_ties_with_the_leader_is_named() {
        let found = judged(&[("lora", &[5.0, 5.1, 5.2]), ("a", &[4.0, 4.1, 4.2]), ("b", &[4.02, 4.09, 4.2])]);
        assert!(found.sentences[1].contains("told apart from a by these seeds: b. Use a"), "{found:?}");
        assert_eq!(found.recommended, 1);
        // The first method leads: it is compared with the next.
        let found = judged(&[("lora", &[4.0, 4.1, 4.2]), ("a", &[5.0, 5.1, 5.21]), ("b", &[6.0, 6.1, 6.2])]);
        assert!(found.sentences[0].starts_with("lora is ahead of a") && found.recommended == 0, "{found:?}");
    }

    #[test]
    fn one_seed_tells_nothing_of_noise() {
        let found = judged(&[("lora", &[5.0]), ("a", &[4.0])]);
        assert!(found.sentences[1].contains("nothing is known of noise"), "{found:?}");
        assert_eq!(found.recommended, 0, "what is not known to be better is not recommended");
    }
}
