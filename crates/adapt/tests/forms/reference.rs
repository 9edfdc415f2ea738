//! PEFT's outputs, given the same parameters: one layer [6, 8] with a bias, three rows of inputs.
//!
//! The numbers are printed by `tests/interop/forms.py` with peft 0.21.2 and torch: entry k of the i-th part is
//! 0.6·sin(1 + i + 0.7·k); weight, bias and inputs begin at phases 0.1, 0.2 and 0.3. The script also merges each adapter
//! in PEFT and checks that the output stays.

use lowrank_adapt::{Linear, Offset, Part, Site, Weight, by_name};
use lowrank_record::Seed;
use lowrank_tensor::{Matrix, cpu, from_rows, to_rows};

use crate::small::close;

const OUT: usize = 6;
const IN: usize = 8;

fn wave(phase: f64, count: usize) -> Vec<f32> {
    (0..count).map(|k| (0.6 * (phase + 0.7 * k as f64).sin()) as f32).collect()
}

/// Parts of these names and shapes, in this order.
fn parts(shapes: &[(&str, &[usize])]) -> Vec<Part> {
    let part = |(index, (name, shape)): (usize, &(&str, &[usize]))| {
        Part::new(name, shape, wave(1.0 + index as f64, shape.iter().product()))
    };
    shapes.iter().enumerate().map(part).collect()
}

#[track_caller]
fn check(form: &str, choices: &[(&str, &str)], scale: f64, parts: Vec<Part>, wanted: &[f32]) {
    let (base, device) = (Matrix::from_f32(wave(0.1, OUT * IN), [OUT, IN]).unwrap(), cpu());
    let bias = Matrix::from_f32(wave(0.2, OUT), [1, OUT]).unwrap();
    let site = Site::alone("lin", &base, 2, scale, Seed(0), &device);
    let adapter =
        by_name(form, choices.iter().copied()).unwrap().restore(&site, parts, Offset::None).unwrap();
    let mut linear = Linear::new(Weight::Frozen(base), Some(bias));
    linear.mount("a", adapter).unwrap();
    let x = from_rows(wave(0.3, 3 * IN), [3, IN], &device);
    close(&to_rows(linear.forward(x.clone())), wanted, 1e-5, form);
    linear.merge("a").unwrap();
    close(&to_rows(linear.forward(x)), wanted, 1e-5, form);
}

const DORA: [f32; 18] = [
    0.223929, 0.621722, 1.103429, 0.651582, -0.209807, -0.444361, 0.186011, 0.368134, 0.67315, 0.212591,
    -0.021248, -0.467509, 0.118105, 0.160268, 0.209922, -0.120991, 0.214855, -0.423504,
];
const IA3_OUTPUT: [f32; 18] = [
    0.82209, 0.813436, 0.195436, -0.015767, 0.540436, 0.969678, 0.695485, 1.045652, 0.542409, 0.007627,
    0.320769, 0.975287, 0.283713, 0.934033, 0.755016, 0.032608, -0.056834, 0.626815,
];
const IA3_INPUT: [f32; 18] = [
    0.105289, 0.446176, 0.576708, 0.435512, 0.089232, -0.298917, 0.087348, 0.415714, 0.547399, 0.420511,
    0.095273, -0.274546, 0.083706, 0.409618, 0.541586, 0.41759, 0.096555, -0.269636,
];
const LOHA: [f32; 18] = [
    1.610979, 1.358517, 0.472848, -0.648602, -1.474323, -1.675402, 1.337589, 1.737127, 1.316947, 0.266797,
    -0.878555, -1.714438, 0.517305, 1.546962, 1.839116, 1.263273, 0.149576, -1.126613,
];
const LOKR_FULL: [f32; 18] = [
    1.820469, 1.196356, 0.611836, -0.660804, -1.599531, -1.384358, 1.547478, 1.552344, 1.554825, 0.056947,
    -0.74665, -1.653602, 0.633379, 1.422501, 2.069108, 0.94997, 0.479386, -1.323293,
];
const LOKR_SECOND: [f32; 18] = [
    1.769872, 1.433672, 0.442435, -1.072628, -1.679224, -1.529444, 1.354602, 1.746632, 1.344804, -0.135013,
    -1.080904, -1.538985, 0.384801, 1.48655, 1.912739, 1.064039, 0.040606, -1.000419,
];
const LOKR_BOTH: [f32; 18] = [
    1.543668, 1.684795, 1.052778, -0.7317, -1.097744, -0.980891, 1.328236, 1.942429, 1.670678, 0.247637,
    -0.655705, -1.271214, 0.570108, 1.539135, 1.807871, 1.316651, 0.118666, -1.133626,
];
const OFT_NEUMANN: [f32; 18] = [
    0.408153, 0.65878, 0.603621, 0.264653, -0.202705, -0.580892, 0.674447, 1.206835, 1.187434, 0.622168,
    -0.231965, -0.983793, 0.691509, 1.424147, 1.507451, 0.901245, -0.119097, -1.087796,
];
const OFT_EXACT: [f32; 18] = [
    0.183333, 0.360049, 0.36507, 0.19336, -0.074739, -0.311107, 0.66824, 1.069243, 0.980216, 0.438339,
    -0.309891, -0.920837, 0.906701, 1.509454, 1.424581, 0.687395, -0.367936, -1.259929,
];
const OFT_SHARED: [f32; 18] = [
    0.86691, 0.425825, -0.216479, -0.774476, -0.994431, -0.769833, 1.213125, 1.086088, 0.461461, -0.383164,
    -1.065395, -1.27122, 1.068312, 1.469808, 1.201473, 0.380972, -0.620131, -1.344693,
];
const BOFT: [f32; 18] = [
    0.416459, 0.497955, 0.657352, 0.787089, 0.501505, -0.152839, 0.43517, 0.610295, 0.558419, 0.510788,
    0.36542, -0.064107, 0.312054, 0.65966, 0.478036, 0.206044, 0.103316, -0.089295,
];
const BUTTERFLY: [f32; 18] = [
    0.861747, 0.674993, 0.618296, 0.932064, 0.927517, 0.190177, 0.776365, 0.768321, 0.507743, 0.561645,
    0.659003, 0.214574, 0.396003, 0.72774, 0.438487, 0.139955, 0.132691, -4.1e-05,
];
const VERA: [f32; 18] = [
    1.918207, 1.597752, 0.302898, -0.64541, -1.567418, -2.020599, 1.614472, 1.973957, 1.198298, 0.293703,
    -0.940552, -1.981492, 0.639559, 1.675081, 1.825027, 1.301816, 0.146503, -1.195653,
];
const ADALORA: [f32; 18] = [
    1.525182, 0.435589, 0.268664, 0.226948, -0.966573, -2.340361, 1.267651, 1.332653, 1.303844, 0.718729,
    -0.698839, -2.016397, 0.494618, 1.842497, 2.022976, 1.088729, -0.079411, -0.930031,
];

#[test]
fn dora_gives_pefts_numbers() {
    let parts = parts(&[("right", &[2, IN]), ("left", &[OUT, 2]), ("magnitude", &[1, OUT])]);
    check("dora", &[], 1.5, parts, &DORA);
}

#[test]
fn ia3_gives_pefts_numbers() {
    check("ia3", &[], 1.5, parts(&[("scale", &[OUT, 1])]), &IA3_OUTPUT);
    check("ia3", &[("on", "input")], 1.5, parts(&[("scale", &[1, IN])]), &IA3_INPUT);
}

#[test]
fn vera_gives_pefts_numbers() {
    // The shared factors are larger than the layer: two more columns, one more row.
    let wide = wave(3.0, 2 * (IN + 2));
    let right = wide.chunks_exact(IN + 2).flat_map(|row| row[..IN].to_vec()).collect();
    let mut left = wave(4.0, (OUT + 1) * 2);
    left.truncate(OUT * 2);
    let mut parts = parts(&[("lambda_b", &[1, OUT]), ("lambda_d", &[1, 2])]);
    parts.extend([Part::new("right", &[2, IN], right), Part::new("left", &[OUT, 2], left)]);
    check("vera", &[], 1.5, parts, &VERA);
}

#[test]
fn loha_gives_pefts_numbers() {
    let parts = parts(&[("w1_a", &[OUT, 2]), ("w1_b", &[2, IN]), ("w2_a", &[OUT, 2]), ("w2_b", &[2, IN])]);
    check("loha", &[], 1.5, parts, &LOHA);
}

#[test]
fn lokr_gives_pefts_numbers() {
    check("lokr", &[], 1.5, parts(&[("w1", &[2, 2]), ("w2", &[3, 4])]), &LOKR_FULL);
    let low = parts(&[("w1", &[2, 2]), ("w2_a", &[3, 1]), ("w2_b", &[1, 4])]);
    check("lokr", &[], 3.0, low, &LOKR_SECOND);
    let both = parts(&[("w1_a", &[2, 1]), ("w1_b", &[1, 4]), ("w2_a", &[3, 1]), ("w2_b", &[1, 2])]);
    check("lokr", &[("decompose-both", "true"), ("decompose-factor", "4")], 3.0, both, &LOKR_BOTH);
}

#[test]
fn oft_gives_pefts_numbers() {
    check("oft", &[("block-size", "4")], 1.5, parts(&[("rotation", &[2, 6])]), &OFT_NEUMANN);
    let exact = [("block-size", "4"), ("cayley", "exact")];
    check("oft", &exact, 1.5, parts(&[("rotation", &[2, 6])]), &OFT_EXACT);
    let shared = [("block-size", "2"), ("cayley", "exact"), ("share", "true")];
    check("oft", &shared, 1.5, parts(&[("rotation", &[1, 1])]), &OFT_SHARED);
}

#[test]
fn boft_gives_pefts_numbers() {
    let one = parts(&[("rotation", &[1, 2, 4, 4]), ("scale", &[OUT, 1])]);
    check("boft", &[], 1.5, one, &BOFT);
    // PEFT's own program with its CUDA kernel, which makes block diagonals, replaced by torch.block_diag.
    let three = parts(&[("rotation", &[3, 4, 2, 2]), ("scale", &[OUT, 1])]);
    check("boft", &[("block-size", "2"), ("factors", "3")], 1.5, three, &BUTTERFLY);
}

#[test]
fn adalora_gives_pefts_numbers() {
    let parts = parts(&[("right", &[2, IN]), ("values", &[2, 1]), ("left", &[OUT, 2])]);
    check("adalora", &[], 1.5, parts, &ADALORA);
}
