//! The page of an adapter's regime: one table and one heat map.

use lowrank_command::page::{HeatMap, Page, Table, dashed, head};

use super::{AdapterRegime, SiteRegime};

/// A row for each layer.
#[must_use]
pub fn table(found: &AdapterRegime) -> Table {
    let row = |site: &SiteRegime| {
        let overlap = |value: Option<f64>, chance: f64| match value {
            Some(value) => format!("{value:.3} ({chance:.3})"),
            None => "–".to_owned(),
        };
        vec![
            site.name.clone(),
            site.rank.to_string(),
            format!("{:.2}", site.start.effective),
            format!("{:.2}", site.change.effective),
            format!("{:.2}", site.change.stable),
            format!("{:.2}", site.change.participation),
            format!("{:.4}", site.relative_change),
            dashed(site.amplification, 2),
            overlap(site.left_overlap, site.chance.0),
            overlap(site.right_overlap, site.chance.1),
            dashed(site.representation_alignment, 4),
            dashed(site.centred_alignment, 4),
        ]
    };
    Table {
        caption: "Layers".to_owned(),
        note: "Effective ranks of the start and of the learned change; the change relative to the base, and to what the base has along the change's \
               directions; its overlap with the factors of the start, with what random spaces have in brackets; alignment of the layer's \
               output on the calibration data before and after. A small change, a large overlap and an alignment near 1 are lazy."
            .to_owned(),
        head: head(&[
            "layer",
            "rank",
            "start",
            "change",
            "stable",
            "participation",
            "‖ΔW‖/‖W‖",
            "amplification",
            "left overlap",
            "right overlap",
            "RA",
            "RA, centred",
        ]),
        rows: found.sites.iter().map(row).collect(),
        ..Table::default()
    }
}

/// The page.
#[must_use]
pub fn page(found: &AdapterRegime, title: &str) -> Page {
    Page {
        title: title.to_owned(),
        verdict: sentences(found),
        facts: vec![("Layers".to_owned(), found.sites.len().to_string())],
        tables: vec![table(found)],
        heat_maps: vec![heat_map(found)],
        ..Page::default()
    }
}

fn sentences(found: &AdapterRegime) -> Vec<String> {
    let changes = || found.sites.iter().filter(|site| site.relative_change.is_finite());
    let most = changes().max_by(|a, b| a.relative_change.total_cmp(&b.relative_change));
    let least = changes().min_by(|a, b| a.relative_change.total_cmp(&b.relative_change));
    let (Some(most), Some(least)) = (most, least) else { return Vec::new() };
    let per_cent = |value: f64| format!("{:.2} %", 100.0 * value);
    let mut sentences = vec![format!(
        "The weights changed by {} of their norm ({}) to {} ({}).",
        per_cent(least.relative_change),
        least.name,
        per_cent(most.relative_change),
        most.name
    )];
    let used: Vec<f64> = found
        .sites
        .iter()
        .filter(|site| site.rank > 0)
        .map(|site| site.change.effective / site.rank as f64)
        .collect();
    if !used.is_empty() {
        let mean = used.iter().sum::<f64>() / used.len() as f64;
        sentences.push(format!(
            "The effective rank of the learned change is on average {mean:.2} of the adapter's rank{}.",
            if mean < 0.5 { ": a smaller rank may do" } else { "" }
        ));
    }
    let aligned = found.sites.iter().filter_map(|site| Some((site, site.centred_alignment?)));
    if let Some((site, value)) = aligned.min_by(|a, b| a.1.total_cmp(&b.1)) {
        sentences.push(format!(
            "The representation moved most in {}: its centred alignment is {value:.3}.",
            site.name
        ));
    }
    sentences
}

/// Relative changes, a row for each block of the model and a column for each kind of layer.
fn heat_map(found: &AdapterRegime) -> HeatMap {
    let (mut rows, mut columns): (Vec<String>, Vec<String>) = (Vec::new(), Vec::new());
    let places: Vec<(usize, usize)> = found
        .sites
        .iter()
        .map(|site| {
            let (block, kind) = split(&site.name);
            (place(&mut rows, block), place(&mut columns, kind))
        })
        .collect();
    let mut values = vec![vec![None; columns.len()]; rows.len()];
    for (site, (row, column)) in found.sites.iter().zip(places) {
        values[row][column] = Some(100.0 * site.relative_change);
    }
    HeatMap {
        caption: "Change relative to the base".to_owned(),
        note: "‖ΔW‖/‖W‖ in per cent; the darker, the more a layer learned.".to_owned(),
        rows,
        columns,
        values,
        digits: 2,
    }
}

/// Where this name stands in the list, at whose end it is put when it is new.
fn place(names: &mut Vec<String>, name: &str) -> usize {
    names.iter().position(|known| known == name).unwrap_or_else(|| {
        names.push(name.to_owned());
        names.len() - 1
    })
}

/// A name up to its first number, and what follows: `layers.0` and `self_attn.q_proj`.
fn split(name: &str) -> (&str, &str) {
    let mut at = 0;
    for part in name.split('.') {
        let end = at + part.len();
        if !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit()) {
            return (&name[..end], name.get(end + 1..).unwrap_or(""));
        }
        at = end + 1;
    }
    ("", name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_split_behind_their_first_number() {
        assert_eq!(split("model.layers.12.mlp.up"), ("model.layers.12", "mlp.up"));
        assert_eq!(split("head"), ("", "head"));
        assert_eq!(split("0"), ("0", ""));
    }
}
