"""Every other road to Python: exported and merged results, and a start that is trained there and comes back.

    roads.py --fixtures DIR --work DIR

* `tune --offset base`, an alpha pattern, `export --for peft`, `export --recompress`: PEFT on the unmodified base against
  `lowrank eval --adapter`.
* `merge` into a Hugging Face directory: transformers against `lowrank eval --adapter`.
* `init --base-out`: the start's own factors in PEFT on the changed base compute the unmodified base; trained there by torch and
  converted by `export --initial`, they compute on the unmodified base what PEFT computed on the changed one.
* A LoRA that PEFT made, with other factors than it starts with: `lowrank eval --adapter` computes what PEFT does.
"""

import sys
import warnings
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file

import program
from adapters import BOUND, MOVED, faults, peft_logits, train
from fixtures import load, logits_of
from report import Report, arguments

# The name of the layer with queries; in some families it makes keys and values too.
MODELS = {
    "llama-gqa-tied": "q_proj",
    "qwen2-bias": "q_proj",
    "gpt2": "c_attn",
    "neox-parallel": "query_key_value",
    "phi": "q_proj",
}
START = program.STARTS["lora-ga paper"]


class Judge:
    """One model with its rows of tokens and the logits without an adapter."""

    def __init__(self, model: Path, report: Report, work: Path) -> None:
        self.model, self.report, self.work = model, report, work
        self.tokens = model / "tokens.json"
        self.rows = program.rows(self.tokens)
        self.lengths = [len(row) for row in self.rows]
        self.base = load_file(model / "expected.safetensors")["logits"]

    def gap(self, one: torch.Tensor, other: torch.Tensor) -> float:
        return program.difference(one, other, self.lengths)

    def row(self, what: str, ours: torch.Tensor, theirs: torch.Tensor, found: list[str]) -> None:
        """A row that also fails where agreement would mean nothing."""
        moved = self.gap(theirs, self.base)
        name = f"{self.model.name}, {what}"
        if found or moved < MOVED:
            self.report.holds(name, False, "; ".join(found) or "the adapter changes nothing")
        else:
            self.report.below(name, self.gap(ours, theirs), BOUND, f"moves the logits by {moved:.2f}")

    def adapter(self, what: str, adapter: Path) -> None:
        theirs, loaded, warned = peft_logits(self.model, adapter, self.rows)
        ours = program.logits(self.model, self.tokens, self.work, adapter)
        self.row(what, ours, theirs, warned + faults(adapter, loaded))


def exported(judge: Judge) -> None:
    model, work, query = judge.model, judge.work, MODELS[judge.model.name]
    judge.adapter("tune --offset base", train(model, START, ["--offset", "base"], work))
    judge.adapter("tune --alpha-pattern", train(model, START, ["--alpha-pattern", f"{query}=3"], work))
    adapter = train(model, START, ["--rank-pattern", f"{query}=2"], work)
    for what, flags in {"export --for peft": [], "export --recompress 2": ["--recompress", 2]}.items():
        out = work / what.replace(" ", "-")
        program.lowrank("export", "--model", model, "--adapter", adapter, "--for", "peft", *flags, "--out", out, work=work)
        judge.adapter(what, out)
    merged = work / "merged"
    program.lowrank("merge", "--model", model, "--adapter", adapter, "--format", "F32", "--out", merged, work=work)
    ours = program.logits(model, judge.tokens, work, adapter)
    judge.row("merge, in transformers", ours, logits_of(load(merged), judge.rows), [])


def trained_in_peft(judge: Judge) -> None:
    model, work = judge.model, program.fresh(judge.work)
    started, changed = work / "started", work / "changed"
    flags = ["--rank", 4, "--alpha", 16, "--rank-stabilised"]
    data = ["--model", model, "--data", model / "data.jsonl"]
    program.lowrank("init", *data, *START, *flags, "--out", started, "--base-out", changed, work=work)
    initial = started / program.INITIAL
    peft = PeftModel.from_pretrained(load(changed), initial, is_trainable=True)
    name = judge.model.name
    judge.report.below(f"{name}, init in PEFT on its changed base", judge.gap(logits_of(peft.eval(), judge.rows), judge.base), BOUND)
    tokens = torch.tensor([row for row in judge.rows if len(row) == max(judge.lengths)])
    optimiser = torch.optim.AdamW([p for p in peft.parameters() if p.requires_grad], lr=1e-2, weight_decay=0.0)
    for _ in range(3):
        optimiser.zero_grad()
        peft(input_ids=tokens, labels=tokens).loss.backward()
        optimiser.step()
    trained, back = work / "trained", work / "back"
    peft.save_pretrained(trained)
    program.lowrank("export", "--model", model, "--adapter", trained, "--initial", initial, "--out", back, work=work)
    theirs = logits_of(peft.eval(), judge.rows)
    judge.row("trained in PEFT and back, in lowrank", program.logits(model, judge.tokens, work, back), theirs, [])
    again, loaded, warned = peft_logits(model, back, judge.rows)
    judge.row("trained in PEFT and back, in PEFT", again, theirs, warned + faults(back, loaded))


def made_in_peft(judge: Judge) -> None:
    work = program.fresh(judge.work)
    torch.manual_seed(1)
    base = load(judge.model)
    settings = LoraConfig(r=3, lora_alpha=7, target_modules="all-linear", init_lora_weights=False, task_type="CAUSAL_LM")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # That Conv1D asks for fan_in_fan_out, which PEFT then sets.
        peft = get_peft_model(base, settings).eval()
    with torch.no_grad():
        for name, tensor in peft.named_parameters():
            if ".lora_" in name:
                tensor.normal_(std=0.05)
    peft.save_pretrained(work / "made")
    ours = program.logits(judge.model, judge.tokens, work, work / "made")
    judge.row("made in PEFT, in lowrank", ours, logits_of(peft, judge.rows), [])


def main() -> int:
    args = arguments(__doc__)
    torch.set_num_threads(1)
    question = "Exported, merged and returned adapters in Python against this program, max abs difference."
    report = Report("roads", question, args.work)
    for model in MODELS:
        for road in (exported, trained_in_peft, made_in_peft):
            judge = Judge(args.fixtures / model, report, program.fresh(args.work / "roads"))
            try:
                road(judge)
            except Exception as error:
                report.failed(f"{model}, {road.__name__}", error)
    return report.finish()


if __name__ == "__main__":
    sys.exit(main())
