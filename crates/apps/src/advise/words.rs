//! What the numbers show in plain words, and what they do not.

use super::advice::{Advice, MethodAdvice, rank_for};

/// A part in percent.
pub(super) fn percent(part: f64) -> String {
    let value = 100.0 * part;
    if value >= 9.95 || value == 0.0 { format!("{value:.0} %") } else { format!("{value:.1} %") }
}

/// The sentences, each of which stands by itself.
pub(super) fn words(advice: &Advice) -> Vec<String> {
    let mut sentences = Vec::new();
    sentences.extend(follows(advice));
    sentences.extend(refused(advice));
    sentences.push(gradient(advice));
    sentences.push(inputs(advice));
    sentences.extend(memory(advice));
    sentences.push(
        "What this does not show: alignment is not accuracy. It is of the first step, on one batch, for plain gradient descent; Adam \
         steps elsewhere, and after some steps the factors have turned. A start that sees little of the gradient can train as well, \
         with a larger rate. `lowrank compare` trains the methods, each at its own rate, and tells whether they differ."
            .to_owned(),
    );
    sentences.push(format!(
        "The pass saw {} tokens. Another batch gives other numbers (--seed), and statistics of inputs have more directions than few \
         tokens tell of (--calibration N shows more records).",
        advice.tokens
    ));
    sentences
}

fn follows(advice: &Advice) -> Option<String> {
    let told: Vec<String> = advice
        .methods
        .iter()
        .filter_map(|each| Some(format!("{} {}", each.name, percent(each.seen?))))
        .collect();
    (!told.is_empty()).then(|| {
        format!(
            "Of the gradient's energy on this batch, the values that are trained reach at the first step: {}. Two trained factors of \
             these ranks can reach {} at most, which is what its first 2r directions hold.",
            told.join(", "),
            percent(advice.summed.most_seen)
        )
    })
}

fn refused(advice: &Advice) -> Option<String> {
    let each = advice.methods.iter().find(|each| each.refused > 0)?;
    let why = each.why.as_deref().unwrap_or_default();
    Some(format!(
        "{} cannot start at {} of {} layers on this batch ({why}); those layers count as nothing seen.",
        each.name,
        each.refused,
        advice.sites.len()
    ))
}

fn gradient(advice: &Advice) -> String {
    let mut parts: Vec<f64> = advice.sites.iter().map(|site| site.gradient_part).collect();
    parts.sort_by(|a, b| b.total_cmp(a));
    let half = rank_for(&parts, 0.5).unwrap_or(parts.len());
    format!(
        "The first r directions of each layer's gradient hold {} of all of it, and half of it is in {half} of {} layers. With the same \
         sum of ranks given out by the gradient they would hold {}.",
        percent(advice.summed.gradient_in_first),
        advice.sites.len(),
        percent(advice.summed.gradient_anew)
    )
}

fn inputs(advice: &Advice) -> String {
    let enough = |rank: Option<usize>, planned: usize| rank.is_some_and(|rank| rank <= planned);
    let held = advice.sites.iter().filter(|site| enough(site.rank_for_inputs, site.rank)).count();
    let none = advice.sites.iter().filter(|site| site.anew_by_inputs == 0).count();
    let moved = advice.sites.iter().filter(|site| site.anew_by_inputs != site.rank).count();
    let without = match none {
        0 => String::new(),
        1 => " (one would get no adapter)".to_owned(),
        none => format!(" ({none} would get no adapter)"),
    };
    format!(
        "The first r components explain {} of the variance of a layer's inputs on average; {held} of {} layers reach {} with their rank. \
         Given out anew by it, at most {} times the rank a layer, {moved} layers change theirs{without} and the average becomes {}.",
        percent(advice.summed.explained),
        advice.sites.len(),
        percent(advice.share),
        advice.rho,
        percent(advice.summed.explained_anew)
    )
}

fn memory(advice: &Advice) -> Option<String> {
    let peak = |each: &MethodAdvice| {
        let predicted = each.predicted.as_ref()?;
        Some(predicted.training_bytes.max(predicted.evidence_bytes.unwrap_or(0)))
    };
    let least = advice.methods.iter().filter_map(peak).min()?;
    let most = advice.methods.iter().filter_map(peak).max()?;
    let megabytes = |bytes: usize| format!("{:.0} MB", bytes as f64 / 1e6);
    Some(if least == most {
        format!("Training is predicted to take {}.", megabytes(most))
    } else {
        format!(
            "Training, evidence included, is predicted to take {} to {}.",
            megabytes(least),
            megabytes(most)
        )
    })
}
