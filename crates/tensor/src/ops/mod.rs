//! Fused operations with hand-written backward, one a file. On the CPU they run the kernels; elsewhere the composed
//! form of [`composed`].
//!
//! What is never computed: a gradient for a frozen weight; a score matrix `[time, time]`; logits for all tokens at
//! once, unless the head has to make them itself ([`cross_entropy_of_logits`]). What is saved for the backward is listed
//! in each file.

mod attention;
mod attention_full;
pub mod composed;
mod cross_entropy;
mod dense;
mod embedding;
mod gelu;
mod layer_norm;
mod linear;
mod pullback;
mod rms_norm;
mod rotary;
mod swiglu;
mod tap;

pub use attention::{Heads, Layout, attend, attention};
pub use attention_full::{FullAttention, attention_full};
pub use cross_entropy::{
    TargetError, Targets, cross_entropy, cross_entropy_dense, cross_entropy_of_logits, log_likelihoods,
    log_likelihoods_dense, log_likelihoods_of_logits,
};
pub use dense::dense;
pub use embedding::{embedding, embedding_dense};
pub use gelu::{Gelu, gelu};
pub use layer_norm::layer_norm;
pub use linear::linear;
pub use pullback::pullback;
pub use rms_norm::rms_norm;
pub use rotary::{Rotary, rotary};
pub use swiglu::swiglu;
pub use tap::{InputObserver, Observer, show_inputs, tap};

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use lowrank_record::Seed;

    use super::*;
    use crate::Matrix;
    use crate::fused::{FlexTensor, Fused, tensor, values};

    fn draws(name: &str, shape: [usize; 2]) -> FlexTensor {
        let values = Seed(12).at("ops", name).normal(shape[0] * shape[1]);
        tensor(values.into_iter().map(f64::from).collect::<Vec<f64>>(), &shape)
    }

    /// An operation and the shapes of its inputs.
    type Row = (Box<dyn Fused>, Vec<[usize; 2]>);

    /// Every operation of several inputs.
    fn operations() -> Vec<Row> {
        let weight =
            |shape: [usize; 2]| Matrix::from_f64(values::<f64>(&draws("w", shape)).to_vec(), shape).unwrap();
        let targets = Targets { ids: Arc::new([3, -1, 0, 6]), weights: None };
        let layout = Layout::dense(2, 2);
        let heads = Heads { heads: 2, kv_heads: 1, head_dim: 4 };
        vec![
            (
                Box::new(linear::Linear { weight: weight([7, 5]), bias: None, right_tracked: true }),
                vec![[4, 5], [7, 3], [3, 5]],
            ),
            (Box::new(dense::Dense), vec![[4, 5], [7, 5]]),
            (Box::new(rms_norm::RmsNorm { epsilon: 1e-5 }), vec![[4, 5], [1, 5]]),
            (Box::new(layer_norm::LayerNorm { epsilon: 1e-5 }), vec![[4, 5], [1, 5], [1, 5]]),
            (Box::new(swiglu::SwiGlu), vec![[4, 5], [4, 5]]),
            (Box::new(attention::Attention { heads, layout }), vec![[4, 8], [4, 4], [4, 4]]),
            (
                Box::new(cross_entropy::CrossEntropy { head: None, targets: targets.clone() }),
                vec![[4, 5], [7, 5]],
            ),
            (
                Box::new(cross_entropy::CrossEntropy { head: Some(weight([7, 5])), targets }),
                vec![[4, 5], [7, 3], [3, 5]],
            ),
        ]
    }

    #[test]
    fn a_gradient_is_given_where_it_is_wanted_and_nowhere_else() {
        for (operation, shapes) in operations() {
            let inputs: Vec<FlexTensor> =
                shapes.iter().enumerate().map(|(i, &shape)| draws(&format!("{i}"), shape)).collect();
            let run = |wanted: &[bool]| -> Vec<Option<Vec<f64>>> {
                let (output, saved) = operation.forward(&inputs, true);
                let shape = output.layout().shape().to_vec();
                let ones = tensor(vec![1.0_f64; shape.iter().product()], &shape);
                let gradients = operation.backward(ones, saved, wanted);
                gradients.iter().map(|gradient| gradient.as_ref().map(|g| values(g).to_vec())).collect()
            };
            let all = run(&vec![true; inputs.len()]);
            for mask in 1_usize..1 << inputs.len() {
                let wanted: Vec<bool> = (0..inputs.len()).map(|input| mask >> input & 1 == 1).collect();
                let expected =
                    all.iter().zip(&wanted).map(|(gradient, &want)| gradient.clone().filter(|_| want));
                assert_eq!(run(&wanted), expected.collect::<Vec<_>>(), "{operation:?} {wanted:?}");
            }
            for (gradient, shape) in all.iter().zip(&shapes) {
                assert_eq!(gradient.as_ref().map(Vec::len), Some(shape[0] * shape[1]), "{operation:?}");
            }
        }
    }
}
