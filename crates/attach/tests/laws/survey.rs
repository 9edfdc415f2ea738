//! What is looked at in one pass is what a dense computation gives, and what attaching would start with.

use faer::{Mat, MatRef};
use lowrank_attach::{AttachError, Candidate, Looked, Survey, Wanted, survey};
use lowrank_linalg::{LowRank, energy, from_rows, svd_in_f64};
use lowrank_models::{Decoder, Recompute};
use lowrank_record::Seed;

use crate::small::*;

fn candidate(init: &str, form: &str) -> Candidate {
    let none: [(&str, &str); 0] = [];
    Candidate {
        initialiser: (init != "none").then(|| lowrank_init::by_name(init, none).unwrap()),
        form: lowrank_adapt::by_name(form, none).unwrap(),
        seed: Seed(3),
        first_rate: 0.01,
    }
}

fn looked(model: &mut Decoder, candidates: &[(&str, &str)]) -> Survey {
    let plan = plan(model);
    let candidates = candidates.iter().map(|(init, form)| candidate(init, form)).collect();
    let wanted = Wanted { candidates, whole_up_to: 100, rho: 2.0 };
    survey(model, &plan, &calibration(4, "calibration"), Recompute::Nothing, wanted, Seed(8)).unwrap()
}

fn gradient(name: &str, [out, inp]: [usize; 2]) -> Mat<f32> {
    let whole = whole_gradients(built(true), &calibration(4, "calibration"));
    let (_, values) = whole.iter().find(|(site, _)| site == name).unwrap();
    from_rows(values, out, inp).unwrap()
}

fn followed(looked: &Looked, index: usize) -> lowrank_attach::Followed {
    looked.candidates[index].as_ref().unwrap().followed.unwrap()
}

/// `P_l G + G P_r − P_l G P_r` with the projections formed.
fn projected(gradient: &Mat<f32>, delta: &LowRank) -> f64 {
    let projection = |of: MatRef<'_, f32>| {
        let svd = svd_in_f64(of).unwrap();
        let count = svd.values.iter().filter(|&&value| value > 1e-6 * svd.values[0]).count();
        let basis = svd.left.subcols(0, count).to_owned();
        &basis * basis.transpose()
    };
    let (l, r) = (projection(delta.left.as_ref()), projection(delta.right.transpose()));
    let both = &l * gradient + gradient * &r - &l * gradient * &r;
    energy(both.as_ref())
}

#[test]
fn spectra_and_parts_are_those_of_the_dense_computation() {
    let mut model = model();
    let starts =
        [("kaiming", "lora"), ("pissa", "lora"), ("lora-ga", "lora"), ("eva", "lora"), ("none", "full")];
    let survey = looked(&mut model, &starts);
    assert_eq!(survey.sites.len(), plan(&model).sites.len());
    for looked in &survey.sites {
        let (name, shape) = (&looked.site.name, looked.site.shape);
        let whole = gradient(name, shape);
        let values = svd_in_f64(whole.as_ref()).unwrap().values;
        assert!(looked.gradient.is_whole && looked.weight.is_whole && looked.inputs.is_whole);
        for (found, wanted) in looked.gradient.values.iter().zip(&values) {
            assert!((found - wanted).abs() < 1e-4 * values[0], "{name}: {found} {wanted}");
        }
        let sites = model.sites();
        let (_, linear) = sites.iter().find(|(site, _)| site == name).unwrap();
        let weight = from_rows(&linear.frozen().unwrap().to_f32(), shape[0], shape[1]).unwrap();
        let of_weight = svd_in_f64(weight.as_ref()).unwrap();
        assert!((looked.weight.values[0] / of_weight.values[0] - 1.0).abs() < 1e-6);
        // PiSSA's factors are the leading triplets of the weight: what they see is known without it.
        let leading = of_weight.head(looked.site.rank).balanced(1.0);
        let (found, wanted) = (followed(looked, 1).seen, projected(&whole, &leading));
        assert!((found / wanted - 1.0).abs() < 1e-3, "{name}: {found} {wanted}");
        // LoRA-GA takes the first 2r directions of the gradient, and no two factors see more.
        let best: f64 = values.iter().take(2 * looked.site.rank).map(|value| value * value).sum();
        assert!((followed(looked, 2).seen / best - 1.0).abs() < 1e-3, "{name}");
        for index in 0..4 {
            assert!(followed(looked, index).seen <= best * (1.0 + 1e-4), "{name} {index}");
        }
        let all = energy(whole.as_ref());
        assert!((followed(looked, 4).seen / all - 1.0).abs() < 1e-3);
        // Parts of a variance, of which the first r are those that EVA states.
        let explained: f64 = looked.explained.iter().take(looked.site.rank).sum();
        let eva = &looked.candidates[3].as_ref().unwrap().report;
        let stated = eva.get("part of the inputs' variance captured").unwrap().to_string();
        assert!((stated.parse::<f64>().unwrap() - explained).abs() < 1e-3, "{name}: {stated} {explained}");
        assert!(looked.explained.is_sorted_by(|a, b| a >= b) && explained <= 1.0 + 1e-6);
    }
}

#[test]
fn starts_are_those_that_attaching_gives() {
    let mut model = model();
    let survey = looked(&mut model, &[("kaiming", "lora"), ("lora-ga", "lora")]);
    let ga = lowrank_init::methods::LoraGa::DEFAULT;
    for (index, init) in
        [&lowrank_init::methods::Kaiming as &dyn lowrank_init::Initialiser, &ga].into_iter().enumerate()
    {
        let mut fresh = built(true);
        let attached = started(&mut fresh, init, lowrank_adapt::ALL[0], lowrank_adapt::Offset::Shadow);
        for (each, looked) in attached.iter().zip(&survey.sites) {
            let [out, inp] = each.site.shape;
            let (left, right) = each.initial.as_ref().unwrap();
            let delta = LowRank::from_rows(left, right, out, inp, each.site.rank).unwrap();
            let wanted = projected(&gradient(&each.site.name, each.site.shape), &delta);
            let found = followed(looked, index).seen;
            assert!((found / wanted - 1.0).abs() < 2e-3, "{}: {found} {wanted}", each.site.name);
        }
    }
}

#[test]
fn layers_that_share_their_inputs_share_what_is_found() {
    let survey = looked(&mut model(), &[("kaiming", "lora")]);
    let of = |end: &str| survey.sites.iter().find(|looked| looked.site.name.ends_with(end)).unwrap();
    let (k, v) = (of("0.self_attn.k_proj"), of("0.self_attn.v_proj"));
    assert_eq!((&k.inputs, &k.explained), (&v.inputs, &v.explained));
    assert!(k.gradient != v.gradient);
    let (gate, down) = (of("0.mlp.gate_proj"), of("0.mlp.down_proj"));
    assert!(gate.inputs != down.inputs);
}

#[test]
fn what_cannot_start_is_told_and_what_cannot_be_looked_at_refused() {
    let mut model = model();
    let survey = looked(&mut model, &[("orthogonal", "lora"), ("none", "vera")]);
    assert!(survey.sites.iter().all(|looked| looked.candidates[0].is_ok()));
    assert!(survey.sites.iter().all(|looked| looked.candidates[1].as_ref().unwrap().followed.is_none()));
    let plan = plan(&model);
    let wanted = || Wanted { candidates: Vec::new(), whole_up_to: 9, rho: 1.0 };
    let mut batch = calibration(2, "masked");
    batch.batch.targets.ids = vec![-1; 18].into();
    let refused = survey_of(&mut model, &plan, &batch, wanted()).unwrap_err();
    assert!(matches!(refused, AttachError::NoLoss), "{refused}");
    let mut batch = calibration(2, "hidden");
    batch.shown = vec![vec![false; 18]];
    let refused = survey_of(&mut model, &plan, &batch, wanted()).unwrap_err();
    assert!(matches!(refused, AttachError::NothingShown), "{refused}");
}

fn survey_of(
    model: &mut Decoder,
    plan: &lowrank_attach::Plan,
    batch: &lowrank_attach::Calibration,
    wanted: Wanted,
) -> Result<Survey, AttachError> {
    survey(model, plan, batch, Recompute::Nothing, wanted, Seed(8))
}
