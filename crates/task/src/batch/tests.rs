use proptest::prelude::*;

use super::*;

fn example(tokens: &[u32], loss: &[u8], next: Option<u32>, line: usize) -> Example {
    Example { tokens: tokens.to_vec(), loss: loss.iter().map(|&learned| learned == 1).collect(), next, line }
}

/// Examples of the given lengths; token values tell example and place, every third token is not learned.
fn examples(lengths: &[usize]) -> Vec<Example> {
    let one = |(index, &length): (usize, &usize)| {
        let tokens = (0..length).map(|at| (index * 1000 + at + 1) as u32).collect();
        let loss = (0..length).map(|at| at % 3 != 0).collect();
        Example { tokens, loss, next: None, line: index + 1 }
    };
    lengths.iter().enumerate().map(one).collect()
}

const PACKED: Batching = Batching { batch: 2, time: 8, packing: true, pad: 9 };

#[test]
fn a_hand_laid_row() {
    let examples = [example(&[11, 12, 13], &[0, 0, 1], None, 1), example(&[21, 22], &[0, 1], Some(23), 2)];
    let batching = Batching { batch: 1, time: 6, packing: true, pad: 9 };
    let batch = BatchPlan::in_order(&examples, batching).unwrap().batch(0).unwrap();
    assert_eq!(batch.tokens, [11, 12, 13, 21, 22, 9]);
    assert_eq!(batch.targets, [-100, 13, -100, 22, 23, -100]);
    assert_eq!(batch.starts, [0, 0, 0, 3, 3, 5]);
    assert_eq!(batch.positions, [0, 1, 2, 0, 1, 0]);
    assert_eq!((batch.batch, batch.time, batch.loss_tokens(), batch.filled), (1, 6, 3, 5));
    use Held::{Given, Learned, Padding};
    assert_eq!(batch.held, [Given, Given, Learned, Given, Learned, Padding]);
}

#[test]
fn without_packing_rows_are_as_long_as_the_longest() {
    let examples = examples(&[2, 4, 3]);
    let plan = BatchPlan::in_order(&examples, Batching { packing: false, ..PACKED }).unwrap();
    let first = plan.batch(0).unwrap();
    assert_eq!((first.batch, first.time, first.filled), (2, 4, 6));
    assert_eq!(plan.places(), [8, 3]);
    assert_eq!(first.tokens, [1, 2, 9, 9, 1001, 1002, 1003, 1004]);
    assert_eq!(first.starts, [0, 0, 2, 3, 0, 0, 0, 0]);
    assert_eq!(first.targets, [2, -100, -100, -100, 1002, 1003, -100, -100]);
    let last = plan.batch(1).unwrap();
    assert_eq!((last.batch, last.time, plan.batches()), (1, 3, 2));
    assert_eq!(plan.batch(2).unwrap_err(), TaskError::NoSuchBatch { index: 2, batches: 2 });
}

#[test]
fn rows_are_packed_tightly() {
    // 5 + 3, 6 + 2, 4 + 4: best fit in this order fills three rows to the last place.
    let examples = examples(&[5, 6, 4, 4, 2, 3]);
    let plan = BatchPlan::in_order(&examples, PACKED).unwrap();
    assert_eq!(plan.rows(0).unwrap(), [vec![0, 5], vec![1, 4]]);
    assert_eq!(plan.rows(1).unwrap(), [vec![2, 3]]);
    assert_eq!(plan.places(), [16, 8]);
}

#[test]
fn seed_and_epoch_fix_the_order() {
    let examples = examples(&[3; 40]);
    for packing in [false, true] {
        let order = |seed, epoch| {
            let plan = BatchPlan::new(&examples, Batching { packing, ..PACKED }, Seed(seed), epoch).unwrap();
            (0..plan.batches()).map(|index| plan.batch(index).unwrap()).collect::<Vec<_>>()
        };
        assert_eq!(order(1, 0), order(1, 0));
        assert_ne!(order(1, 0), order(1, 1));
        assert_ne!(order(1, 0), order(2, 0));
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    let long = examples(&[3, 9]);
    let refused = |examples: &[Example], batching| {
        BatchPlan::new(examples, batching, Seed(1), 0).map(|_| ()).unwrap_err()
    };
    assert_eq!(refused(&long, PACKED), TaskError::RowTooShort { length: 9, time: 8 }.at(2));
    assert_eq!(refused(&[], PACKED), TaskError::NoRecords);
    assert!(matches!(
        refused(&long, Batching { batch: 0, ..PACKED }),
        TaskError::Setting { setting: "batch", .. }
    ));
    assert!(matches!(
        refused(&long, Batching { time: 0, ..PACKED }),
        TaskError::Setting { setting: "time", .. }
    ));
    let large = [example(&[1, u32::MAX], &[0, 1], None, 4)];
    assert_eq!(refused(&large, PACKED), TaskError::TokenTooLarge { token: u32::MAX }.at(4));
}

proptest! {
    #[test]
    fn every_token_stands_once_and_no_document_is_crossed(
        lengths in prop::collection::vec(1_usize..=16, 1..60),
        packing in any::<bool>(), batch in 1_usize..5, seed in any::<u64>(), epoch in 0_u64..3,
    ) {
        let examples = examples(&lengths);
        let batching = Batching { batch, time: 16, packing, pad: 0 };
        let plan = BatchPlan::new(&examples, batching, Seed(seed), epoch).unwrap();
        let mut seen = Vec::new();
        for index in 0..plan.batches() {
            let batch = plan.batch(index).unwrap();
            for place in 0..batch.batch * batch.time {
                let (row, column) = (place / batch.time, place % batch.time);
                let (token, start) = (batch.tokens[place], batch.starts[place] as usize);
                prop_assert!(start <= column);
                // Token 0 is only ever padding here.
                prop_assert_eq!(batch.held[place] == Held::Padding, token == 0);
                if token == 0 {
                    prop_assert_eq!((start, batch.positions[place], batch.targets[place]), (column, 0, NO_TARGET));
                    continue;
                }
                seen.push(token);
                prop_assert_eq!(batch.positions[place] as usize, column - start);
                // From its start to here stands one document, whole and in order.
                let (document, at) = ((token as usize - 1) / 1000, (token as usize - 1) % 1000);
                prop_assert_eq!(at, column - start);
                prop_assert_eq!(batch.tokens[row * batch.time + start] as usize, document * 1000 + 1);
                let learned = at + 1 < lengths[document] && (at + 1) % 3 != 0;
                prop_assert_eq!(batch.targets[place], if learned { token as i32 + 1 } else { NO_TARGET });
            }
        }
        seen.sort_unstable();
        let all: Vec<u32> = examples.iter().flat_map(|example| example.tokens.clone()).collect();
        prop_assert_eq!(seen, all);
    }
}
