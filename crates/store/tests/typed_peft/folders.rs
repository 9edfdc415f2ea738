//! A random adapter of every kind, for the model `llama-gqa-tied` of `tests/interop/fixtures.py`.

use lowrank_record::Seed;
use lowrank_store::peft::{
    AdapterConfig, AdapterFolder, Blocks, Factor, Settings, Targets, TypedConfig, TypedFolder, TypedModule,
    TypedTensor, kronecker_sides,
};

/// Module, outputs, inputs.
pub type Site = (String, usize, usize);

/// Parts of a module with their shapes.
type Shapes = Vec<(&'static str, Vec<usize>)>;

/// The modules that every adapter here changes.
pub fn sites() -> Vec<Site> {
    let of_layer = |layer: usize| {
        let named = |name: &str, out, inp| (format!("model.layers.{layer}.{name}"), out, inp);
        [
            named("mlp.down_proj", 64, 112),
            named("self_attn.k_proj", 32, 64),
            named("self_attn.q_proj", 64, 64),
        ]
    };
    (0..3).flat_map(of_layer).collect()
}

pub fn targets() -> Targets {
    Targets::List(["down_proj", "k_proj", "q_proj"].map(str::to_owned).to_vec())
}

fn random(name: &str, part: &str, shape: &[usize]) -> TypedTensor {
    let draws = Seed(9).at(name, part).normal(shape.iter().product());
    TypedTensor::new(part, shape, draws.into_iter().map(|x| 0.1 * x).collect())
}

/// A folder whose modules have the tensors of these shapes.
fn folder(settings: Settings, parts: &dyn Fn(&Site) -> Shapes) -> TypedFolder {
    let module = |site: &Site| {
        let tensors = parts(site).into_iter().map(|(part, shape)| random(&site.0, part, &shape)).collect();
        TypedModule { module: site.0.clone(), tensors }
    };
    let mut folder =
        TypedFolder::new(TypedConfig::new(settings, targets()), sites().iter().map(module).collect());
    folder.config.task_type = Some("CAUSAL_LM".to_owned());
    folder.provenance.insert("lowrank.seed".to_owned(), "9".to_owned());
    folder
}

/// The rank of a module where `k_proj` has its own.
fn rank(site: &Site, plain: usize, of_keys: usize) -> usize {
    if site.0.ends_with("k_proj") { of_keys } else { plain }
}

/// Name and folder, one or more of every kind.
pub fn typed() -> Vec<(&'static str, TypedFolder)> {
    let patterns = || (vec![("k_proj".to_owned(), 2)], vec![("q_proj".to_owned(), 2.5)]);
    let (rank_pattern, alpha_pattern) = patterns();
    let loha = Settings::Loha { rank: 3, alpha: 5.0, rank_pattern, alpha_pattern };
    let lokr = |r, decompose_both| {
        let (rank_pattern, alpha_pattern) = patterns();
        Settings::Lokr {
            rank: r,
            alpha: 5.0,
            rank_pattern,
            alpha_pattern,
            decompose_both,
            decompose_factor: -1,
        }
    };
    let oft = |blocks, block_share| Settings::Oft {
        blocks,
        block_share,
        coft: false,
        eps: 6e-5,
        cayley_neumann: true,
        terms: 5,
    };
    let triangle = |size: usize| size * (size - 1) / 2;
    let kept = [true, false, true, true, false, true];
    let adalora = Settings::Adalora {
        init_rank: 6,
        target_rank: 4,
        alpha: 7.0,
        total_steps: 20,
        first_steps: 2,
        last_steps: 5,
        kept: vec![("model.layers.0.self_attn.q_proj".to_owned(), kept.to_vec())],
    };
    let mut vera = folder(Settings::Vera { rank: 5, projection_key: 3, d_initial: 0.1 }, &|(_, out, _)| {
        vec![("lambda_b", vec![*out]), ("lambda_d", vec![5])]
    });
    vera.shared = vec![random("shared", "vera_A", &[5, 112]), random("shared", "vera_B", &[64, 5])];
    vec![
        (
            "ia3",
            folder(Settings::Ia3 { feedforward: Targets::List(vec!["down_proj".to_owned()]) }, &|site| {
                let shape = if site.0.ends_with("down_proj") { vec![1, site.2] } else { vec![site.1, 1] };
                vec![("scale", shape)]
            }),
        ),
        (
            "loha",
            folder(loha, &|site| {
                let r = rank(site, 3, 2);
                let (a, b) = (vec![site.1, r], vec![r, site.2]);
                vec![("w1_a", a.clone()), ("w1_b", b.clone()), ("w2_a", a), ("w2_b", b)]
            }),
        ),
        ("lokr", folder(lokr(4, false), &|site| kronecker(site, rank(site, 4, 2), false))),
        ("lokr-both", folder(lokr(2, true), &|site| kronecker(site, rank(site, 2, 2), true))),
        (
            "oft",
            folder(oft(Blocks::Size(8), false), &|site| vec![("rotation", vec![site.2 / 8, triangle(8)])]),
        ),
        (
            "oft-shared",
            folder(oft(Blocks::Count(4), true), &|site| vec![("rotation", vec![1, triangle(site.2 / 4)])]),
        ),
        (
            "boft",
            folder(Settings::Boft { blocks: Blocks::Size(4), factors: 1 }, &|site| {
                vec![("rotation", vec![1, site.2 / 4, 4, 4]), ("scale", vec![site.1, 1])]
            }),
        ),
        ("vera", vera),
        (
            "adalora",
            folder(adalora, &|site| {
                let r = if site.0 == "model.layers.0.self_attn.q_proj" { 4 } else { 6 };
                vec![("right", vec![r, site.2]), ("left", vec![site.1, r]), ("values", vec![r, 1])]
            }),
        ),
    ]
}

fn kronecker(site: &Site, r: usize, both: bool) -> Shapes {
    let ((out1, out2), (in1, in2)) = (kronecker_sides(site.1, -1), kronecker_sides(site.2, -1));
    let mut parts = Vec::new();
    if both && 2 * r < out1.max(in1) {
        parts.extend([("w1_a", vec![out1, r]), ("w1_b", vec![r, in1])]);
    } else {
        parts.push(("w1", vec![out1, in1]));
    }
    if 2 * r < out2.max(in2) {
        parts.extend([("w2_a", vec![out2, r]), ("w2_b", vec![r, in2])]);
    } else {
        parts.push(("w2", vec![out2, in2]));
    }
    parts
}

/// A LoRA with DoRA's magnitudes.
pub fn dora() -> AdapterFolder {
    let mut config = AdapterConfig::new(2, 3.0, targets());
    config.dora = true;
    config.task_type = Some("CAUSAL_LM".to_owned());
    let factor = |(module, out, inp): Site| {
        let values = |part: &str, shape: &[usize]| random(&module, part, shape).values;
        let magnitude = values("magnitude", &[out]).into_iter().map(|x| 1.0 + x).collect();
        Factor {
            magnitude: Some(magnitude),
            ..Factor::linear(&module, (out, inp, 2), values("left", &[out, 2]), values("right", &[2, inp]))
        }
    };
    AdapterFolder::new(config, sites().into_iter().map(factor).collect())
}
