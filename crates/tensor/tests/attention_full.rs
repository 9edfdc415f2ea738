//! Attention over whole sequences equals a plain loop in f64, and its gradients equal finite differences.
#![allow(clippy::unwrap_used, clippy::expect_used)] // A failure here is a failure of the test.

use std::sync::Arc;

use lowrank_record::Seed;
use lowrank_tensor::ops::{FullAttention, attention_full};
use lowrank_tensor::{DType, Tensor, TensorData, cpu};

const HEAD_DIM: usize = 3;

fn draws(name: &str, count: usize) -> Vec<f64> {
    Seed(21).at("full", name).normal(count).into_iter().map(f64::from).collect()
}

fn constant(values: &[f64], shape: [usize; 2]) -> Tensor<2> {
    Tensor::from_data(TensorData::new(values.to_vec(), shape), (&cpu(), DType::F64))
}

fn tracked(values: &[f64], shape: [usize; 2]) -> Tensor<2> {
    Tensor::from_data(TensorData::new(values.to_vec(), shape), (&cpu().autodiff(), DType::F64)).require_grad()
}

fn values(tensor: Tensor<2>) -> Vec<f64> {
    tensor.inner().into_data().try_into_vec::<f64>().unwrap()
}

/// What is asked of a row of this table: padding at both ends, a bias, a causal mask, keys of another sequence.
fn rows() -> Vec<(&'static str, FullAttention)> {
    let marks = |hidden: &[usize], count: usize| -> Option<Arc<[bool]>> {
        Some((0..count).map(|at| !hidden.contains(&at)).collect())
    };
    let bias = |count: usize| -> Option<Arc<[f32]>> { Some(Seed(22).normal(count).into()) };
    let dense = FullAttention::dense(2, 5, 2, HEAD_DIM);
    vec![
        ("everything is seen", dense.clone()),
        ("padding at both ends", FullAttention { visible: marks(&[0, 1, 8, 9], 10), ..dense.clone() }),
        (
            "unscaled, with a bias and padding",
            FullAttention { scale: 1.0, bias: bias(2 * 25), visible: marks(&[3, 4, 9], 10), ..dense.clone() },
        ),
        (
            "causal, with a bias",
            FullAttention { causal: true, scale: 1.0, bias: bias(2 * 25), ..dense.clone() },
        ),
        ("over another sequence", FullAttention { keys: 7, visible: marks(&[5, 6, 7], 14), ..dense }),
    ]
}

/// The formula, one score after another.
fn loops(q: &[f64], k: &[f64], v: &[f64], how: &FullAttention) -> Vec<f64> {
    let width = how.heads * HEAD_DIM;
    let mut out = vec![0.0; how.batch * how.queries * width];
    for sequence in 0..how.batch {
        for head in 0..how.heads {
            for query in 0..how.queries {
                let row = (sequence * how.queries + query) * width + head * HEAD_DIM;
                let seen: Vec<(usize, f64)> = (0..how.keys)
                    .filter(|key| how.visible.as_ref().is_none_or(|v| v[sequence * how.keys + key]))
                    .filter(|&key| !how.causal || key <= query)
                    .map(|key| {
                        let at = (sequence * how.keys + key) * width + head * HEAD_DIM;
                        let dot: f64 = (0..HEAD_DIM).map(|i| q[row + i] * k[at + i]).sum();
                        let bias = how.bias.as_ref().map_or(0.0, |bias| {
                            f64::from(bias[(head * how.queries + query) * how.keys + key])
                        });
                        (at, (how.scale * dot + bias).exp())
                    })
                    .collect();
                let total: f64 = seen.iter().map(|(_, weight)| weight).sum();
                for (at, weight) in seen {
                    for i in 0..HEAD_DIM {
                        out[row + i] += weight / total * v[at + i];
                    }
                }
            }
        }
    }
    out
}

fn inputs(how: &FullAttention) -> [(Vec<f64>, [usize; 2]); 3] {
    let width = how.heads * HEAD_DIM;
    [("q", how.queries), ("k", how.keys), ("v", how.keys)].map(|(name, time)| {
        let shape = [how.batch * time, width];
        (draws(name, shape[0] * width), shape)
    })
}

#[test]
fn values_equal_a_plain_loop() {
    for (name, how) in rows() {
        let [q, k, v] = inputs(&how);
        let [tq, tk, tv] = [&q, &k, &v].map(|(values, shape)| constant(values, *shape));
        let found = values(attention_full(tq, tk, tv, &how));
        let expected = loops(&q.0, &k.0, &v.0, &how);
        assert_eq!(found.len(), expected.len(), "{name}");
        for (found, expected) in found.iter().zip(&expected) {
            assert!((found - expected).abs() < 1e-12, "{name}: {found} {expected}");
        }
    }
}

#[test]
fn gradients_equal_finite_differences() {
    const STEP: f64 = 1e-5;
    for (name, how) in rows() {
        let inputs = inputs(&how);
        let upstream = draws("upstream", inputs[0].0.len());
        let [q, k, v] = inputs.clone().map(|(values, shape)| tracked(&values, shape));
        let y = attention_full(q.clone(), k.clone(), v.clone(), &how);
        let shape = y.dims();
        let mut gradients = (y * constant(&upstream, shape).autodiff()).sum().backward();
        let found = [q, k, v].map(|input| values(input.grad_remove(&mut gradients).expect("a gradient")));
        let loss = |changed: &[(Vec<f64>, [usize; 2]); 3]| -> f64 {
            let y = loops(&changed[0].0, &changed[1].0, &changed[2].0, &how);
            y.iter().zip(&upstream).map(|(y, u)| y * u).sum()
        };
        for (input, found) in found.iter().enumerate() {
            for (index, found) in found.iter().enumerate() {
                let at = |change: f64| {
                    let mut changed = inputs.clone();
                    changed[input].0[index] += change;
                    loss(&changed)
                };
                let slope = (at(STEP) - at(-STEP)) / (2.0 * STEP);
                assert!(
                    (slope - found).abs() <= 1e-7 * slope.abs().max(1.0),
                    "{name}, input {input} at {index}: slope {slope}, gradient {found}"
                );
            }
        }
    }
}

#[test]
fn a_query_that_sees_nothing_is_finite() {
    let how =
        FullAttention { visible: Some(vec![false; 10].into()), ..FullAttention::dense(2, 5, 2, HEAD_DIM) };
    let [q, k, v] = inputs(&how).map(|(values, shape)| constant(&values, shape));
    assert!(values(attention_full(q, k, v, &how)).iter().all(|value| value.is_finite()));
}
