//! ggml's numbers for element types (`enum ggml_type`).

use super::GgufError;
use crate::{Dtype, Format};

/// Types that are read and written here.
const READ: [(u32, Dtype); 13] = [
    (0, Dtype::Real(Format::F32)),
    (1, Dtype::Real(Format::F16)),
    (2, Dtype::Real(Format::Q4_0)),
    (3, Dtype::Real(Format::Q4_1)),
    (8, Dtype::Real(Format::Q8_0)),
    (12, Dtype::Real(Format::Q4_K)),
    (14, Dtype::Real(Format::Q6_K)),
    (24, Dtype::I8),
    (25, Dtype::I16),
    (26, Dtype::I32),
    (27, Dtype::I64),
    (28, Dtype::Real(Format::F64)),
    (30, Dtype::Real(Format::BF16)),
];

/// Types that ggml has beside those: named, so that the user knows what the file holds.
const UNREAD: [(u32, &str); 20] = [
    (6, "Q5_0"),
    (7, "Q5_1"),
    (9, "Q8_1"),
    (10, "Q2_K"),
    (11, "Q3_K"),
    (13, "Q5_K"),
    (15, "Q8_K"),
    (16, "IQ2_XXS"),
    (17, "IQ2_XS"),
    (18, "IQ3_XXS"),
    (19, "IQ1_S"),
    (20, "IQ4_NL"),
    (21, "IQ3_S"),
    (22, "IQ2_S"),
    (23, "IQ4_XS"),
    (29, "IQ1_M"),
    (34, "TQ1_0"),
    (35, "TQ2_0"),
    (39, "MXFP4"),
    (40, "NVFP4"),
];

pub(super) fn dtype(id: u32, name: &str) -> Result<Dtype, GgufError> {
    if let Some(&(_, dtype)) = READ.iter().find(|(known, _)| *known == id) {
        return Ok(dtype);
    }
    let name = name.to_owned();
    Err(match UNREAD.iter().find(|(known, _)| *known == id) {
        Some(&(_, kind)) => GgufError::UnreadTensorType { name, kind },
        None => GgufError::UnknownTensorType { name, id },
    })
}

pub(super) fn id(dtype: Dtype) -> Option<u32> {
    READ.iter().find(|(_, known)| *known == dtype).map(|(id, _)| *id)
}
