//! Facts of the starts with singular vectors around a core, LoRA-XS and SVFit, and of SLoRA.

#![allow(clippy::unwrap_used, clippy::panic, reason = "clippy sees only the #[test] functions here as tests")]

use faer::Mat;
use lowrank_init::{Evidence, Site, Start, by_name};
use lowrank_linalg::{LowRank, energy, finite, multiply, svd_in_f64, widen};
use lowrank_record::Seed;

fn start(name: &str, choices: &[(&str, &str)], weight: &Mat<f32>, rank: usize, scale: f64) -> Start {
    let site = Site { out: weight.nrows(), inp: weight.ncols(), scale };
    let seen = Evidence::of(site).with_weight(weight.as_ref());
    by_name(name, choices.iter().copied()).unwrap().start(&seen, rank, Seed(3)).unwrap()
}

fn random(seed: u64, out: usize, inp: usize) -> Mat<f32> {
    let draws = Seed(seed).normal(out * inp);
    Mat::from_fn(out, inp, |i, j| draws[i * inp + j])
}

fn off_identity(gram: &Mat<f64>) -> f64 {
    energy((gram - Mat::<f64>::identity(gram.nrows(), gram.ncols())).as_ref()).sqrt()
}

/// left·core·right in f64.
fn change(delta: &LowRank, core: &Mat<f32>) -> Mat<f64> {
    let left = multiply(widen(delta.left.as_ref()).as_ref(), widen(core.as_ref()).as_ref());
    multiply(left.as_ref(), widen(delta.right.as_ref()).as_ref())
}

#[test]
fn lora_xs_holds_the_best_approximation_with_the_values_on_the_right() {
    for (out, inp) in [(34, 22), (22, 34)] {
        let weight = random(1, out, inp);
        let truth = svd_in_f64(widen(weight.as_ref()).as_ref()).unwrap();
        let Start { delta, core, .. } = start("lora-xs", &[], &weight, 6, 2.5);
        let product = widen(delta.reconstruct().as_ref());
        assert!(energy((product - truth.head(6).reconstruct()).as_ref()).sqrt() < 1e-5);
        let (left, right) = (widen(delta.left.as_ref()), widen(delta.right.as_ref()));
        assert!(off_identity(&multiply(left.transpose(), left.as_ref())) < 1e-6);
        let gram = multiply(right.as_ref(), right.transpose());
        let squares = Mat::from_fn(6, 6, |i, j| if i == j { truth.values[i].powi(2) } else { 0.0 });
        assert!(energy((gram - &squares).as_ref()).sqrt() < 1e-5 * truth.values[0].powi(2));
        // 36 draws of deviation 1e-5.
        let rms = (energy(core.unwrap().as_ref()) / 36.0).sqrt();
        assert!((rms / 1e-5 - 1.0).abs() < 0.35, "{rms:e}");
    }
}

#[test]
fn lora_xs_can_leave_the_function_and_look_at_nothing() {
    let weight = random(1, 34, 22);
    let none = start("lora-xs", &[("deviation", "0")], &weight, 6, 2.5);
    assert_eq!(energy(none.core.unwrap().as_ref()), 0.0);
    assert!(energy(none.delta.left.as_ref()) > 0.0 && energy(none.delta.right.as_ref()) > 0.0);
    let blind = start("lora-xs", &[("bases", "random")], &weight, 6, 2.5).delta;
    let other = start("lora-xs", &[("bases", "random")], &random(2, 34, 22), 6, 2.5).delta;
    assert!(blind == other);
    let most = |m: &Mat<f32>| m.col_iter().flat_map(|c| c.iter().map(|x| x.abs())).fold(0.0, f32::max);
    let bounds = [(&blind.left, 6.0_f32.sqrt().recip()), (&blind.right, 22.0_f32.sqrt().recip())];
    for (factor, bound) in bounds {
        assert!(most(factor) <= bound && most(factor) > 0.9 * bound, "{} {bound}", most(factor));
    }
}

#[test]
fn svfit_is_orthonormal_and_the_rest_is_orthogonal_to_it() {
    for (out, inp) in [(34, 22), (22, 34)] {
        let (weight, rank, scale) = (random(1, out, inp), 6, 2.5);
        let truth = svd_in_f64(widen(weight.as_ref()).as_ref()).unwrap();
        let start = start("svfit", &[], &weight, rank, scale);
        let core = start.core.as_ref().unwrap();
        let (left, right) = (widen(start.delta.left.as_ref()), widen(start.delta.right.as_ref()));
        assert!(off_identity(&multiply(left.transpose(), left.as_ref())) < 1e-6);
        assert!(off_identity(&multiply(right.as_ref(), right.transpose())) < 1e-6);
        for i in 0..rank {
            assert!((f64::from(core[(i, i)]) * scale - truth.values[i]).abs() < 1e-5);
            assert!((0..rank).all(|j| i == j || core[(i, j)] == 0.0));
        }
        let rest = widen(start.base_weight(weight.as_ref(), scale).as_ref());
        assert!(energy(multiply(left.transpose(), rest.as_ref()).as_ref()).sqrt() < 1e-4);
        assert!(energy(multiply(rest.as_ref(), right.transpose()).as_ref()).sqrt() < 1e-4);
        // Eckart and Young.
        assert!((energy(rest.as_ref()).sqrt() / truth.tail(rank) - 1.0).abs() < 1e-5);
    }
}

#[test]
fn the_diagonal_of_svfit_is_a_set_of_orthonormal_coordinates() {
    let (weight, rank, scale) = (random(1, 26, 18), 5, 2.5);
    let start = start("svfit", &[], &weight, rank, scale);
    let z = [3.0, -1.5, 0.25, 0.0, 7.0];
    let core = Mat::from_fn(rank, rank, |i, j| if i == j { (z[i] / scale) as f32 } else { 0.0 });
    let base = widen(start.base_weight(weight.as_ref(), scale).as_ref());
    let merged = base + faer::Scale(scale) * change(&start.delta, &core);
    // Whatever z is, the singular values are |z| and those that stayed.
    let truth = svd_in_f64(widen(weight.as_ref()).as_ref()).unwrap().values;
    let mut wanted: Vec<f64> = z.iter().map(|x: &f64| x.abs()).chain(truth[rank..].iter().copied()).collect();
    wanted.sort_by(|x, y| y.total_cmp(x));
    for (found, wanted) in svd_in_f64(merged.as_ref()).unwrap().values.iter().zip(&wanted) {
        assert!((found - wanted).abs() < 1e-5, "{found} {wanted}");
    }
    let moved = energy((merged - widen(weight.as_ref())).as_ref()).sqrt();
    let step = z.iter().zip(&truth).map(|(z, value)| (z - value).powi(2)).sum::<f64>().sqrt();
    assert!((moved / step - 1.0).abs() < 1e-5, "{moved} {step}");
}

#[test]
fn the_transposed_weight_has_the_transposed_adapter() {
    let (weight, rank) = (random(1, 26, 18), 5);
    let (plain, turned) = (
        start("svfit", &[], &weight, rank, 2.0),
        start("svfit", &[], &weight.transpose().to_owned(), rank, 2.0),
    );
    let (plain, turned) =
        (change(&plain.delta, &plain.core.unwrap()), change(&turned.delta, &turned.core.unwrap()));
    assert!(energy((plain - turned.transpose()).as_ref()).sqrt() < 1e-5);
}

#[test]
fn slora_draws_right_and_core_within_their_bounds() {
    let Start { delta, core, .. } = start("slora", &[], &random(1, 40, 90), 8, 2.5);
    let core = core.unwrap();
    assert_eq!(energy(delta.left.as_ref()), 0.0);
    assert!(finite(core.as_ref()).is_ok());
    for (matrix, fan) in [(&delta.right, 90.0_f64), (&core, 8.0)] {
        let values: Vec<f64> = matrix.col_iter().flat_map(|c| c.iter().map(|&x| f64::from(x))).collect();
        let most = values.iter().fold(0.0_f64, |most, x| most.max(x.abs()));
        assert!(most <= fan.sqrt().recip() && most > 0.9 * fan.sqrt().recip(), "{most} {fan}");
        // Uniform: a third of the bound's square.
        let variance = values.iter().map(|x| x * x).sum::<f64>() / values.len() as f64;
        assert!((variance * 3.0 * fan - 1.0).abs() < 0.25, "{variance} {fan}");
    }
}
