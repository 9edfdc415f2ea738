"""Our exported adapters, loaded by PEFT on the unmodified base, against `lowrank eval --adapter`.

    adapters.py --fixtures DIR --work DIR

For each start and form, on models with all heads and grouped heads, tied and own output, and biases: plain scaling, rank-stabilised,
a rank pattern, and both. A row passes when

* the logits agree within 1e-4 (in f32), loaded plainly and with `low_cpu_mem_usage=True` (which breaks raw offset starts);
* the file holds exactly the tensors that PEFT expects for its config, each in the shape that PEFT expects;
* the config says `init_lora_weights: true`;
* the trained adapter moves the logits by more than 1e-2, so that agreement means something.
"""

import json
import sys
import warnings
from pathlib import Path

import torch
from peft import PeftModel, get_peft_model_state_dict
from safetensors.torch import load_file

import program
from fixtures import load, logits_of
from report import Report, arguments

BOUND = 1e-4
MOVED = 1e-2
MODELS = ["llama-mha-untied", "llama-gqa-tied", "qwen2-bias"]
SCALINGS = {
    "alpha/r": [],
    "rank-stabilised": ["--rank-stabilised"],
    "rank pattern": ["--rank-pattern", "q_proj=2"],
    "both": ["--rank-stabilised", "--rank-pattern", "q_proj=2"],
}


def train(model: Path, start: list[str], scaling: list[str], work: Path) -> Path:
    out = work / "adapter"
    settings = ["--rank", 4, "--alpha", 16, "--steps", 3]
    settings += [] if "--rate" in start else ["--rate", 0.01]
    data = ["--model", model, "--data", model / "data.jsonl"]
    program.lowrank("tune", *data, *start, *settings, *scaling, "--out", out, work=program.fresh(work))
    return out


def peft_logits(base: Path, adapter: Path, rows: list[list[int]], low: bool = False) -> tuple[torch.Tensor, PeftModel, list[str]]:
    """Logits of PEFT's model, the model, and what PEFT warned of."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        loaded = PeftModel.from_pretrained(load(base), adapter, low_cpu_mem_usage=low).eval()
    # PEFT only warns about missing keys and unknown settings; deprecations of transformers are not ours.
    # So is the lack of a compiler for BOFT's CUDA code, without which PEFT runs its own Python.
    own = [str(w.message)[:120] for w in said if issubclass(w.category, UserWarning)]
    warned = [text for text in own if "CUDA extension" not in text and "boft_n_butterfly_factor" not in text]
    return logits_of(loaded, rows), loaded, warned


def faults(adapter: Path, loaded: PeftModel) -> list[str]:
    """What PEFT would have let pass: tensors too many, too few or misshaped, a config that starts again."""
    found = []
    config = json.loads((adapter / "adapter_config.json").read_text())
    if config["peft_type"] == "LORA" and config["init_lora_weights"] is not True:
        found.append(f"init_lora_weights is {config['init_lora_weights']!r}")
    file = {k: tuple(v.shape) for k, v in load_file(adapter / "adapter_model.safetensors").items()}
    wanted = {k: tuple(v.shape) for k, v in get_peft_model_state_dict(loaded, save_embedding_layers=False).items()}
    found += [f"missing {k}" for k in sorted(wanted.keys() - file.keys())]
    found += [f"extra {k}" for k in sorted(file.keys() - wanted.keys())]
    found += [f"{k} is {file[k]}, not {wanted[k]}" for k in sorted(file.keys() & wanted.keys()) if file[k] != wanted[k]]
    return found


def compare(model: Path, start: list[str], scaling: list[str], work: Path) -> tuple[float, float, list[str]]:
    """Largest difference of both ways to load, how far the adapter moves the logits, faults of the folder."""
    adapter = train(model, start, scaling, work)
    tokens = model / "tokens.json"
    # A start that brings its own base belongs on that.
    base = work / "base" if "--base-out" in start else model
    rows = program.rows(tokens)
    lengths = [len(row) for row in rows]
    ours = program.logits(base, tokens, work, adapter)
    moved = program.difference(ours, load_file(model / "expected.safetensors")["logits"], lengths)
    worst, found = 0.0, []
    # PEFT cannot cut tensors that are not there yet: it loads no AdaLoRA with a rank pattern in this way, its own neither.
    kind = json.loads((adapter / "adapter_config.json").read_text())["peft_type"]
    for low in (False,) if kind == "ADALORA" else (False, True):
        theirs, loaded, warned = peft_logits(base, adapter, rows, low)
        worst = max(worst, program.difference(ours, theirs, lengths))
        found += warned + faults(adapter, loaded)
    return worst, moved, found


def main() -> int:
    args = arguments(__doc__)
    torch.set_num_threads(1)
    question = "A trained and exported adapter in PEFT on the unmodified base against `lowrank eval --adapter`, max abs difference."
    report = Report("adapters", question, args.work)
    left_out = program.unjudged(program.fresh(args.work / "adapters"))
    report.holds("every start of `lowrank list` is judged", not left_out, ", ".join(left_out))
    for model in MODELS:
        ways = [(start, flags, scaling) for start, flags in program.STARTS.items() for scaling in SCALINGS]
        ways += [(form, flags, "alpha/r") for form, flags in program.FORMS.items()]
        # PEFT has one rank, and AdaLoRA one scale, for all layers: ours have their own.
        ways += [(form, program.FORMS[form], scaling) for form in ["vera", "adalora"] for scaling in SCALINGS if scaling != "alpha/r"]
        for start, flags, scaling in ways:
            for extra in [SCALINGS[scaling]]:
                what = f"{model}, {start}, {scaling}"
                try:
                    worst, moved, found = compare(args.fixtures / model, flags, extra, args.work / "adapters")
                    note = f"moves the logits by {moved:.2f}"
                    if found or moved < MOVED:
                        report.holds(what, False, "; ".join(found) or f"{note}: nothing was trained")
                    else:
                        report.below(what, worst, BOUND, note)
                except Exception as error:
                    report.failed(what, error)
    return report.finish()


if __name__ == "__main__":
    sys.exit(main())
