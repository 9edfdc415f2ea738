"""Tiny random decoders with a planted decaying spectrum, saved as Hugging Face directories.

Each directory holds what the program reads (`config.json`, single or sharded safetensors, `tokenizer.json`,
`tokenizer_config.json`) and what the other scripts compare with:

    tokens.json              list of rows of token ids, of different lengths
    expected.safetensors     `logits` [batch, time, vocab] f32 of `transformers`, shorter rows padded with zeros
    data.jsonl               prompt/completion lines for `lowrank tune`

Usage: fixtures.py --out DIR [--only NAME ...]

Random, non-square, no zero anywhere: norm weights differ from 1 and biases from 0, so a forgotten one shows.
"""

import argparse
import hashlib
import json
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import AutoConfig, AutoModelForCausalLM

VOCAB = 320
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] "
    "+ '<|im_end|>' + '\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
SHAPE = dict(
    vocab_size=VOCAB,
    hidden_size=64,
    intermediate_size=112,
    num_hidden_layers=3,
    num_attention_heads=4,
    max_position_embeddings=512,
    rms_norm_eps=1e-5,
    initializer_range=0.02,
    bos_token_id=0,
    eos_token_id=0,
    pad_token_id=None,
)
PLAIN_ROPE = {"rope_type": "default", "rope_theta": 10000.0}

# name -> (model type, config changes, how it is written)
# `shards`: maximal bytes of a shard; `legacy`: rope_theta and rope_scaling at the top level, as before transformers 5.
FIXTURES = {
    "llama-mha-untied": ("llama", dict(num_key_value_heads=4, tie_word_embeddings=False), dict(legacy=True)),
    "llama-gqa-tied": ("llama", dict(num_key_value_heads=2, tie_word_embeddings=True), dict(shards=100_000)),
    "llama-bias": (
        "llama",
        dict(num_key_value_heads=1, tie_word_embeddings=False, attention_bias=True, mlp_bias=True),
        dict(),
    ),
    "llama-bf16": ("llama", dict(num_key_value_heads=2, tie_word_embeddings=False), dict(dtype="bfloat16", legacy=True)),
    "qwen2-bias": (
        "qwen2",
        dict(num_key_value_heads=2, tie_word_embeddings=False, use_sliding_window=False, rms_norm_eps=1e-6),
        dict(legacy=True),
    ),
    "mistral": (
        "mistral",
        dict(num_key_value_heads=2, head_dim=24, tie_word_embeddings=False, sliding_window=None),
        dict(shards=100_000),
    ),
    "llama3-rope": (
        "llama",
        dict(
            num_key_value_heads=2,
            tie_word_embeddings=False,
            # Wavelengths of head size 16 at theta 10000 start 6.3, 19.9, 62.8: one below, one inside, the rest above the band.
            rope_parameters=dict(
                rope_type="llama3",
                rope_theta=10000.0,
                factor=8.0,
                low_freq_factor=1.0,
                high_freq_factor=4.0,
                original_max_position_embeddings=32,
            ),
        ),
        dict(legacy=True),
    ),
    "linear-rope": (
        "llama",
        dict(
            num_key_value_heads=2,
            tie_word_embeddings=True,
            rope_parameters=dict(rope_type="linear", rope_theta=5000.0, factor=4.0),
        ),
        dict(),
    ),
    "yarn-rope": (
        "llama",
        dict(
            num_key_value_heads=2,
            tie_word_embeddings=True,
            max_position_embeddings=2048,
            # The ramp goes from pair 2 to pair 6 of a head of 16 (from 1 to 3 of a head of 8): some pairs keep their
            # frequency, some are divided, some lie between.
            rope_parameters=dict(
                rope_type="yarn",
                rope_theta=1000.0,
                factor=4.0,
                beta_fast=8.0,
                beta_slow=1.0,
                original_max_position_embeddings=512,
            ),
        ),
        dict(),
    ),
    # Heads of odd width, positions that are learned, weights stored [in, out].
    "gpt2": ("gpt2", dict(hidden_size=60, tie_word_embeddings=True), dict(shards=100_000)),
    # As OpenAI's checkpoints are: without `transformer.`, with the causal masks.
    "gpt2-bare": ("gpt2", dict(n_inner=None, activation_function="gelu", tie_word_embeddings=True), dict(bare="transformer.")),
    "gpt2-untied": ("gpt2", dict(tie_word_embeddings=False), dict(dtype="bfloat16")),
    "neox-parallel": ("gpt_neox", dict(rotary_pct=0.25, use_parallel_residual=True), dict()),
    "neox-sequential": (
        "gpt_neox",
        # 0.4 of a head of 10.
        dict(hidden_size=60, num_attention_heads=6, rotary_pct=0.4, use_parallel_residual=False, hidden_act="gelu_fast"),
        dict(legacy=True, shards=100_000),
    ),
    "neox-scaled": (
        "gpt_neox",
        dict(
            rotary_pct=0.5,
            attention_bias=False,
            tie_word_embeddings=True,
            rope_parameters=dict(rope_type="linear", rope_theta=5000.0, factor=4.0),
        ),
        dict(),
    ),
    "phi": ("phi", dict(num_key_value_heads=2), dict()),
    "phi-partial": (
        "phi",
        # 0.4 of a head of 15.
        dict(hidden_size=60, num_key_value_heads=4, partial_rotary_factor=0.4, hidden_act="gelu"),
        dict(legacy=True),
    ),
    # A window shorter than the rows: the program computes it or refuses by name, it never ignores it.
    "mistral-window": (
        "mistral",
        dict(num_key_value_heads=2, tie_word_embeddings=False, sliding_window=8),
        dict(),
    ),
}
ROW_LENGTHS = (40, 23, 7)


# What a family calls the keys of SHAPE, and those that it has not.
RENAMED = {
    "gpt2": dict(intermediate_size="n_inner", rms_norm_eps="layer_norm_epsilon", rope_parameters=None),
    "gpt_neox": dict(rms_norm_eps="layer_norm_eps"),
    "phi": dict(rms_norm_eps="layer_norm_eps"),
}


def generator(*names: str) -> np.random.Generator:
    """A stream of its own for each name, the same on every machine."""
    digest = hashlib.sha256("/".join(names).encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:8], "little"))


def planted(rng: np.random.Generator, rows: int, cols: int, gain: float, decay: float = 0.7) -> np.ndarray:
    """U diag(i^-decay) V^T, scaled so that a unit-variance input gives outputs of variance gain^2."""
    k = min(rows, cols)
    u, _ = np.linalg.qr(rng.standard_normal((rows, k)))
    v, _ = np.linalg.qr(rng.standard_normal((cols, k)))
    s = np.arange(1, k + 1, dtype=np.float64) ** -decay
    s *= gain * np.sqrt(rows) / np.linalg.norm(s)
    return (u * s) @ v.T


def fill(model: torch.nn.Module, name: str) -> None:
    with torch.no_grad():
        for key, tensor in model.named_parameters():
            rng = generator(name, key)
            if tensor.ndim == 2:
                ends = ("embed_tokens", "lm_head", "wte", "embed_in", "embed_out")
                writers = ("o_proj", "down_proj", "c_proj", "attention.dense", "4h_to_h", "self_attn.dense", "fc2")
                # Louder at both ends for logits of some size, quieter where a layer adds to the stream.
                gain = 2.0 if any(k in key for k in ends) else 0.7 if any(k in key for k in writers) else 1.0
                stored_by_input = ".h." in key  # Conv1D
                value = planted(rng, *(tensor.T if stored_by_input else tensor).shape, gain)
                value = value.T if stored_by_input else value
            elif key.endswith("bias"):
                value = 0.5 * rng.standard_normal(tensor.shape)
            else:
                value = 1.0 + 0.2 * rng.standard_normal(tensor.shape)
            tensor.copy_(torch.from_numpy(np.asarray(value, dtype=np.float32)))


def sentences() -> list[str]:
    rng = generator("sentences")
    who = ["The captain", "A sailor", "The old harpooneer", "My sister", "The clerk", "Every teacher"]
    verb = ["measured", "forgot", "carried", "repaired", "counted", "painted"]
    what = ["the lantern", "seven ropes", "a broken compass", "the ledger", "two barrels", "the green door"]
    when = ["before dawn", "in the rain", "at the harbour", "without a word", "after supper"]
    pick = lambda words: words[int(rng.integers(len(words)))]
    return [f"{pick(who)} {pick(verb)} {pick(what)} {pick(when)}." for _ in range(400)]


def tokenizer() -> Tokenizer:
    tok = Tokenizer(models.BPE())
    tok.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tok.decoder = decoders.ByteLevel()
    tok.post_processor = processors.ByteLevel(trim_offsets=False)
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tok.train_from_iterator(sentences(), trainer)
    return tok


def config(kind: str, changes: dict):
    names = RENAMED.get(kind, {})
    settings = {names.get(key, key): value for key, value in {**SHAPE, "rope_parameters": dict(PLAIN_ROPE)}.items()}
    settings.update({names.get(key, key): value for key, value in changes.items()})
    settings.pop(None, None)
    return AutoConfig.for_model(kind, **settings)


def rewrite_legacy(path: Path) -> None:
    """The keys that directories written before transformers 5 carry."""
    conf = json.loads(path.read_text())
    rope = conf.pop("rope_parameters")
    neox = conf["model_type"] == "gpt_neox"
    conf["rotary_emb_base" if neox else "rope_theta"] = rope.pop("rope_theta")
    if "partial_rotary_factor" in rope:
        conf["rotary_pct" if neox else "partial_rotary_factor"] = rope.pop("partial_rotary_factor")
    conf["rope_scaling"] = None if rope["rope_type"] == "default" else rope
    conf["torch_dtype"] = conf.pop("dtype", "float32")
    path.write_text(json.dumps(conf, indent=2, sort_keys=True) + "\n")


def rewrite_bare(path: Path, prefix: str, context: int) -> None:
    """Names without their beginning, and the causal mask of each block, as in OpenAI's GPT-2."""
    tensors = {name.removeprefix(prefix): value for name, value in load_file(path).items()}
    mask = torch.tril(torch.ones(context, context)).view(1, 1, context, context)
    blocks = {name.split(".")[1] for name in tensors if name.startswith("h.")}
    tensors.update({f"h.{block}.attn.bias": mask.clone() for block in sorted(blocks)})
    save_file(tensors, path, metadata={"format": "pt"})


def logits_of(model: torch.nn.Module, rows: list[list[int]]) -> torch.Tensor:
    """`[batch, time, vocab]` f32; each row runs alone, so no padding mask takes part; the rest is zero."""
    vocab = model.config.vocab_size
    out = torch.zeros(len(rows), max(map(len, rows)), vocab)
    with torch.no_grad():
        for i, row in enumerate(rows):
            out[i, : len(row)] = model(torch.tensor([row]), use_cache=False).logits[0].float()
    return out


def token_rows(name: str) -> list[list[int]]:
    rng = generator(name, "tokens")
    return [rng.integers(len(SPECIAL), VOCAB, size=n).tolist() for n in ROW_LENGTHS]


def load(directory: Path) -> torch.nn.Module:
    """The directory's model in f32 with the plain attention, as every script here compares it."""
    model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32, attn_implementation="eager")
    return model.eval()


def finish(directory: Path, written: dict) -> None:
    """What `save_pretrained` does not write like this."""
    if written.get("legacy"):
        rewrite_legacy(directory / "config.json")
    if written.get("bare"):
        context = json.loads((directory / "config.json").read_text())["n_positions"]
        rewrite_bare(directory / "model.safetensors", written["bare"], context)


def build(name: str, out: Path) -> None:
    kind, changes, written = FIXTURES[name]
    directory = out / name
    directory.mkdir(parents=True, exist_ok=True)
    model = AutoModelForCausalLM.from_config(config(kind, changes), attn_implementation="eager").eval()
    fill(model, name)
    dtype = getattr(torch, written.get("dtype", "float32"))
    model.to(dtype).save_pretrained(directory, max_shard_size=written.get("shards", "5GB"))
    finish(directory, written)
    tokenizer().save(str(directory / "tokenizer.json"))
    tokenizer_config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": SPECIAL[0],
        "eos_token": SPECIAL[0],
        "add_bos_token": False,
        "chat_template": CHAT_TEMPLATE,
        "model_max_length": SHAPE["max_position_embeddings"],
    }
    (directory / "tokenizer_config.json").write_text(json.dumps(tokenizer_config, indent=2) + "\n")

    rows = token_rows(name)
    (directory / "tokens.json").write_text(json.dumps(rows) + "\n")
    logits = logits_of(load(directory), rows)
    save_file({"logits": logits}, directory / "expected.safetensors")
    lines = sentences()[:64]
    with (directory / "data.jsonl").open("w") as file:
        for line in lines:
            head, tail = line.split(" ", 2)[:2], line.split(" ", 2)[2]
            file.write(json.dumps({"prompt": " ".join(head), "completion": " " + tail}) + "\n")
    used = logits[0, : ROW_LENGTHS[0]]
    print(f"{name:18} {sum(p.numel() for p in model.parameters()):>7} parameters, "
          f"logits std {used.std():.2f}, max {used.abs().max():.1f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--only", nargs="*", choices=sorted(FIXTURES), default=None)
    args = parser.parse_args()
    torch.set_num_threads(1)
    for name in args.only or FIXTURES:
        build(name, args.out)


if __name__ == "__main__":
    main()
