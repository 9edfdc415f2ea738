//! A small layer, a start for every form, and the rows that the laws run over.

use lowrank_adapt::{Form, Linear, Mounted, Offset, Site, Start, Takes, Weight, by_name};
use lowrank_record::Seed;
use lowrank_tensor::{Matrix, Tensor, cpu, from_rows, to_rows};

pub const OUT: usize = 8;
pub const IN: usize = 12;
pub const RANK: usize = 3;
pub const SCALE: f64 = 1.7;
pub const ROWS: usize = 5;

/// A form with its choices, and how its start may be taken back.
pub struct Row {
    pub form: Box<dyn Form>,
    pub offset: Offset,
    pub rank: usize,
}

impl Row {
    pub fn name(&self) -> String {
        format!("{} {:?} {:?} rank {}", self.form.card().name, self.form.settings(), self.offset, self.rank)
    }

    pub fn detached(&self) -> bool {
        self.form.card().name == "dora"
    }
}

/// Every form with every choice that makes another computation. The first test of the laws checks that no form is missing.
pub fn rows() -> Vec<Row> {
    let mut rows = Vec::new();
    let mut add = |name: &str, choices: &[(&str, &str)], offsets: &[Offset]| {
        for &offset in offsets {
            rows.push(Row { form: by_name(name, choices.iter().copied()).unwrap(), offset, rank: RANK });
        }
    };
    let taken_back = &[Offset::None, Offset::Shadow];
    for trains in ["both", "left", "right"] {
        add("lora", &[("trains", trains)], taken_back);
    }
    for trains in ["core", "all"] {
        add("core", &[("trains", trains)], taken_back);
    }
    for (scale, relative) in [("false", "false"), ("true", "false"), ("false", "true"), ("true", "true")] {
        add("diag", &[("train-scale", scale), ("relative", relative)], taken_back);
    }
    let own = &[Offset::None];
    for on in ["output", "input"] {
        add("ia3", &[("on", on)], own);
    }
    add("dora", &[], taken_back);
    for name in ["vera", "loha", "adalora", "full"] {
        add(name, &[], own);
    }
    add("full", &[("bias", "true")], own);
    add("lokr", &[("zero", "second")], own);
    for (size, share, cayley) in [("4", "false", "neumann"), ("6", "false", "exact"), ("4", "true", "exact")]
    {
        add("oft", &[("block-size", size), ("share", share), ("cayley", cayley), ("terms", "6")], own);
    }
    for (size, factors) in [("4", "1"), ("2", "2")] {
        add("boft", &[("block-size", size), ("factors", factors)], own);
    }
    // At a low rank an elementwise product runs as a low-rank path, and both factors of a Kronecker product are products.
    let mut low = |name: &str, choices: &[(&str, &str)], rank| {
        let form = by_name(name, choices.iter().copied()).unwrap();
        rows.push(Row { form, offset: Offset::None, rank });
    };
    low("loha", &[], 2);
    low("lokr", &[], 1);
    low("lokr", &[("decompose-both", "true"), ("decompose-factor", "4")], 1);
    rows
}

pub fn draws(name: &str, count: usize) -> Vec<f32> {
    Seed(21).at("adapt", name).normal(count)
}

pub fn weight() -> Matrix {
    Matrix::from_f32(draws("weight", OUT * IN), [OUT, IN]).unwrap()
}

pub fn layer() -> Linear {
    let bias = Matrix::from_f32(draws("bias", OUT), [1, OUT]).unwrap();
    Linear::new(Weight::Frozen(weight()), Some(bias))
}

/// A start of the kind that the form takes.
pub fn start(form: &dyn Form, name: &str, offset: Offset) -> Option<Start> {
    let mut core = draws(&format!("{name} core"), RANK * RANK);
    let core = match form.takes() {
        Takes::Nothing => return None,
        Takes::Factors => None,
        Takes::Core => Some(core),
        Takes::Diagonal => {
            core.iter_mut().enumerate().filter(|(at, _)| at % (RANK + 1) != 0).for_each(|(_, v)| *v = 0.0);
            Some(core)
        }
    };
    let left = draws(&format!("{name} left"), OUT * RANK);
    Some(Start { left, right: draws(&format!("{name} right"), RANK * IN), core, rank: RANK, offset })
}

/// Mounts the form as it starts.
pub fn mount(linear: &mut Linear, row: &Row, name: &str) {
    let device = cpu();
    let base = linear.frozen().unwrap().clone();
    let site = Site::alone(name, &base, row.rank, SCALE, Seed(5), &device);
    let adapter = row.form.build(&site, start(&*row.form, name, row.offset)).unwrap();
    linear.mount(name, adapter).unwrap();
}

/// Moves everything that is trained, as a step of an optimiser would.
pub fn train(linear: &Linear, name: &str) {
    for (part, var) in find(linear, name).adapter.trainable() {
        let step = draws(&format!("{name} {part} step"), var.values().len());
        var.assign(var.values().iter().zip(step).map(|(value, step)| value + 0.4 * step).collect());
    }
}

pub fn find<'a>(linear: &'a Linear, name: &str) -> &'a Mounted {
    linear.adapters().iter().find(|mounted| mounted.name == name).unwrap()
}

/// A layer with the form mounted and trained for a step.
pub fn trained(row: &Row) -> Linear {
    let mut linear = layer();
    mount(&mut linear, row, "a");
    train(&linear, "a");
    linear
}

pub fn input() -> Tensor<2> {
    from_rows(draws("input", ROWS * IN), [ROWS, IN], &cpu())
}

pub fn output(linear: &Linear) -> Vec<f32> {
    to_rows(linear.forward(input()))
}

#[track_caller]
pub fn close(a: &[f32], b: &[f32], bound: f32, what: &str) {
    assert_eq!(a.len(), b.len(), "{what}");
    let size = b.iter().fold(1.0_f32, |size, b| size.max(b.abs()));
    for (a, b) in a.iter().zip(b) {
        assert!((a - b).abs() <= bound * size, "{what}: {a} {b}");
    }
}

/// `x Wᵀ + b` by loops, in f64.
pub fn product(weight: &[f32], bias: &[f32]) -> Vec<f32> {
    let x = to_rows(input());
    (0..ROWS * OUT)
        .map(|at| {
            let (row, out) = (at / OUT, at % OUT);
            let sum: f64 =
                (0..IN).map(|i| f64::from(x[row * IN + i]) * f64::from(weight[out * IN + i])).sum();
            (sum + f64::from(bias[out])) as f32
        })
        .collect()
}

/// What the layer should compute: with the changes of these adapters, added to a weight and bias without any.
pub fn changed(linear: &Linear, names: &[&str]) -> Vec<f32> {
    let (base, start) = (weight(), layer());
    let bias = start.bias().unwrap();
    let (mut values, mut shifted) = (base.to_f32(), bias.to_f32());
    for name in names {
        let adapter = &find(linear, name).adapter;
        values.iter_mut().zip(adapter.delta(&base)).for_each(|(value, change)| *value += change);
        if let Some(change) = adapter.bias_delta(bias) {
            shifted.iter_mut().zip(change).for_each(|(value, change)| *value += change);
        }
    }
    product(&values, &shifted)
}
