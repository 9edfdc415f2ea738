//! A model of two blocks, what it is shown, and what it answers.

use lowrank_adapt::{Form, Offset};
use lowrank_attach::{
    AttachError, Attached, Calibration, Collected, Gradients, InputStatistics, Plan, Site, Targets as Chosen,
    Way, attach, collect, collect_inputs,
};
use lowrank_init::{Initialiser, Leading};
use lowrank_models::network::Text;
use lowrank_models::{Config, Decoder, Network, Recompute};
use lowrank_record::{Need, Seed};
use lowrank_tensor::ops::{Layout, Targets};
use lowrank_tensor::{cpu, to_rows};

pub(crate) const VOCABULARY: usize = 60;
/// Even: the orthogonal start halves it.
pub(crate) const RANK: usize = 4;

pub(crate) fn model() -> Decoder {
    built(true)
}

pub(crate) fn built(tied: bool) -> Decoder {
    let config = serde_json::json!({
        "model_type": "llama", "vocab_size": VOCABULARY, "hidden_size": 24, "intermediate_size": 40,
        "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "rms_norm_eps": 1e-5,
        "max_position_embeddings": 64, "tie_word_embeddings": tied
    });
    Decoder::random(Config::from_json(&config).unwrap(), Seed(2), &cpu()).unwrap()
}

pub(crate) fn plan(model: &Decoder) -> Plan {
    let chosen = Chosen::parse("all-linear", None, None).unwrap();
    Plan::new(model, &chosen, RANK, 7.0, true, &[("q_proj".to_owned(), 2)], &[]).unwrap()
}

pub(crate) fn tokens(count: usize, name: &str) -> Vec<u32> {
    let draws = Seed(5).at("tokens", name).uniform(count, 1.0);
    draws.into_iter().map(|u| ((u.abs() * VOCABULARY as f32) as u32).min(VOCABULARY as u32 - 1)).collect()
}

pub(crate) fn calibration(rows: usize, name: &str) -> Calibration {
    let ids: Vec<i32> = tokens(rows * 9, &format!("{name} targets"))
        .iter()
        .enumerate()
        .map(|(index, &token)| if index % 4 == 0 { -1 } else { token as i32 })
        .collect();
    let targets = Targets { ids: ids.into(), weights: None };
    Calibration {
        batch: Text { tokens: tokens(rows * 9, name), targets, layout: Layout::dense(rows, 9) },
        shown: vec![vec![true; rows * 9]],
    }
}

pub(crate) fn leading(rank: usize) -> Leading {
    lowrank_init::methods::LoraGa::DEFAULT.leading(rank)
}

pub(crate) fn evidence(model: &mut Decoder, plan: &Plan, batches: &[Calibration]) -> Gradients {
    collect(model, plan, batches, Recompute::Nothing, &leading, Seed(8)).unwrap()
}

/// Everything that a start may be shown, as it asks for it.
pub(crate) struct Shown {
    pub(crate) gradients: Option<Gradients>,
    pub(crate) inputs: Option<InputStatistics>,
}

impl Shown {
    pub(crate) fn to(model: &mut Decoder, plan: &Plan, initialiser: &dyn Initialiser) -> Shown {
        let (needs, batch) = (initialiser.needs(), [calibration(4, "calibration")]);
        let gradients = needs.contains(&Need::Gradient).then(|| {
            collect(model, plan, &batch, Recompute::Nothing, &|rank| initialiser.leading(rank), Seed(8))
                .unwrap()
        });
        let rank = |site: &Site| plan.largest_rank(initialiser, site);
        let most = plan.sites.iter().map(rank).max().unwrap();
        let inputs = needs
            .contains(&Need::Inputs)
            .then(|| collect_inputs(model, plan, &batch, initialiser.inputs(most), &rank, Seed(8)).unwrap());
        Shown { gradients, inputs }
    }

    pub(crate) fn collected(&self) -> Collected<'_> {
        Collected { gradients: self.gradients.as_ref(), inputs: self.inputs.as_ref(), first_rate: Some(0.01) }
    }
}

/// Shows a start what it needs and mounts it in a form.
pub(crate) fn try_started(
    model: &mut Decoder,
    initialiser: &dyn Initialiser,
    form: &dyn Form,
    offset: Offset,
) -> Result<Vec<Attached>, AttachError> {
    let plan = plan(model);
    let shown = Shown::to(model, &plan, initialiser);
    let way = Way { initialiser: Some(initialiser), form, offset };
    attach(model, &plan, way, shown.collected(), Seed(3), "a")
}

pub(crate) fn started(
    model: &mut Decoder,
    initialiser: &dyn Initialiser,
    form: &dyn Form,
    offset: Offset,
) -> Vec<Attached> {
    try_started(model, initialiser, form, offset).unwrap()
}

/// A start that needs nothing to be collected.
pub(crate) fn bare(
    model: &mut Decoder,
    plan: &Plan,
    initialiser: &dyn Initialiser,
    form: &dyn Form,
    offset: Offset,
    name: &str,
) -> Result<Vec<Attached>, AttachError> {
    let way = Way { initialiser: Some(initialiser), form, offset };
    attach(model, plan, way, Collected::default(), Seed(3), name)
}

pub(crate) fn logits(model: &Decoder) -> Vec<f32> {
    to_rows(model.logits(&tokens(18, "sample"), &Layout::dense(2, 9)).unwrap())
}

pub(crate) fn worst(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    // A maximum would pass over NaN.
    let larger = |most: f32, off: f32| if off > most || off.is_nan() { off } else { most };
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, larger)
}

/// The whole gradient of every site, by training the weights themselves.
pub(crate) fn whole_gradients(mut model: Decoder, batch: &Calibration) -> Vec<(String, Vec<f32>)> {
    let variables = model.train_all().unwrap();
    let mut found = Vec::new();
    let passed = Network::gradients(&model, &batch.batch, Recompute::Nothing, false, &mut |gradients| {
        for (name, variable) in &variables {
            if let Some(gradient) = variable.take_gradient(gradients) {
                found.push((name.trim_end_matches(".weight").to_owned(), to_rows(gradient)));
            }
        }
    })
    .unwrap();
    for (_, gradient) in &mut found {
        gradient.iter_mut().for_each(|value| *value /= passed.weight as f32);
    }
    found
}

/// Moves every trained value away from where it started.
pub(crate) fn train_a_little(attached: &[Attached]) {
    for each in attached {
        for (part, var) in &each.variables {
            let noise = Seed(4).at(part, &each.site.name).normal(var.values().len());
            var.assign(var.values().iter().zip(noise).map(|(value, noise)| value + 0.05 * noise).collect());
        }
    }
}

pub(crate) fn values(each: &Attached, part: &str) -> Vec<f32> {
    each.variables.iter().find(|(name, _)| *name == part).map(|(_, var)| var.values()).unwrap()
}
