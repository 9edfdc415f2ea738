"""Our PiSSA start against PEFT's: the same subspaces and the same offset.

    pissa.py --fixtures DIR --work DIR

PEFT: `init_lora_weights="pissa"` (exact SVD) before any step. Ours: the factors that `lowrank init` writes into `initial/`.
Factors are unique up to sign, subspaces and the product are unique: the rows compare the sine of the largest principal
angle of the row spaces of A and of the column spaces of B, and the relative difference of scaling * B A.
"""

import sys
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model

import program
from fixtures import load
from report import Report, arguments

MODELS = ["llama-mha-untied", "llama-gqa-tied", "qwen2-bias", "mistral"]
RANK, ALPHA = 4, 16
# The fast one approximates: its bound is that of a sketch, the exact one's that of f32.
CASES = [("pissa", False, 1e-3), ("pissa", True, 1e-3), ("pissa fast", False, 5e-2)]


def theirs(model: Path, stabilised: bool, work: Path) -> dict:
    config = LoraConfig(
        r=RANK, lora_alpha=ALPHA, target_modules=program.LINEARS, init_lora_weights="pissa", use_rslora=stabilised,
        task_type="CAUSAL_LM",
    )
    out = program.fresh(work / "peft")
    get_peft_model(load(model), config).save_pretrained(out)
    return program.factors(out)


def ours(model: Path, start: list[str], stabilised: bool, work: Path) -> dict:
    out = program.fresh(work) / "adapter"
    extra = ["--rank-stabilised"] if stabilised else []
    settings = ["--rank", RANK, "--alpha", ALPHA, *extra, "--out", out]
    program.lowrank("init", "--model", model, "--data", model / "data.jsonl", *start, *settings, work=work)
    return program.factors(out / program.INITIAL)


def angle(x: torch.Tensor, y: torch.Tensor) -> float:
    """Sine of the largest principal angle between the column spaces, in f64; exact for small angles."""
    (qx, _), (qy, _) = torch.linalg.qr(x.double()), torch.linalg.qr(y.double())
    return torch.linalg.matrix_norm(qy - qx @ (qx.T @ qy), ord=2).item()


def compare(a: dict, b: dict) -> tuple[float, float, float]:
    """Largest over the sites: row spaces, column spaces, product."""
    if a.keys() != b.keys():
        raise ValueError(f"different sites: {sorted(a.keys() ^ b.keys())}")
    rows = max(angle(a[s][0].T, b[s][0].T) for s in a)
    columns = max(angle(a[s][1], b[s][1]) for s in a)
    products = ((a[s][1].double() @ a[s][0].double(), b[s][1].double() @ b[s][0].double()) for s in a)
    return rows, columns, max((torch.linalg.norm(x - y) / torch.linalg.norm(y)).item() for x, y in products)


def main() -> int:
    args = arguments(__doc__)
    torch.set_num_threads(1)
    report = Report("pissa", "Our PiSSA start against PEFT's: largest over all sites.", args.work)
    for model in MODELS:
        for start, stabilised, bound in CASES:
            what = f"{model}, {start}{', rank-stabilised' if stabilised else ''}"
            try:
                folder = args.fixtures / model
                expected = theirs(folder, stabilised, args.work / "pissa")
                found = ours(folder, program.STARTS[start], stabilised, args.work / "pissa")
                for name, value in zip(("row space", "column space", "product"), compare(found, expected)):
                    report.below(f"{what}: {name}", value, bound)
            except Exception as error:
                report.failed(what, error)
    return report.finish()


if __name__ == "__main__":
    sys.exit(main())
