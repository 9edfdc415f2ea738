"""GGUF files of tiny decoders, one per block format, with the logits that transformers gives for the same numbers.

    gguf_models.py --out DIR

Each folder `gguf-NAME` holds `model.gguf`, `tokens.json` and `expected.safetensors`. The expected logits come from the weights
as they are after the blocks are widened again (by the `gguf` package), so they must be met as closely as in f32.

For `llama` the rows of the query and key weights are stored permuted, as llama.cpp's converter does (interleaved instead of
half-split rotary pairs); for `qwen2` they are not.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from gguf import GGMLQuantizationType as Kind
from gguf import GGUFWriter, TokenType
from gguf.quants import dequantize, quantize
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM

from fixtures import CHAT_TEMPLATE, PLAIN_ROPE, SPECIAL, config, fill, generator, logits_of, token_rows, tokenizer

# Width 256, because K blocks hold 256 values of one row.
WIDE = dict(hidden_size=256, intermediate_size=512, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2)
LAYER = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}
WHOLE = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}

# name -> (architecture, tied output, format of the linear layers, format of the embedding)
MODELS = {
    "f32": ("llama", False, Kind.F32, Kind.F32),
    "f16": ("llama", True, Kind.F16, Kind.F16),
    "bf16": ("llama", False, Kind.BF16, Kind.BF16),
    "q8_0": ("llama", True, Kind.Q8_0, Kind.Q8_0),
    "q4_0": ("llama", False, Kind.Q4_0, Kind.F16),
    "q4_1": ("llama", True, Kind.Q4_1, Kind.Q8_0),
    "q4_k": ("llama", False, Kind.Q4_K, Kind.Q6_K),
    "q6_k": ("llama", True, Kind.Q6_K, Kind.Q6_K),
    "qwen2-q8_0": ("qwen2", False, Kind.Q8_0, Kind.Q8_0),
}


def permuted(weight: np.ndarray, heads: int) -> np.ndarray:
    """Half-split rotary rows -> interleaved rows, per head."""
    shape = weight.shape
    return weight.reshape(heads, 2, shape[0] // heads // 2, *shape[1:]).swapaxes(1, 2).reshape(shape)


def unpermuted(weight: np.ndarray, heads: int) -> np.ndarray:
    shape = weight.shape
    return weight.reshape(heads, shape[0] // heads // 2, 2, *shape[1:]).swapaxes(1, 2).reshape(shape)


def blocks(weight: np.ndarray, kind: Kind, name: str) -> np.ndarray:
    """The bytes of a weight. The package cannot write K blocks: those are drawn at random, with scales that give the
    standard deviation of `weight`, and the model takes their values."""
    if kind not in (Kind.Q4_K, Kind.Q6_K):
        return quantize(weight, kind)
    rng = generator(name, kind.name)
    count, spread = weight.size // 256, float(weight.std())
    if kind == Kind.Q6_K:  # 128 low bits, 64 high bits, 16 signed scales, d
        data = rng.integers(0, 256, size=(count, 210), dtype=np.uint8)
        data[:, 192:208] = rng.integers(-64, 64, size=(count, 16), dtype=np.int8).view(np.uint8)
        data[:, 208:210] = halves(spread / 680 * rng.uniform(0.7, 1.3, count))
    else:  # d, dmin, 12 bytes of 6-bit scales and minima, 128 bytes of 4-bit values
        data = rng.integers(0, 256, size=(count, 144), dtype=np.uint8)
        data[:, 0:2] = halves(spread / 270 * rng.uniform(0.7, 1.3, count))
        data[:, 2:4] = halves(spread / 270 * 7.5 * rng.uniform(0.7, 1.3, count))
    return data.reshape(weight.shape[0], -1)


def halves(values: np.ndarray) -> np.ndarray:
    return values.astype("<f2").view(np.uint8).reshape(-1, 2)


def stored_name(key: str) -> str:
    """`model.layers.1.mlp.up_proj.weight` -> `blk.1.ffn_up.weight`."""
    path, last = key.rsplit(".", 1)
    if path in WHOLE:
        return f"{WHOLE[path]}.{last}"
    _, _, number, rest = path.split(".", 3)
    return f"blk.{number}.{LAYER[rest]}.{last}"


def add_tokenizer(writer: GGUFWriter) -> None:
    spec = json.loads(tokenizer().to_str())["model"]
    tokens = sorted(spec["vocab"], key=spec["vocab"].get)
    kinds = [TokenType.CONTROL if t in SPECIAL else TokenType.NORMAL for t in tokens]
    merges = [m if isinstance(m, str) else " ".join(m) for m in spec["merges"]]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    writer.add_token_merges(merges)
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(0)
    writer.add_add_bos_token(False)
    writer.add_chat_template(CHAT_TEMPLATE)


def add_settings(writer: GGUFWriter, conf) -> None:
    head = conf.hidden_size // conf.num_attention_heads
    writer.add_context_length(conf.max_position_embeddings)
    writer.add_embedding_length(conf.hidden_size)
    writer.add_block_count(conf.num_hidden_layers)
    writer.add_feed_forward_length(conf.intermediate_size)
    writer.add_head_count(conf.num_attention_heads)
    writer.add_head_count_kv(conf.num_key_value_heads)
    writer.add_layer_norm_rms_eps(conf.rms_norm_eps)
    writer.add_rope_freq_base(conf.rope_parameters["rope_theta"])
    writer.add_rope_dimension_count(head)
    writer.add_vocab_size(conf.vocab_size)


def build(name: str, out: Path) -> None:
    arch, tied, linear, embedding = MODELS[name]
    folder = out / f"gguf-{name}"
    folder.mkdir(parents=True, exist_ok=True)
    conf = config(arch, {**WIDE, "tie_word_embeddings": tied, "rope_parameters": {**PLAIN_ROPE, "rope_theta": 20000.0}})
    model = AutoModelForCausalLM.from_config(conf, attn_implementation="eager", dtype=torch.float32).eval()
    fill(model, f"gguf-{name}")

    writer = GGUFWriter(folder / "model.gguf", arch)
    writer.add_name(f"tiny {name}")
    add_settings(writer, conf)
    add_tokenizer(writer)
    with torch.no_grad():
        for key, tensor in model.named_parameters():
            weight = tensor.numpy()
            heads = {"q_proj": conf.num_attention_heads, "k_proj": conf.num_key_value_heads}.get(key.split(".")[-2])
            turn = arch == "llama" and heads is not None
            if turn:
                weight = permuted(weight, heads)
            kind = Kind.F32 if weight.ndim == 1 else embedding if key.startswith(("model.embed", "lm_head")) else linear
            data = weight.copy() if kind == Kind.F32 else blocks(weight, kind, key)
            writer.add_tensor(stored_name(key), data, raw_dtype=None if kind == Kind.F32 else kind)
            widened = weight if kind == Kind.F32 else dequantize(data, kind).reshape(weight.shape)
            tensor.copy_(torch.from_numpy(unpermuted(widened, heads) if turn else widened))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()

    rows = token_rows(f"gguf-{name}")
    (folder / "tokens.json").write_text(json.dumps(rows) + "\n")
    logits = logits_of(model, rows)
    save_file({"logits": logits}, folder / "expected.safetensors")
    print(f"gguf-{name:14} {(folder / 'model.gguf').stat().st_size:>9} bytes, logits std {logits[0].std():.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    torch.set_num_threads(1)
    for name in MODELS:
        build(name, args.out)


if __name__ == "__main__":
    main()
