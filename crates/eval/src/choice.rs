//! Multiple choice: the model answers with the continuation that it finds likeliest.

use lowrank_models::{Decoder, ModelError};
use lowrank_task::TokenizedQuestion;

/// Which choice a model takes, from `log p` of each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Chosen {
    /// The largest `log p` of the whole continuation.
    pub likeliest: usize,
    /// The largest `log p` per byte of the choice's text: does not favour short choices.
    pub likeliest_per_byte: usize,
}

/// Shares of right answers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MultipleChoice {
    /// Questions asked.
    pub questions: usize,
    /// Share answered rightly by `log p`.
    pub accuracy: f64,
    /// Share answered rightly by `log p` per byte.
    pub accuracy_per_byte: f64,
    /// Expected share of a random guess.
    pub chance: f64,
    /// Standard error of `accuracy`, binomial.
    pub standard_error: f64,
}

impl MultipleChoice {
    /// Shares over questions; `None` without questions.
    #[must_use]
    pub fn of(questions: &[TokenizedQuestion], chosen: &[Chosen]) -> Option<MultipleChoice> {
        let count = questions.len().min(chosen.len());
        let share = |right: &dyn Fn(&TokenizedQuestion, &Chosen) -> f64| {
            questions.iter().zip(chosen).map(|(question, chosen)| right(question, chosen)).sum::<f64>()
                / count as f64
        };
        let accuracy = share(&|question, chosen| f64::from(u8::from(question.answer == chosen.likeliest)));
        (count > 0).then(|| MultipleChoice {
            questions: count,
            accuracy,
            accuracy_per_byte: share(&|question, chosen| {
                f64::from(u8::from(question.answer == chosen.likeliest_per_byte))
            }),
            chance: share(&|question, _| 1.0 / question.continuations.len() as f64),
            standard_error: (accuracy * (1.0 - accuracy) / count as f64).sqrt(),
        })
    }
}

/// Asks every question; `each` sees the number answered and says whether to go on: what was answered until then counts.
///
/// # Errors
/// [`ModelError`] for tokens outside the vocabulary or a question longer than the context.
pub fn multiple_choice(
    model: &Decoder,
    questions: &[TokenizedQuestion],
    each: &mut dyn FnMut(usize) -> bool,
) -> Result<Option<MultipleChoice>, ModelError> {
    let mut chosen = Vec::with_capacity(questions.len());
    for (index, question) in questions.iter().enumerate() {
        chosen.push(choose(question, &log_likelihoods(model, question)?));
        if !each(index + 1) {
            break;
        }
    }
    Ok(MultipleChoice::of(questions, &chosen))
}

/// `log p` of each continuation, summed over its tokens. The context is read once and kept as keys and values.
///
/// # Errors
/// [`ModelError`] for tokens outside the vocabulary or a question longer than the context.
fn log_likelihoods(model: &Decoder, question: &TokenizedQuestion) -> Result<Vec<f64>, ModelError> {
    let mut cache = model.cache();
    let context = model.extend(&question.context, &mut cache)?;
    let (seen, rows) = (cache.seen(), context.dims()[0]);
    let last = context.narrow(0, rows - 1, 1);
    let mut all = Vec::with_capacity(question.continuations.len());
    for continuation in &question.continuations {
        cache.rewind(seen);
        let targets: Vec<i32> = continuation.iter().map(|&token| token as i32).collect();
        let mut loss = f64::from(model.score(last.clone(), &targets[..1])?[0]);
        if targets.len() > 1 {
            let read = model.extend(&continuation[..continuation.len() - 1], &mut cache)?;
            loss += model.score(read, &targets[1..])?.into_iter().map(f64::from).sum::<f64>();
        }
        all.push(-loss);
    }
    Ok(all)
}

/// The choice a model takes, given `log p` of each; the first of equals.
#[must_use]
pub fn choose(question: &TokenizedQuestion, log_likelihoods: &[f64]) -> Chosen {
    let best = |score: &dyn Fn(usize) -> f64| {
        (1..log_likelihoods.len()).fold(0, |best, next| if score(next) > score(best) { next } else { best })
    };
    Chosen {
        likeliest: best(&|index| log_likelihoods[index]),
        likeliest_per_byte: best(&|index| log_likelihoods[index] / question.bytes[index].max(1) as f64),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lowrank_models::Config;
    use lowrank_record::Seed;
    use lowrank_tensor::{cpu, ops::Layout, to_rows};

    fn question(
        context: &[u32],
        continuations: &[&[u32]],
        bytes: &[usize],
        answer: usize,
    ) -> TokenizedQuestion {
        TokenizedQuestion {
            context: context.to_vec(),
            continuations: continuations.iter().map(|tokens| tokens.to_vec()).collect(),
            bytes: bytes.to_vec(),
            answer,
        }
    }

    #[test]
    fn per_byte_does_not_favour_the_short() {
        let asked = question(&[1], &[&[2], &[3, 4]], &[2, 10], 1);
        assert_eq!(choose(&asked, &[-3.0, -5.0]), Chosen { likeliest: 0, likeliest_per_byte: 1 });
        let chosen = [choose(&asked, &[-3.0, -5.0]), choose(&asked, &[-6.0, -5.0])];
        let shares = MultipleChoice::of(&[asked.clone(), asked], &chosen).unwrap();
        assert_eq!((shares.accuracy, shares.accuracy_per_byte, shares.chance), (0.5, 1.0, 0.5));
        assert!((shares.standard_error - 0.125_f64.sqrt()).abs() < 1e-12);
    }

    #[test]
    fn the_shared_context_gives_the_same_as_whole_rows() {
        let config = serde_json::json!({
            "model_type": "llama", "vocab_size": 40, "hidden_size": 16, "intermediate_size": 24,
            "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
            "max_position_embeddings": 32, "tie_word_embeddings": false, "rms_norm_eps": 1e-5
        });
        let model = Decoder::random(Config::from_json(&config).unwrap(), Seed(3), &cpu()).unwrap();
        let asked = question(&[5, 9, 2], &[&[7], &[8, 1, 30], &[6, 6]], &[1, 1, 1], 0);
        let found = log_likelihoods(&model, &asked).unwrap();
        for (continuation, found) in asked.continuations.iter().zip(found) {
            let row: Vec<u32> = asked.context.iter().chain(continuation).copied().collect();
            let logits = to_rows(model.logits(&row, &Layout::dense(1, row.len())).unwrap());
            let expected: f64 = (0..continuation.len())
                .map(|index| {
                    let at = asked.context.len() - 1 + index;
                    let row = &logits[at * 40..(at + 1) * 40];
                    let total: f64 = row.iter().map(|&logit| f64::from(logit).exp()).sum();
                    f64::from(row[continuation[index] as usize]) - total.ln()
                })
                .sum();
            assert!((found - expected).abs() < 1e-4, "{found} {expected}");
        }
    }
}
