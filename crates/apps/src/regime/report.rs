//! What a run comes to in words, and its page.

use lowrank_command::page::{HeatMap, Line, Page, Plot, Table, dashed, head};

use super::Found;
use super::site::SiteRegime;

fn mean(values: impl Iterator<Item = f64>) -> Option<f64> {
    let (sum, count) = values.fold((0.0, 0_u32), |(sum, count), value| (sum + value, count + 1));
    (count > 0).then(|| sum / f64::from(count))
}

/// What the layers come to, in plain words.
pub(super) fn words(sites: &[SiteRegime]) -> Vec<String> {
    let moved = mean(sites.iter().map(|site| site.relative_change)).unwrap_or(0.0);
    let rank = mean(sites.iter().map(|site| site.change.effective_rank)).unwrap_or(0.0);
    let most = sites.iter().max_by(|a, b| a.relative_change.total_cmp(&b.relative_change));
    let turned = sites.iter().min_by(|a, b| a.centred_alignment.total_cmp(&b.centred_alignment));
    let mut words = vec![format!(
        "The weights moved by {:.2} % of their norm on average, along {rank:.1} directions; most at {} ({:.2} %).",
        100.0 * moved,
        most.map_or("", |site| site.name.as_str()),
        100.0 * most.map_or(0.0, |site| site.relative_change)
    )];
    if let (Some(shared), Some(chance)) = (
        mean(sites.iter().filter_map(|site| site.right_overlap)),
        mean(sites.iter().filter_map(|site| site.chance)),
    ) {
        words.push(format!(
            "{:.0} % of the change's leading input directions lie in the span that the start chose (random ones: {:.0} %): {}.",
            100.0 * shared,
            100.0 * chance,
            match shared {
                shared if shared > 0.9 => "it learned inside its start, so the start decided what could be learned",
                shared if shared > 0.5 => "it learned mostly inside its start",
                _ => "it left its start",
            }
        ));
    }
    if let Some(site) = turned {
        let all = mean(sites.iter().map(|site| site.centred_alignment)).unwrap_or(1.0);
        words.push(format!(
            "What layers are fed is aligned {all:.3} with what it was (1: only rotated and scaled), least at {} ({:.3}): {}.",
            site.name,
            site.centred_alignment,
            match all {
                all if all > 0.99 => "lazy: features are used as they were, and answers were changed by reading them otherwise",
                all if all > 0.9 => "mostly lazy, with features that turned in some layers",
                _ => "rich: the features themselves changed",
            }
        ));
    }
    words
}

pub(super) fn page(found: &Found) -> Page {
    let facts = [
        ("Model", found.model.clone()),
        ("Start", found.init.clone()),
        ("Adapter", found.adapter.display().to_string()),
        ("Layers", found.sites.len().to_string()),
        ("Compared", format!("{} tokens of the training data", found.tokens)),
    ];
    let numbered = |pick: &dyn Fn(&SiteRegime) -> Option<f64>| -> Vec<(f64, f64)> {
        let all = found.sites.iter().enumerate();
        all.filter_map(|(index, site)| Some((index as f64, pick(site)?))).collect()
    };
    let plot = |caption: &str, y: &str, lines: Vec<(&str, Vec<(f64, f64)>)>| Plot {
        caption: caption.to_owned(),
        x: "layer, in the order of the network".to_owned(),
        y: y.to_owned(),
        lines: lines
            .into_iter()
            .filter(|(_, points)| !points.is_empty())
            .map(|(name, points)| Line { name: name.to_owned(), points, marked: true, band: Vec::new() })
            .collect(),
        bars: Vec::new(),
    };
    Page {
        title: format!("lowrank regime: {} on {}", found.init, found.model),
        verdict: found.words.clone(),
        facts: facts.into_iter().map(|(name, value)| (name.to_owned(), value)).collect(),
        tables: Vec::new(),
        plots: vec![
            plot(
                "How far each weight moved",
                "norm of the change, % of the weight's",
                vec![("change", numbered(&|site| Some(100.0 * site.relative_change)))],
            ),
            plot(
                "Directions",
                "effective rank",
                vec![
                    ("of the learned change", numbered(&|site| Some(site.change.effective_rank))),
                    ("of the start", numbered(&|site| site.start.map(|start| start.effective_rank))),
                ],
            ),
            plot(
                "Before and after",
                "0 to 1",
                vec![
                    ("change in the start's input span", numbered(&|site| site.right_overlap)),
                    ("inputs, about their mean", numbered(&|site| Some(site.centred_alignment))),
                ],
            ),
        ],
        heat_maps: vec![moved(found)],
        details: vec![layers(found)],
        recipe: String::new(),
    }
}

/// The block and the kind of a layer, by the number in its name: `model.layers.3.mlp.up_proj` is block `model.layers.3`, kind `mlp.up_proj`.
fn block_and_kind(name: &str) -> (&str, &str) {
    let mut end = 0;
    for part in name.split('.') {
        end += part.len() + 1;
        if part.parse::<u32>().is_ok() && end < name.len() {
            return (&name[..end - 1], &name[end..]);
        }
    }
    ("", name)
}

fn moved(found: &Found) -> HeatMap {
    let (mut rows, mut columns): (Vec<String>, Vec<String>) = (Vec::new(), Vec::new());
    for site in &found.sites {
        let (block, kind) = block_and_kind(&site.name);
        for (all, one) in [(&mut rows, block), (&mut columns, kind)] {
            if !all.iter().any(|known| known == one) {
                all.push(one.to_owned());
            }
        }
    }
    let value = |row: &String, column: &String| {
        let is_it = |site: &&SiteRegime| block_and_kind(&site.name) == (row.as_str(), column.as_str());
        found.sites.iter().find(is_it).map(|site| 100.0 * site.relative_change)
    };
    let values = rows.iter().map(|row| columns.iter().map(|column| value(row, column)).collect()).collect();
    HeatMap {
        caption: "Where the weights moved".to_owned(),
        note: "Norm of the learned change, per cent of the weight's; blocks down, kinds of layers across."
            .to_owned(),
        rows,
        columns,
        values,
        digits: 2,
    }
}

fn layers(found: &Found) -> Table {
    let rows = found.sites.iter().map(|site| {
        vec![
            site.name.clone(),
            format!("{} × {}", site.shape[0], site.shape[1]),
            format!("{:.3} %", 100.0 * site.relative_change),
            dashed(site.start.map(|start| start.effective_rank), 1),
            format!("{:.1}", site.change.effective_rank),
            format!("{:.1}", site.change.participation_ratio),
            dashed(site.left_overlap, 3),
            dashed(site.right_overlap, 3),
            format!("{:.4}", site.input_alignment),
            format!("{:.4}", site.centred_alignment),
        ]
    });
    Table {
        caption: "Layers".to_owned(),
        note: "Moved: norm of the learned change over that of the weight. Start and change: effective rank (entropy of the singular values); \
               spread: participation ratio of the change. Out and in: the part of the change's leading singular vectors in the span of the \
               start's factors. Fed: alignment of what the layer is fed before and after, and the same about the mean."
            .to_owned(),
        head: head(&[
            "layer", "shape", "moved", "start", "change", "spread", "out", "in", "fed", "fed, centred",
        ]),
        rows: rows.collect(),
        marked: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_fall_into_blocks_and_kinds() {
        assert_eq!(block_and_kind("model.layers.3.mlp.up_proj"), ("model.layers.3", "mlp.up_proj"));
        assert_eq!(block_and_kind("lm_head"), ("", "lm_head"));
        assert_eq!(block_and_kind("layer.2"), ("", "layer.2"));
    }
}
