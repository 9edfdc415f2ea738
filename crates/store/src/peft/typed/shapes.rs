//! The shapes that PEFT gives the tensors of each kind.

use super::kind::join;
use super::{Blocks, Kind, Settings, TypedConfig, TypedFolder, TypedModule};
use crate::peft::matching::full_match;
use crate::peft::{Matcher, PeftError, Targets};

/// A side: what it is called, and how long it must be where that is known.
type Side = (&'static str, Option<usize>);

/// The tensors of one module, looked at part by part.
struct Parts<'a> {
    kind: Kind,
    module: &'a TypedModule,
}

impl Parts<'_> {
    fn name(&self, part: &str) -> Result<String, PeftError> {
        join(self.kind, &self.module.module, part)
    }

    fn has(&self, part: &str) -> bool {
        self.module.tensor(part).is_some()
    }

    fn extra<T>(&self, part: &str) -> Result<T, PeftError> {
        Err(PeftError::ExtraTensor { name: self.name(part)? })
    }

    fn misshaped<T>(&self, part: &str, wanted: String) -> Result<T, PeftError> {
        let shape = self.module.tensor(part).map(|tensor| tensor.shape.clone()).unwrap_or_default();
        Err(PeftError::Misshaped { name: self.name(part)?, shape, wanted })
    }

    /// The sides of a part, which must be there and have those that are known; the others are at least 1.
    fn sides<const N: usize>(&self, part: &str, wanted: [Side; N]) -> Result<[usize; N], PeftError> {
        let Some(tensor) = self.module.tensor(part) else {
            return Err(PeftError::MissingTensor { name: self.name(part)? });
        };
        let fits = |(&side, (_, wanted)): (&usize, &Side)| match wanted {
            Some(wanted) => side == *wanted,
            None => side > 0,
        };
        match <[usize; N]>::try_from(tensor.shape.as_slice()) {
            Ok(sides) if sides.iter().zip(&wanted).all(fits) => Ok(sides),
            _ => self.misshaped(part, shown(&wanted)),
        }
    }
}

/// `[out, 3]`
fn shown(wanted: &[Side]) -> String {
    let side = |(name, length): &Side| length.map_or((*name).to_owned(), |length| length.to_string());
    format!("[{}]", wanted.iter().map(side).collect::<Vec<_>>().join(", "))
}

/// Each part of a module is there and has the shape that PEFT gives it.
pub(super) fn of_module(
    config: &TypedConfig,
    matcher: &Matcher<'_>,
    module: &TypedModule,
) -> Result<(), PeftError> {
    let parts = Parts { kind: config.settings.kind(), module };
    let rank = matcher.rank(&module.module);
    let (out, inp, r) = (("out", None), ("in", None), ("r", Some(rank)));
    let one = ("1", Some(1));
    match &config.settings {
        Settings::Ia3 { feedforward } => {
            let on_input = is_feedforward(feedforward, &module.module)?;
            parts.sides("scale", if on_input { [one, inp] } else { [out, one] }).map(|_| ())
        }
        Settings::Loha { .. } => {
            let [output, _] = parts.sides("w1_a", [out, r])?;
            let [_, input] = parts.sides("w1_b", [r, inp])?;
            parts.sides("w2_a", [("out", Some(output)), r])?;
            parts.sides("w2_b", [r, ("in", Some(input))]).map(|_| ())
        }
        Settings::Lokr { decompose_both, decompose_factor, .. } => {
            kronecker(&parts, rank, *decompose_both, *decompose_factor)
        }
        Settings::Oft { blocks, block_share, .. } => rotation(&parts, *blocks, *block_share),
        Settings::Boft { blocks, factors } => {
            let (size, count) = match *blocks {
                Blocks::Size(size) => (Some(size), None),
                Blocks::Count(count) => (None, Some(count)),
            };
            let wanted = [("factors", None), ("blocks", count), ("size", size), ("size", size)];
            let [found, _, rows, columns] = parts.sides("rotation", wanted)?;
            // Without its CUDA extension PEFT makes, saves and loads one factor, whatever the configuration says.
            if rows != columns || (found != *factors && found != 1) {
                let wanted = format!("[{factors}, blocks, size, size]");
                return parts.misshaped("rotation", wanted);
            }
            parts.sides("scale", [out, one]).map(|_| ())
        }
        Settings::Vera { .. } => {
            parts.sides("lambda_b", [out])?;
            parts.sides("lambda_d", [r]).map(|_| ())
        }
        Settings::Adalora { init_rank, kept, .. } => {
            let left = match kept.iter().find(|(name, _)| *name == module.module) {
                Some((name, kept)) if kept.len() != *init_rank => {
                    let (module, found) = (name.clone(), kept.len());
                    return Err(PeftError::BadChoice { module, found, expected: *init_rank });
                }
                Some((_, kept)) => kept.iter().filter(|kept| **kept).count(),
                None => *init_rank,
            };
            let r = ("r", Some(left));
            parts.sides("right", [r, inp])?;
            parts.sides("left", [out, r])?;
            parts.sides("values", [r, one]).map(|_| ())
        }
    }
}

/// The tensors that all modules share.
pub(super) fn of_shared(folder: &TypedFolder) -> Result<(), PeftError> {
    let Settings::Vera { rank, .. } = folder.config.settings else { return Ok(()) };
    let outputs = folder.modules.iter().filter_map(|module| module.tensor("lambda_b"));
    let widest = outputs.map(|tensor| tensor.values.len()).max().unwrap_or(0);
    let fits = [
        ("vera_A", [("r", Some(rank)), ("widest in", None)]),
        ("vera_B", [("widest out", Some(widest)), ("r", Some(rank))]),
    ];
    for (part, wanted) in fits {
        let Some(tensor) = folder.shared(part) else { continue };
        let fit = |(&side, (_, wanted)): (&usize, &Side)| wanted.map_or(side > 0, |wanted| side == wanted);
        if tensor.shape.len() != 2 || !tensor.shape.iter().zip(&wanted).all(fit) {
            let (name, shape) = (format!("base_model.{part}"), tensor.shape.clone());
            return Err(PeftError::Misshaped { name, shape, wanted: shown(&wanted) });
        }
    }
    Ok(())
}

/// PEFT's rule, which looks at ends of names without a dot before them.
fn is_feedforward(feedforward: &Targets, module: &str) -> Result<bool, PeftError> {
    Ok(match feedforward {
        Targets::List(list) => list.iter().any(|end| module.ends_with(end.as_str())),
        Targets::Pattern(pattern) => full_match(pattern)?.is_match(module),
    })
}

/// The sides `(small, large)` of w1 and w2 into which LoKr cuts a side of a weight, small · large = `side`: PEFT's `factorization`.
#[must_use]
pub fn kronecker_sides(side: usize, decompose_factor: i64) -> (usize, usize) {
    let near = usize::try_from(decompose_factor).unwrap_or(0);
    if near > 0 && side.is_multiple_of(near) {
        return (near, side / near);
    }
    let near = if decompose_factor == -1 { side } else { near };
    let (mut small, mut large) = (1, side);
    let length = small + large;
    while small < large {
        let Some(next) = (small + 1..=side).find(|divisor| side.is_multiple_of(*divisor)) else { break };
        let other = side / next;
        if next + other > length || next > near {
            break;
        }
        (small, large) = (next, other);
    }
    (small.min(large), small.max(large))
}

fn kronecker(parts: &Parts<'_>, rank: usize, both: bool, factor: i64) -> Result<(), PeftError> {
    let r = ("r", Some(rank));
    let pair = |whole: &str, a: &str, b: &str| -> Result<(usize, usize), PeftError> {
        if !parts.has(whole) && (parts.has(a) || parts.has(b)) {
            let [rows, _] = parts.sides(a, [("rows", None), r])?;
            let [_, columns] = parts.sides(b, [r, ("columns", None)])?;
            return Ok((rows, columns));
        }
        let [rows, columns] = parts.sides(whole, [("rows", None), ("columns", None)])?;
        match [a, b].into_iter().find(|part| parts.has(part)) {
            Some(part) => parts.extra(part),
            None => Ok((rows, columns)),
        }
    };
    let (out1, in1) = pair("w1", "w1_a", "w1_b")?;
    let (out2, in2) = pair("w2", "w2_a", "w2_b")?;
    for (first, second) in [(out1, out2), (in1, in2)] {
        let (small, large) = kronecker_sides(first.saturating_mul(second), factor);
        if (small, large) != (first, second) {
            let part = if parts.has("w1") { "w1" } else { "w1_a" };
            let wanted = format!(
                "a side of {small} beside {large} in w2, by decompose_factor, instead of {first} and {second}"
            );
            return parts.misshaped(part, wanted);
        }
    }
    // Where the rank is large enough PEFT expects the whole matrix, and would pass over its factors.
    for (whole, factored, in_factors) in
        [("w1", "w1_a", both && 2 * rank < out1.max(in1)), ("w2", "w2_a", 2 * rank < out2.max(in2))]
    {
        match (in_factors, parts.has(whole)) {
            (true, true) => return parts.extra(whole),
            (false, false) => return parts.extra(factored),
            _ => {}
        }
    }
    Ok(())
}

/// OFT's blocks, each the part above the diagonal of a skew-symmetric matrix.
fn rotation(parts: &Parts<'_>, blocks: Blocks, share: bool) -> Result<(), PeftError> {
    let [count, entries] = parts.sides("rotation", [("blocks", None), ("size·(size − 1)/2", None)])?;
    let Some(size) = (2..=entries + 1).find(|size| size * (size - 1) / 2 >= entries) else {
        return parts.misshaped("rotation", "[blocks, size·(size − 1)/2]".to_owned());
    };
    if size * (size - 1) / 2 != entries {
        return parts.misshaped("rotation", "[blocks, size·(size − 1)/2]".to_owned());
    }
    if share {
        // The width of the input, and with it the number of blocks, only the model knows.
        let wanted = "[1, size·(size − 1)/2]".to_owned();
        return if count == 1 { Ok(()) } else { parts.misshaped("rotation", wanted) };
    }
    let input = count.saturating_mul(size);
    let (found, asked, what) = match blocks {
        Blocks::Size(asked) => (size, asked, "size"),
        Blocks::Count(asked) => (count, asked, "blocks"),
    };
    let expected = nearest_divisor(input, asked);
    if found == expected {
        return Ok(());
    }
    parts.misshaped("rotation", format!("[blocks, size·(size − 1)/2] with {what} {expected}"))
}

/// What PEFT makes of a block size or number that does not divide the width: the nearest one that does, the smaller of two.
fn nearest_divisor(width: usize, asked: usize) -> usize {
    if asked == 0 || asked >= width {
        return width;
    }
    let higher = (asked..=width).find(|divisor| width.is_multiple_of(*divisor)).unwrap_or(width);
    let lower = (1..=asked).rev().find(|divisor| width.is_multiple_of(*divisor)).unwrap_or(1);
    if asked - lower <= higher - asked { lower } else { higher }
}

#[cfg(test)]
mod tests {
    use super::{kronecker_sides, nearest_divisor};

    #[test]
    fn sides_are_those_of_peft() {
        // peft 0.21.2: peft.tuners.lokr.layer.factorization
        let cases = [
            (256, -1, (16, 16)),
            (128, -1, (8, 16)),
            (127, -1, (1, 127)),
            (128, 4, (4, 32)),
            (16, 8, (8, 2)),
            (24, 5, (4, 6)),
            (36, 7, (6, 6)),
            (12, 0, (1, 12)),
            (1, -1, (1, 1)),
        ];
        for (side, factor, wanted) in cases {
            assert_eq!(kronecker_sides(side, factor), wanted, "{side} by {factor}");
        }
    }

    #[test]
    fn block_sizes_are_adjusted_as_in_peft() {
        // peft 0.21.2: OFTLayer.adjust_oft_parameters
        for (width, asked, wanted) in
            [(64, 8, 8), (24, 32, 24), (24, 5, 4), (24, 7, 6), (24, 11, 12), (7, 3, 1)]
        {
            assert_eq!(nearest_divisor(width, asked), wanted, "{asked} in {width}");
        }
    }
}
