"""Drives the `lowrank` program; the one place that knows its command line and folder layout.

LOWRANK_BIN names the program (default: target/release/lowrank of this repository).
"""

import json
import os
import shutil
import subprocess
from pathlib import Path

import torch
from safetensors.torch import load_file

ROOT = Path(__file__).resolve().parents[2]
# Where the program puts the start's own factors, as a PEFT folder of rank r.
INITIAL = "initial"

# name in the results -> flags. Rates at which three steps move the logits by a few units: beyond that the small networks are so
# far from anything learnt that the order of f32 sums shows in the fourth digit.
STARTS = {
    "kaiming": ["--init", "kaiming"],
    "gaussian": ["--init", "gaussian"],
    "orthogonal": ["--init", "orthogonal"],
    "pissa": ["--init", "pissa"],
    "pissa fast": ["--init", "pissa", "--init-option", "svd=fast"],
    "lora-ga paper": ["--init", "lora-ga", "--init-option", "variant=paper"],
    "lora-ga peft-compat": ["--init", "lora-ga", "--init-option", "variant=peft-compat"],
    "lora-ga-control": ["--init", "lora-ga-control"],
    "olora": ["--init", "olora", "--rate", "0.003"],
    "milora": ["--init", "milora"],
    "mica": ["--init", "mica", "--form-option", "trains=right"],
    "lora-xs": ["--init", "lora-xs", "--form", "core", "--rate", "0.03"],
    "slora": ["--init", "slora", "--form", "core", "--form-option", "trains=all", "--rate", "0.03"],
    "nlora": ["--init", "nlora", "--form", "core", "--form-option", "trains=all"],
    "inttune": ["--init", "nlora", "--form", "core", "--rate", "0.03"],
    "loldu": ["--init", "loldu", "--form", "diag", "--rate", "0.01"],
    "svfit": ["--init", "svfit", "--form", "diag", "--rate", "0.03"],
    "svfit full": ["--init", "svfit", "--init-option", "rank=full", "--form", "diag", "--rate", "0.03"],
    "loftq": ["--init", "loftq", "--base-out", "base"],
    "qpissa": ["--init", "qpissa", "--base-out", "base"],
    "random-control": ["--init", "random-control"],
    "random-control of eva": ["--init", "random-control", "--init-option", "of=eva"],
    "eva": ["--init", "eva"],
    "eva-control": ["--init", "eva-control"],
    "corda": ["--init", "corda"],
    "lora-sb": ["--init", "lora-sb", "--form", "core", "--rate", "0.01"],
    "lora-sb-control": ["--init", "lora-sb-control", "--form", "core", "--rate", "0.01"],
}
# Forms beyond two factors and their cores, each with a start that it takes.
FORMS = {
    "dora": ["--form", "dora", "--init", "kaiming"],
    "dora on pissa": ["--form", "dora", "--init", "pissa"],
    "lora-fa": ["--form", "lora", "--init", "kaiming", "--form-option", "trains=left"],
    "vera": ["--form", "vera", "--rate", "0.3"],
    "vera as lora": ["--form", "vera", "--peft-type", "lora", "--rate", "0.3"],
    # Of three steps the first two cut; on average two of four directions stay, and some layers lose all.
    "adalora": ["--form", "adalora", "--form-option", "target-rank=2", "--form-option", "t-init=0", "--form-option", "t-final=1",
                "--rate", "0.1"],
    "adalora as lora": ["--form", "adalora", "--peft-type", "lora", "--form-option", "target-rank=1", "--rate", "0.1"],
    "ia3": ["--form", "ia3", "--rate", "0.03"],
    "ia3 on inputs": ["--form", "ia3", "--form-option", "on=input", "--rate", "0.03"],
    "loha": ["--form", "loha", "--rate", "0.1"],
    "lokr": ["--form", "lokr", "--rate", "0.1"],
    "oft": ["--form", "oft", "--form-option", "block-size=4"],
    "boft": ["--form", "boft"],
    "full": ["--form", "full"],
}
LINEARS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


class Refused(RuntimeError):
    """The program ended with an exit code other than 0; `code` and `message` (its standard error)."""

    def __init__(self, command: list[str], done: subprocess.CompletedProcess) -> None:
        self.code, self.message = done.returncode, done.stderr.strip()
        super().__init__(f"$ lowrank {' '.join(command)}\nexit code {self.code}\n{self.message}")


def lowrank(*arguments: object, work: Path) -> str:
    """Runs the program in `work` (its `run/` folder lands there) and gives its standard output."""
    program = Path(os.environ.get("LOWRANK_BIN", ROOT / "target/release/lowrank"))
    command = [str(a) for a in arguments]
    done = subprocess.run([program, *command], cwd=work, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode != 0:
        raise Refused(command, done)
    return done.stdout


def unjudged(work: Path) -> list[str]:
    """Starts of the program that `STARTS` leaves out."""
    methods = json.loads(lowrank("--json", "list", work=work))["methods"]
    judged = {flags[1] for flags in STARTS.values()}
    return sorted({m["name"] for m in methods if m["kind"] == "start"} - judged)


def logits(model: Path, tokens: Path, work: Path, adapter: Path | None = None) -> torch.Tensor:
    """`[batch, time, vocab]` from `lowrank eval --dump-logits`."""
    out = work / "logits.safetensors"
    out.unlink(missing_ok=True)
    extra = ["--adapter", adapter] if adapter else []
    lowrank("eval", "--model", model, "--tokens", tokens, "--dump-logits", out, *extra, work=work)
    return load_file(out)["logits"]


def fresh(path: Path) -> Path:
    """An empty folder."""
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(parents=True)
    return path


def rows(tokens: Path) -> list[list[int]]:
    return json.loads(tokens.read_text())


def difference(ours: torch.Tensor, theirs: torch.Tensor, lengths: list[int]) -> float:
    """Largest absolute difference over the positions that hold tokens; infinite when shapes differ or a value is not finite."""
    if ours.shape != theirs.shape:
        return float("inf")
    worst = 0.0
    for i, n in enumerate(lengths):
        gap = (ours[i, :n].double() - theirs[i, :n].double()).abs().max().item()
        worst = max(worst, gap if gap == gap else float("inf"))
    return worst


def factors(folder: Path) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """Module path -> (A [r, in], scaling * B [out, r]) of a PEFT folder with one rank; the product is the change itself."""
    config = json.loads((folder / "adapter_config.json").read_text())
    tensors = load_file(folder / "adapter_model.safetensors")
    # A comparison by `max` or `min` would let NaN pass.
    if broken := [name for name, tensor in tensors.items() if not tensor.isfinite().all()]:
        raise ValueError(f"{folder}: not finite: {broken}")
    found = {}
    for key, a in tensors.items():
        if not key.endswith(".lora_A.weight"):
            continue
        name = key.removeprefix("base_model.model.").removesuffix(".lora_A.weight")
        b = tensors[key.replace(".lora_A.", ".lora_B.")]
        root = config["r"] ** 0.5 if config.get("use_rslora") else config["r"]
        found[name] = (a.float(), b.float() * (config["lora_alpha"] / root))
    return found
