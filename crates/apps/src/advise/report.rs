//! The page of an advice.

use super::advice::{Advice, SiteAdvice, SpectrumAdvice};
use super::options::Advise;
use super::table::rank_or_more;
use super::words::percent;
use crate::adaptation::Prepared;
use crate::subject::Subject;
use lowrank_command::page::{Line, Page, Plot, Table, dashed, head};

pub(super) fn page<N: Subject>(prepared: &Prepared<N>, options: &Advise, advice: &Advice) -> Page {
    Page {
        title: format!("lowrank advise: {}", advice.model),
        verdict: advice.words.clone(),
        facts: facts(prepared, options, advice),
        tables: vec![methods(advice), costs(advice)],
        plots: plots(advice),
        heat_maps: Vec::new(),
        details: vec![spectra(advice), ranks(advice), seen(advice)],
        recipe: String::new(),
    }
}

fn facts<N: Subject>(prepared: &Prepared<N>, options: &Advise, advice: &Advice) -> Vec<(String, String)> {
    let data = options.data.as_ref();
    let facts = [
        ("Model hash", advice.model_hash.clone()),
        ("Data", data.map_or("the text inside lowrank".to_owned(), |data| data.display().to_string())),
        ("Examples to train on", prepared.data.train.len().to_string()),
        (
            "Looked at",
            format!(
                "{} tokens, {:.0} of them with loss {:.4}",
                advice.tokens, advice.loss_tokens, advice.loss
            ),
        ),
        ("Layers", format!("{} at rank {}, alpha {}", advice.sites.len(), advice.rank, options.alpha)),
        ("Seed", options.seed.to_string()),
        ("Time", format!("{:.0} s", advice.seconds)),
    ];
    facts.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

fn methods(advice: &Advice) -> Table {
    let rows = advice.methods.iter().map(|each| {
        let captured = each.captured.as_ref();
        vec![
            each.name.clone(),
            format!("{} × {}", each.init, each.form),
            each.seen.map_or_else(|| "–".to_owned(), percent),
            dashed(each.cosine, 4),
            captured.map_or_else(|| "–".to_owned(), |(what, value)| format!("{value:.3} ({what})")),
            match each.refused {
                0 => "all".to_owned(),
                refused => format!("all but {refused}"),
            },
        ]
    });
    Table {
        caption: "How much of the gradient each method can follow at its first step".to_owned(),
        note: format!(
            "Seen: the part of the gradient's energy in the space of changes that the trained values reach, over all layers; two trained \
             factors of these ranks reach {} at most. Cosine: of a first step of gradient descent with the negative gradient; 1 is full \
             fine-tuning.",
            percent(advice.summed.most_seen)
        ),
        head: head(&["method", "start × form", "seen", "cosine", "its start holds", "layers"]),
        rows: rows.collect(),
        ..Table::default()
    }
}

fn costs(advice: &Advice) -> Table {
    let megabytes = |bytes: usize| format!("{:.0} MB", bytes as f64 / 1e6);
    let rows = advice.methods.iter().filter_map(|each| each.predicted.as_ref()).map(|each| {
        vec![
            each.name.clone(),
            each.parameters.to_string(),
            megabytes(each.training_bytes),
            each.evidence_bytes.map_or_else(|| "–".to_owned(), megabytes),
            format!("{:.1} s", each.evidence_seconds),
            format!("{:.2} s", each.step_seconds),
        ]
    });
    Table {
        caption: "What training is predicted to cost".to_owned(),
        note: "Trained values are exact for these ranks; memory and time are predicted from shapes and the rate of one product.".to_owned(),
        head: head(&[
            "method",
            "trained",
            "peak memory in training",
            "peak memory of the evidence",
            "evidence",
            "step",
        ]),
        rows: rows.collect(),
        ..Table::default()
    }
}

fn plots(advice: &Advice) -> Vec<Plot> {
    let line = |name: &str, value: &dyn Fn(&SiteAdvice) -> Option<f64>| Line {
        name: name.to_owned(),
        points: advice
            .sites
            .iter()
            .enumerate()
            .filter_map(|(index, site)| Some((index as f64, value(site)?)))
            .collect(),
        ..Line::default()
    };
    let plot = |caption: &str, y: &str, lines: Vec<Line>| Plot {
        caption: caption.to_owned(),
        x: "layer, in the order of the model".to_owned(),
        y: y.to_owned(),
        lines,
        ..Plot::default()
    };
    let each = advice.methods.iter().enumerate().filter(|(_, method)| method.seen.is_some());
    let seen = each.map(|(index, method)| line(&method.name, &move |site| site.seen.get(index).copied()?));
    let ranks = [
        line("planned", &|site| Some(site.rank as f64)),
        line("by the variance of inputs", &|site| Some(site.anew_by_inputs as f64)),
        line("by the energy of the gradient", &|site| Some(site.anew_by_gradient as f64)),
    ];
    vec![
        plot("Part of each layer's gradient that a method sees", "part of the energy", seen.collect()),
        plot(
            "Where the gradient is",
            "part of all layers' energy",
            vec![line("gradient", &|site| Some(site.gradient_part))],
        ),
        plot("The same sum of ranks, given out anew", "rank", ranks.into()),
    ]
}

fn spectra(advice: &Advice) -> Table {
    let cells = |found: &SpectrumAdvice| {
        [
            dashed(found.effective_rank, 1),
            format!("{:.2}", found.stable_rank),
            dashed(found.participation, 1),
            percent(found.in_first),
        ]
    };
    let row = |site: &SiteAdvice| {
        let named = [site.site.clone(), format!("{} × {}", site.shape[0], site.shape[1])];
        let all = [&site.weight, &site.inputs, &site.gradient].into_iter().flat_map(cells);
        named.into_iter().chain(all).collect()
    };
    let mut columns = vec!["layer".to_owned(), "shape".to_owned()];
    for of in ["weight", "inputs", "gradient"] {
        let parts = ["effective rank", "stable rank", "participation", "in the first r"];
        columns.extend(parts.map(|part| format!("{of}: {part}")));
    }
    Table {
        caption: "Spectra, layer by layer".to_owned(),
        note: "Effective rank: exponential of the entropy of the singular values. Stable rank: Σσ²/σ₁². Participation: (Σσ²)²/Σσ⁴. A dash \
               where not all values were computed. Inputs are about zero: their squares are the eigenvalues of the second moment."
            .to_owned(),
        head: columns,
        rows: advice.sites.iter().map(row).collect(),
        ..Table::default()
    }
}

fn ranks(advice: &Advice) -> Table {
    let row = |site: &SiteAdvice| {
        vec![
            site.site.clone(),
            site.rank.to_string(),
            percent(site.explained),
            rank_or_more(site.rank_for_inputs, site.rank),
            site.anew_by_inputs.to_string(),
            percent(site.gradient.in_first),
            rank_or_more(site.rank_for_gradient, site.rank),
            site.anew_by_gradient.to_string(),
            percent(site.gradient_part),
        ]
    };
    let hold = format!("rank for {}", percent(advice.share));
    Table {
        caption: "Ranks, layer by layer".to_owned(),
        note: "By the variance of inputs about their mean, and by the energy of the gradient: what the planned rank holds, the rank that \
               would hold the asked part, and the rank when the same sum is given out anew."
            .to_owned(),
        head: head(&[
            "layer",
            "planned",
            "inputs explained",
            &hold,
            "given anew",
            "gradient held",
            &hold,
            "given anew",
            "part of the gradient",
        ]),
        rows: advice.sites.iter().map(row).collect(),
        ..Table::default()
    }
}

fn seen(advice: &Advice) -> Table {
    let row = |site: &SiteAdvice| {
        let seen = site.seen.iter().map(|seen| seen.map_or_else(|| "–".to_owned(), percent));
        std::iter::once(site.site.clone()).chain(seen).collect()
    };
    let names = advice.methods.iter().map(|each| each.name.clone());
    Table {
        caption: "Part of the gradient seen, layer by layer".to_owned(),
        note: String::new(),
        head: std::iter::once("layer".to_owned()).chain(names).collect(),
        rows: advice.sites.iter().map(row).collect(),
        ..Table::default()
    }
}
