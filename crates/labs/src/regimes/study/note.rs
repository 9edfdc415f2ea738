//! The note of the study: question, command, rule, numbers, answer, what was not shown.

use std::fmt::Write as _;

use lowrank_command::{AppError, Because};
use serde_json::Value;

use super::{Studied, page};

/// The note as Markdown; `command` runs the study again.
#[must_use]
pub fn note(studied: &Studied, command: &str) -> String {
    let size = &studied.size;
    let mut note = format!("# {}\n\n", studied.title);
    let say = |note: &mut String, text: &str| {
        let _ = writeln!(note, "{text}\n");
    };
    if size.quick {
        say(&mut note, "**A run of seconds, to see that everything works: these numbers decide nothing.**");
    }
    say(&mut note, &format!("**The paper ({}).** {}", studied.paper, studied.claim));
    say(
        &mut note,
        "**Question.** At one norm of the initial recurrent weights, is learning richer from a low rank than from the whole one, in kernel, \
         representation and weights, at an equal loss? Does that survive an equal first singular value or spectral radius? And does the linear \
         network follow its closed forms?",
    );
    say(&mut note, &format!("**Command.** `{command}`"));
    say(
        &mut note,
        &format!(
            "**Ground.** {} units, rectified, no leak, no biases; 2AF, DMS and CXT as in neurogym 0.0.2; {} batches of {} trials, gradient descent \
             with momentum 0.9 at the rate {}; the control Gaussian of gain {}; {} seeds from {}, each with a control, other weights, batches and \
             probes of its own, the same for all starts.",
            size.units, size.iterations, size.trials, size.rate, size.gain, size.seeds, size.first_seed
        ),
    );
    say(&mut note, &format!("**Rule, fixed before the numbers.** {}", studied.rule));
    say(&mut note, "## Statements");
    note.push_str(&page::statements(studied).markdown());
    say(&mut note, &format!("**Answer.** {}", studied.sentences.join(" ")));
    say(&mut note, "## Numbers");
    for table in [page::outcomes(studied), page::theory(studied), page::spectra(studied)] {
        say(&mut note, &format!("**{}.** {}", table.caption, table.note));
        note.push_str(&table.markdown());
    }
    say(&mut note, "## What was not shown");
    for sentence in &studied.not_shown {
        let _ = writeln!(note, "* {sentence}");
    }
    let _ = write!(
        note,
        "\n[`result.json`](result.json) holds every run, [`report.html`](report.html) the curves.\n"
    );
    note
}

/// The study as JSON, numbers to six digits: more would be digits of a single run on noise.
///
/// # Errors
/// [`AppError::Failed`].
pub fn json(studied: &Studied) -> Result<String, AppError> {
    let mut value = serde_json::to_value(studied).while_doing("writing the result")?;
    round(&mut value);
    Ok(serde_json::to_string(&value).while_doing("writing the result")? + "\n")
}

fn round(value: &mut Value) {
    match value {
        Value::Array(values) => values.iter_mut().for_each(round),
        Value::Object(fields) => fields.iter_mut().for_each(|(_, value)| round(value)),
        Value::Number(number) if number.is_f64() => {
            let short = number.as_f64().and_then(|number| format!("{number:.5e}").parse::<f64>().ok());
            if let Some(short) = short.and_then(serde_json::Number::from_f64) {
                *number = short;
            }
        }
        _ => {}
    }
}
