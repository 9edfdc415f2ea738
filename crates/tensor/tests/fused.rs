//! Laws of every fused operation, a row a member: it equals the plain composition in f64, its gradients match central
//! finite differences in f64 and the composition's own gradients, and they reach the trained inputs and nothing else.
#![allow(clippy::unwrap_used, clippy::expect_used)] // A failure here is a failure of the test.

use std::sync::Arc;

use lowrank_record::Seed;
use lowrank_tensor::ops::{self, Gelu, Heads, Layout, Rotary, Targets, composed};
use lowrank_tensor::{DType, Matrix, Tensor, TensorData, cpu};

type Operation = Box<dyn Fn(&[Tensor<2>]) -> Tensor<2>>;

/// An operation under test: its trained inputs by shape, and its fused and composed forms.
struct Row {
    name: &'static str,
    inputs: Vec<[usize; 2]>,
    fused: Operation,
    composed: Operation,
}

fn draws(name: &str, count: usize) -> Vec<f64> {
    Seed(11).at("fused", name).normal(count).into_iter().map(f64::from).collect()
}

fn matrix(name: &str, shape: [usize; 2]) -> Matrix {
    Matrix::from_f64(draws(name, shape[0] * shape[1]), shape).unwrap()
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

fn one_by_one(loss: Tensor<1>) -> Tensor<2> {
    loss.reshape([1, 1])
}

fn packed() -> Layout {
    // Two rows of eleven tokens: documents of 4 and 7 tokens, and of 9 and 2.
    let starts = [vec![0; 4], vec![4; 7], vec![0; 9], vec![9; 2]].concat();
    let positions: Vec<u32> = (0..22).map(|row| (row % 11) as u32 - starts[row]).collect();
    Layout { batch: 2, time: 11, positions: positions.into(), starts: starts.into() }
}

fn rotary_tables() -> Arc<Rotary> {
    let angles: Vec<f32> = (0..11).flat_map(|p| [p as f32, p as f32 * 0.1, p as f32 * 0.01]).collect();
    let (cos, sin) = (angles.iter().map(|a| a.cos()).collect(), angles.iter().map(|a| a.sin()).collect());
    Arc::new(Rotary { cos, sin, head_dim: 6, rotary_dim: 6 })
}

fn rows() -> Vec<Row> {
    let (weight, bias) = (matrix("weight", [7, 5]), matrix("bias", [1, 7]));
    let heads = Heads { heads: 6, kv_heads: 2, head_dim: 6 };
    let targets = Targets {
        ids: (0..22).map(|row| if row % 5 == 0 { -100 } else { row * 7 % 13 }).collect::<Vec<_>>().into(),
        weights: Some((0..22).map(|row| 0.5 + row as f32 * 0.125).collect::<Vec<_>>().into()),
    };
    let head = matrix("head", [13, 5]);
    let (tables, layout) = (rotary_tables(), packed());
    let windowed = layout.windowed(3);
    let ids: Vec<u32> = vec![3, 0, 3, 8, 1, 3];
    let mut rows: Vec<Row> = Vec::new();
    let mut row = |name, inputs: &[[usize; 2]], fused: Operation, composed| {
        rows.push(Row { name, inputs: inputs.to_vec(), fused, composed });
    };
    let (w, b, w2, b2) = (weight.clone(), bias.clone(), weight.clone(), bias.clone());
    row(
        "linear",
        &[[9, 5]],
        Box::new(move |x| ops::linear(x[0].clone(), &w, Some(&b), None)),
        Box::new(move |x| composed::linear(x[0].clone(), &w2, Some(&b2), None)),
    );
    let w2 = weight.clone();
    row(
        "linear with a low-rank path",
        &[[9, 5], [7, 3], [3, 5]],
        Box::new(move |x| {
            ops::linear(x[0].clone(), &weight, Some(&bias), Some((x[1].clone(), x[2].clone())))
        }),
        Box::new(move |x| {
            let bias = matrix("bias", [1, 7]);
            composed::linear(x[0].clone(), &w2, Some(&bias), Some((x[1].clone(), x[2].clone())))
        }),
    );
    row(
        "dense",
        &[[9, 5], [7, 5]],
        Box::new(|x| ops::dense(x[0].clone(), x[1].clone())),
        Box::new(|x| x[0].clone().matmul(x[1].clone().transpose())),
    );
    row(
        "rms_norm",
        &[[9, 5], [1, 5]],
        Box::new(|x| ops::rms_norm(x[0].clone(), x[1].clone(), 1e-5)),
        Box::new(|x| composed::rms_norm(x[0].clone(), x[1].clone(), 1e-5)),
    );
    row(
        "layer_norm",
        &[[9, 5], [1, 5], [1, 5]],
        Box::new(|x| ops::layer_norm(x[0].clone(), x[1].clone(), x[2].clone(), 1e-5)),
        Box::new(|x| composed::layer_norm(x[0].clone(), x[1].clone(), x[2].clone(), 1e-5)),
    );
    for (name, kind) in [("gelu", Gelu::Exact), ("gelu by tanh", Gelu::Tanh)] {
        row(
            name,
            &[[9, 5]],
            Box::new(move |x| ops::gelu(x[0].clone() * 2.0, kind)),
            Box::new(move |x| composed::gelu(x[0].clone() * 2.0, kind)),
        );
    }
    row(
        "swiglu",
        &[[9, 5], [9, 5]],
        Box::new(|x| ops::swiglu(x[0].clone(), x[1].clone())),
        Box::new(|x| composed::swiglu(x[0].clone(), x[1].clone())),
    );
    let (t1, p1, t2, p2) =
        (tables.clone(), layout.positions.clone(), tables.clone(), layout.positions.clone());
    row(
        "rotary",
        &[[22, 12]],
        Box::new(move |x| ops::rotary(x[0].clone(), &t1, &p1)),
        Box::new(move |x| composed::rotary(x[0].clone(), &t2, &p2)),
    );
    // The same tables turn six of ten values of a head.
    let partial = Arc::new(Rotary { head_dim: 10, ..(*tables).clone() });
    let (t1, p1, t2, p2) = (partial.clone(), layout.positions.clone(), partial, layout.positions.clone());
    row(
        "rotary of a part of each head",
        &[[22, 20]],
        Box::new(move |x| ops::rotary(x[0].clone(), &t1, &p1)),
        Box::new(move |x| composed::rotary(x[0].clone(), &t2, &p2)),
    );
    for (name, layout) in [("attention over packed documents", layout), ("attention in a window", windowed)] {
        let l2 = layout.clone();
        row(
            name,
            &[[22, 36], [22, 12], [22, 12]],
            Box::new(move |x| ops::attention(x[0].clone(), x[1].clone(), x[2].clone(), heads, &layout)),
            Box::new(move |x| composed::attention(x[0].clone(), x[1].clone(), x[2].clone(), heads, &l2)),
        );
    }
    let (t1, t2, t3, t4) = (targets.clone(), targets.clone(), targets.clone(), targets);
    let h2 = head.clone();
    row(
        "cross_entropy",
        &[[22, 5]],
        Box::new(move |x| one_by_one(ops::cross_entropy(x[0].clone(), &head, None, &t1).unwrap())),
        Box::new(move |x| {
            one_by_one(composed::cross_entropy(x[0].clone(), composed::widen(&h2, &cpu()), &t2))
        }),
    );
    let (head, h2, t1, t2) = (matrix("head", [13, 5]), matrix("head", [13, 5]), t3.clone(), t3.clone());
    row(
        "cross_entropy with a low-rank path",
        &[[22, 5], [13, 3], [3, 5]],
        Box::new(move |x| {
            let path = Some((x[1].clone(), x[2].clone()));
            one_by_one(ops::cross_entropy(x[0].clone(), &head, path, &t1).unwrap())
        }),
        Box::new(move |x| {
            let path = Some((x[1].clone(), x[2].clone()));
            let logits = composed::linear(x[0].clone(), &h2, None, path);
            one_by_one(composed::cross_entropy_of_logits(logits, &t2))
        }),
    );
    row(
        "cross_entropy with a trained head",
        &[[22, 5], [13, 5]],
        Box::new(move |x| one_by_one(ops::cross_entropy_dense(x[0].clone(), x[1].clone(), &t3).unwrap())),
        Box::new(move |x| one_by_one(composed::cross_entropy(x[0].clone(), x[1].clone(), &t4))),
    );
    let i2 = ids.clone();
    row(
        "embedding",
        &[[9, 5]],
        Box::new(move |x| ops::embedding_dense(&ids, x[0].clone())),
        Box::new(move |x| {
            let index: Vec<i64> = i2.iter().map(|&id| i64::from(id)).collect();
            x[0].clone().select(0, Tensor::from_ints(index.as_slice(), &x[0].device()))
        }),
    );
    rows
}

/// Sizes beyond one tile of each kernel; too many values to differentiate one by one.
fn large_rows() -> Vec<Row> {
    let mut rows = Vec::new();
    let (weight, bias) = (matrix("weight", [7, 5]), matrix("bias", [1, 7]));
    let (w2, b2) = (weight.clone(), bias.clone());
    rows.push(Row {
        name: "linear with a low-rank path, several tiles",
        inputs: vec![[800, 5], [7, 3], [3, 5]],
        fused: Box::new(move |x| {
            ops::linear(x[0].clone(), &weight, Some(&bias), Some((x[1].clone(), x[2].clone())))
        }),
        composed: Box::new(move |x| {
            composed::linear(x[0].clone(), &w2, Some(&b2), Some((x[1].clone(), x[2].clone())))
        }),
    });
    let wide = matrix("wide", [300, 600]);
    let w2 = wide.clone();
    rows.push(Row {
        name: "wide linear with a low-rank path, several tiles",
        inputs: vec![[40, 600], [300, 3], [3, 600]],
        fused: Box::new(move |x| ops::linear(x[0].clone(), &wide, None, Some((x[1].clone(), x[2].clone())))),
        composed: Box::new(move |x| {
            composed::linear(x[0].clone(), &w2, None, Some((x[1].clone(), x[2].clone())))
        }),
    });
    rows.push(Row {
        name: "rms_norm, several blocks of rows",
        inputs: vec![[70, 5], [1, 5]],
        fused: Box::new(|x| ops::rms_norm(x[0].clone(), x[1].clone(), 1e-5)),
        composed: Box::new(|x| composed::rms_norm(x[0].clone(), x[1].clone(), 1e-5)),
    });
    rows.push(Row {
        name: "layer_norm, several blocks of rows",
        inputs: vec![[70, 300], [1, 300], [1, 300]],
        fused: Box::new(|x| ops::layer_norm(x[0].clone(), x[1].clone(), x[2].clone(), 1e-5)),
        composed: Box::new(|x| composed::layer_norm(x[0].clone(), x[1].clone(), x[2].clone(), 1e-5)),
    });
    rows.push(Row {
        name: "gelu, several tasks",
        inputs: vec![[70, 300]],
        fused: Box::new(|x| ops::gelu(x[0].clone(), Gelu::Exact)),
        composed: Box::new(|x| composed::gelu(x[0].clone(), Gelu::Exact)),
    });
    // One row of 300 tokens: documents that begin at 0, 130 and 290, so that whole blocks of keys are skipped.
    let starts = [vec![0; 130], vec![130; 160], vec![290; 10]].concat();
    let positions: Vec<u32> = starts.iter().enumerate().map(|(row, start)| row as u32 - start).collect();
    let layout = Layout { batch: 1, time: 300, positions: positions.into(), starts: starts.into() };
    for layout in [layout.clone(), layout.windowed(70), Layout::dense(2, 150)] {
        let heads = Heads { heads: 4, kv_heads: 2, head_dim: 2 };
        let l2 = layout.clone();
        rows.push(Row {
            name: "attention over several blocks of queries and keys",
            inputs: vec![[300, 8], [300, 4], [300, 4]],
            fused: Box::new(move |x| {
                ops::attention(x[0].clone(), x[1].clone(), x[2].clone(), heads, &layout)
            }),
            composed: Box::new(move |x| {
                composed::attention(x[0].clone(), x[1].clone(), x[2].clone(), heads, &l2)
            }),
        });
    }
    rows
}

#[test]
fn tiles_change_neither_values_nor_gradients() {
    for row in large_rows() {
        let inputs: Vec<(Vec<f64>, [usize; 2])> = row
            .inputs
            .iter()
            .enumerate()
            .map(|(i, shape)| (draws(&format!("{}{i}", row.name), shape[0] * shape[1]), *shape))
            .collect();
        let constants: Vec<_> = inputs.iter().map(|(values, shape)| constant(values, *shape)).collect();
        let y = values((row.fused)(&constants));
        close(row.name, &y, &values((row.composed)(&constants)), 1e-10);
        let upstream = draws("upstream", y.len());
        let (fused, composed) =
            (gradients(&row.fused, &inputs, &upstream), gradients(&row.composed, &inputs, &upstream));
        for (input, (fused, composed)) in fused.iter().zip(&composed).enumerate() {
            close(&format!("{} input {input}", row.name), fused, composed, 1e-9);
        }
    }
}

/// Gradients of `Σ upstream ⊙ f(inputs)`.
fn gradients(
    f: &dyn Fn(&[Tensor<2>]) -> Tensor<2>,
    inputs: &[(Vec<f64>, [usize; 2])],
    upstream: &[f64],
) -> Vec<Vec<f64>> {
    let tensors: Vec<_> = inputs.iter().map(|(values, shape)| tracked(values, *shape)).collect();
    let y = f(&tensors);
    let shape = y.dims();
    let mut gradients = (y * constant(upstream, shape).autodiff()).sum().backward();
    tensors.iter().map(|tensor| values(tensor.grad_remove(&mut gradients).expect("a gradient"))).collect()
}

fn close(name: &str, left: &[f64], right: &[f64], tolerance: f64) {
    assert_eq!(left.len(), right.len(), "{name}");
    let size = right.iter().map(|v| v.abs()).fold(1.0, f64::max);
    for (index, (a, b)) in left.iter().zip(right).enumerate() {
        assert!((a - b).abs() <= tolerance * size, "{name}: {a} against {b} at {index}");
    }
}

#[test]
fn values_equal_the_composition() {
    for row in rows() {
        let inputs: Vec<_> = row
            .inputs
            .iter()
            .enumerate()
            .map(|(i, shape)| constant(&draws(&format!("{}{i}", row.name), shape[0] * shape[1]), *shape))
            .collect();
        close(row.name, &values((row.fused)(&inputs)), &values((row.composed)(&inputs)), 1e-10);
    }
}

#[test]
fn gradients_equal_finite_differences_and_the_composition() {
    for row in rows() {
        let mut inputs: Vec<(Vec<f64>, [usize; 2])> = row
            .inputs
            .iter()
            .enumerate()
            .map(|(i, shape)| (draws(&format!("{}{i}", row.name), shape[0] * shape[1]), *shape))
            .collect();
        let constants = |inputs: &[(Vec<f64>, [usize; 2])]| -> Vec<Tensor<2>> {
            inputs.iter().map(|(values, shape)| constant(values, *shape)).collect()
        };
        let size = values((row.fused)(&constants(&inputs))).len();
        let upstream = draws("upstream", size);
        let fused = gradients(&row.fused, &inputs, &upstream);
        for (input, gradient) in gradients(&row.composed, &inputs, &upstream).iter().enumerate() {
            close(
                &format!("{} input {input} against the composition", row.name),
                &fused[input],
                gradient,
                1e-9,
            );
        }
        let loss = |inputs: &[(Vec<f64>, [usize; 2])]| -> f64 {
            values((row.fused)(&constants(inputs))).iter().zip(&upstream).map(|(y, u)| y * u).sum()
        };
        for input in 0..inputs.len() {
            #[allow(clippy::needless_range_loop)] // Both sides are changed by the index.
            for index in 0..inputs[input].0.len() {
                const STEP: f64 = 1e-5;
                let value = inputs[input].0[index];
                inputs[input].0[index] = value + STEP;
                let above = loss(&inputs);
                inputs[input].0[index] = value - STEP;
                let below = loss(&inputs);
                inputs[input].0[index] = value;
                let slope = (above - below) / (2.0 * STEP);
                let found = fused[input][index];
                assert!(
                    (slope - found).abs() <= 1e-6 * slope.abs().max(1.0),
                    "{} input {input} at {index}: slope {slope}, gradient {found}",
                    row.name
                );
            }
        }
    }
}

#[test]
fn only_tracked_inputs_get_gradients() {
    let weight = matrix("weight", [7, 5]);
    let x = constant(&draws("x", 45), [9, 5]);
    let left = tracked(&draws("left", 21), [7, 3]);
    let right = constant(&draws("right", 15), [3, 5]);
    let y = ops::linear(x, &weight, None, Some((left.clone(), right)));
    let mut gradients = y.sum().backward();
    assert!(left.grad_remove(&mut gradients).is_some());
    let frozen = ops::linear(constant(&draws("x", 45), [9, 5]), &weight, None, None);
    assert!(!frozen.is_tracked());
}

/// Random blocks of a format that cannot be written: any bytes are blocks, except that the half-precision scales at the
/// given offsets must be finite.
fn blocks(count: usize, bytes: usize, scales: &[usize]) -> Vec<u8> {
    let draws = Seed(2).at("blocks", "bytes").uniform(count * bytes, 1.0);
    let mut all: Vec<u8> = draws.into_iter().map(|draw| (draw.abs() * 256.0) as u8).collect();
    for block in all.chunks_exact_mut(bytes) {
        for &at in scales {
            block[at + 1] = 0x20 | block[at + 1] & 3;
        }
    }
    all
}

#[test]
fn stored_formats_are_widened_inside_the_products() {
    use lowrank_blocks::{Format, narrow};
    const SHAPE: [usize; 2] = [70, 512];
    let written = |format| narrow(format, &Seed(2).normal(SHAPE[0] * SHAPE[1])).unwrap();
    let supers = SHAPE[0] * SHAPE[1] / 256;
    for (format, bytes) in [
        (Format::BF16, written(Format::BF16)),
        (Format::F16, written(Format::F16)),
        (Format::Q8_0, written(Format::Q8_0)),
        (Format::Q4_0, written(Format::Q4_0)),
        (Format::Q4_1, written(Format::Q4_1)),
        (Format::Q4_K, blocks(supers, 144, &[0, 2])),
        (Format::Q6_K, blocks(supers, 210, &[208])),
    ] {
        let stored = Matrix::from_bytes(Arc::new(bytes), format, SHAPE).unwrap();
        let once = stored.widened();
        assert!(once.to_f32().iter().all(|value| value.is_finite()), "{format:?}");
        // One row and a few are multiplied block by block, many at once.
        for n in [1, 5, 40] {
            let draws = |count| lowrank_tensor::from_rows(Seed(3).normal(n * count), [n, count], &cpu());
            let run = |weight: &Matrix| {
                let x = draws(SHAPE[1]).autodiff().require_grad();
                let y = ops::linear(x.clone(), weight, None, None);
                let mut gradients = (y.clone() * draws(SHAPE[0]).autodiff()).sum().backward();
                let dx = x.grad_remove(&mut gradients).unwrap();
                let targets = Targets { ids: (0..n as i32).collect(), weights: None };
                let loss = ops::cross_entropy(x, weight, None, &targets).unwrap();
                [lowrank_tensor::to_rows(y), lowrank_tensor::to_rows(dx), lowrank_tensor::to_rows(loss)]
            };
            assert_eq!(run(&stored), run(&once), "{format:?} {n}");
        }
    }
}

#[test]
fn a_window_is_the_last_tokens_of_the_same_document() {
    // Two rows of seven tokens: documents of 3 and 4 tokens, and one of 7. For each token, the keys it sees by hand.
    let starts = [vec![0; 3], vec![3; 4], vec![0; 7]].concat();
    let positions: Vec<u32> = starts.iter().enumerate().map(|(row, start)| row as u32 % 7 - start).collect();
    let layout = Layout { batch: 2, time: 7, positions: positions.into(), starts: starts.into() };
    let sees = |layout: &Layout| -> Vec<Vec<usize>> {
        (0..14).map(|row| (layout.starts[row] as usize..=row % 7).collect()).collect()
    };
    let by_hand: [&[usize]; 14] = [
        &[0],
        &[0, 1],
        &[1, 2],
        &[3],
        &[3, 4],
        &[4, 5],
        &[5, 6],
        &[0],
        &[0, 1],
        &[1, 2],
        &[2, 3],
        &[3, 4],
        &[4, 5],
        &[5, 6],
    ];
    assert_eq!(sees(&layout.windowed(2)), by_hand);
    assert_eq!(sees(&layout.windowed(7)), sees(&layout), "a window as long as the row hides nothing");
    assert_eq!(layout.windowed(2).positions, layout.positions);
}

#[test]
fn a_pullback_gives_its_gradient_and_scales_with_it() {
    let (x, gradient) = (draws("x", 6), draws("g", 6));
    for factor in [1.0, -2.5] {
        let leaf = tracked(&x, [2, 3]);
        let root = ops::pullback(leaf.clone() * 3.0, constant(&gradient, [2, 3])) * factor;
        let mut gradients = root.backward();
        let expected: Vec<f64> = gradient.iter().map(|g| 3.0 * factor * g).collect();
        close("pullback", &values(leaf.grad_remove(&mut gradients).unwrap()), &expected, 1e-12);
    }
}

#[test]
fn a_target_outside_the_vocabulary_is_an_error() {
    let targets = Targets { ids: vec![1, 13].into(), weights: None };
    let h = constant(&draws("h", 10), [2, 5]);
    let message = ops::cross_entropy(h, &matrix("head", [13, 5]), None, &targets).unwrap_err().to_string();
    assert!(message.contains("13"), "{message}");
}
