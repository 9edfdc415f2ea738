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
MODELS = ["llama-mha-untied", "llama-gqa-tied", "llama-bias", "qwen2-bias", "mistral", "llama3-rope", "linear-rope", "yarn-rope"]
ROWS = (21, 9, 4)


def build(name: str) -> None:
    kind, changes, written = fixtures.FIXTURES[name]
    out = HERE / name
    model = AutoModelForCausalLM.from_config(fixtures.config(kind, {**changes, **SMALL}), attn_implementation="eager")
    fixtures.fill(model, name)
    model.to(torch.bfloat16).save_pretrained(out)
    (out / "generation_config.json").unlink(missing_ok=True)
    if written.get("legacy"):
        fixtures.rewrite_legacy(out / "config.json")
    rng = fixtures.generator(name, "small tokens")
    rows = [rng.integers(0, SMALL["vocab_size"], size=n).tolist() for n in ROWS]
    (out / "tokens.json").write_text(json.dumps(rows) + "\n")
    save_file({"logits": fixtures.logits_of(fixtures.load(out), rows)}, out / "expected.safetensors")


for name in sys.argv[1:] or MODELS:
    build(name)
