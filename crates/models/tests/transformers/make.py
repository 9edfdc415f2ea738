"""Makes the models beside this file: tiny random decoders in bf16 and the logits that Hugging Face `transformers` computes
from them in f32. Each folder holds `config.json`, `model.safetensors`, `tokens.json` (rows of different lengths) and
`expected.safetensors` (`logits` [rows, longest, vocabulary], zeros behind the end of a row).

Usage, with the environment of tests/interop/setup.sh: make.py [NAME...]
"""

import json
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[3] / "tests/interop"))
import fixtures  # noqa: E402

SMALL = dict(hidden_size=32, intermediate_size=44, num_hidden_layers=2, vocab_size=90)
# Where a quarter or 0.4 of a head of 32 / 4 would be no pair.
OTHER = {
    "gpt2": dict(hidden_size=36),
    "gpt2-bare": dict(max_position_embeddings=32),
    "neox-sequential": dict(hidden_size=30, num_attention_heads=3),
    "phi-partial": dict(hidden_size=30, num_attention_heads=2, num_key_value_heads=1),
}
MODELS = [
    "llama-mha-untied", "llama-gqa-tied", "llama-bias", "qwen2-bias", "mistral", "llama3-rope", "linear-rope", "yarn-rope",
    "gpt2", "gpt2-bare", "gpt2-untied", "neox-parallel", "neox-sequential", "neox-scaled", "phi", "phi-partial",
]
ROWS = (21, 9, 4)


def build(name: str) -> None:
    kind, changes, written = fixtures.FIXTURES[name]
    out = HERE / name
    settings = {**changes, **SMALL, **OTHER.get(name, {})}
    model = AutoModelForCausalLM.from_config(fixtures.config(kind, settings), attn_implementation="eager")
    fixtures.fill(model, name)
    model.to(torch.bfloat16).save_pretrained(out)
    (out / "generation_config.json").unlink(missing_ok=True)
    fixtures.finish(out, written)
    rng = fixtures.generator(name, "small tokens")
    rows = [rng.integers(0, SMALL["vocab_size"], size=n).tolist() for n in ROWS]
    (out / "tokens.json").write_text(json.dumps(rows) + "\n")
    save_file({"logits": fixtures.logits_of(fixtures.load(out), rows)}, out / "expected.safetensors")


for name in sys.argv[1:] or MODELS:
    build(name)
