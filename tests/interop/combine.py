"""`lowrank combine` against PEFT's add_weighted_adapter, for every combination type.

    combine.py --fixtures DIR --work DIR

Random adapters for one model (different scales, a rank pattern, different targets, a negative weight) are combined by both.
A row passes when every layer's change agrees within 1e-5 of PEFT's largest entry, both change the same layers, and the result
loads in PEFT without a warning and gives those changes there.

* DARE's masks are drawn from different generators: here its rows keep every entry (density 1); masks from outside are compared
  in the tests of `lowrank-linalg`.
* PEFT's clamp depends on signs that LAPACK leaves open; its rows run PEFT with our rule of signs.
* With `use_rslora` PEFT writes alpha = r into the result and keeps `use_rslora`, so that its change is off by the root of the rank;
  ours is compared with its factors at scale 1.
"""

import sys
import warnings
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora import LoraLayer

import program
from fixtures import load
from report import Report, arguments

BOUND = 1e-5
MODEL = "llama-gqa-tied"
WEIGHTS = [0.7, -0.4, 1.3]
PLAIN = [dict(r=4, lora_alpha=a, target_modules=["q_proj", "v_proj", "down_proj"]) for a in (4, 6, 1)]
OTHERS = [
    dict(r=4, lora_alpha=8, target_modules=["q_proj", "v_proj"]),
    dict(r=4, lora_alpha=3, target_modules=["v_proj", "up_proj"], alpha_pattern={"up_proj": 7}),
    dict(r=4, lora_alpha=2, target_modules=["k_proj", "q_proj"]),
]
RANKS = [
    dict(r=4, lora_alpha=8, target_modules=["q_proj", "v_proj"], rank_pattern={"v_proj": 6}),
    dict(r=2, lora_alpha=3, target_modules=["v_proj", "up_proj"]),
    dict(r=3, lora_alpha=2, target_modules=["q_proj"]),
]
STABLE = [dict(c, use_rslora=True) for c in PLAIN]


def rows() -> list[tuple[str, list[dict], str, dict]]:
    """(name, configs, combination type, settings)"""
    found = []
    for name, configs in (("same targets", PLAIN), ("other targets", OTHERS), ("rank-stabilised", STABLE)):
        found.append((name, configs, "linear", {}))
        found.append((name, configs, "cat", {}))
        found.append((name, configs, "svd", dict(svd_rank=5)))
        for sign in ("total", "frequency"):
            found.append((name, configs, "ties", dict(density=0.4, majority_sign_method=sign)))
            found.append((name, configs, "ties_svd", dict(density=0.4, majority_sign_method=sign, svd_rank=32)))
            found.append((name, configs, "dare_ties", dict(density=1.0, majority_sign_method=sign)))
            found.append((name, configs, "dare_ties_svd", dict(density=1.0, majority_sign_method=sign, svd_rank=32)))
        found.append((name, configs, "dare_linear", dict(density=1.0)))
        found.append((name, configs, "dare_linear_svd", dict(density=1.0, svd_rank=3)))
        found.append((name, configs, "magnitude_prune", dict(density=0.7)))
        found.append((name, configs, "magnitude_prune_svd", dict(density=0.7, svd_rank=32)))
    found.append(("other ranks", RANKS, "cat", {}))
    found.append(("other ranks", RANKS, "svd", {}))
    found.append(("other ranks", RANKS, "ties_svd", dict(density=0.5)))
    found.append(("same targets", PLAIN, "svd", dict(svd_rank=3, svd_clamp=0.97)))
    return found


def adapters(base: Path, configs: list[dict], work: Path) -> tuple[PeftModel, list[Path]]:
    """PEFT's model with three random adapters, and their folders."""
    torch.manual_seed(7)
    model = None
    for i, config in enumerate(configs):
        config = LoraConfig(task_type="CAUSAL_LM", **config)
        if model is None:
            model = get_peft_model(load(base), config, adapter_name="a0")
        else:
            model.add_adapter(f"a{i}", config)
    with torch.no_grad():
        for key, tensor in model.named_parameters():
            if ".lora_" in key:
                tensor.copy_(torch.randn_like(tensor) * 0.3)
    folders = []
    for i in range(len(configs)):
        model.save_pretrained(work, selected_adapters=[f"a{i}"])
        folders.append(work / f"a{i}")
    return model, folders


def signed(svd):
    """torch.linalg.svd with the entry of largest magnitude of each right vector positive."""

    def wrapped(matrix: torch.Tensor, **more):
        u, s, vh = svd(matrix, full_matrices=False)
        signs = vh.gather(1, vh.abs().argmax(dim=1, keepdim=True)).sign()
        return u * signs.T, s, vh * signs

    return wrapped


def changes(model: PeftModel, adapter: str) -> dict[str, torch.Tensor]:
    """Module -> change at scale 1 (alpha = r in every combined adapter)."""
    found = {}
    for key, module in model.base_model.model.named_modules():
        if isinstance(module, LoraLayer) and adapter in module.lora_A:
            found[key] = (module.lora_B[adapter].weight @ module.lora_A[adapter].weight).detach()
    return found


def ours(folders: list[Path], base: Path, kind: str, settings: dict, work: Path) -> Path:
    flags = {"density": "--density", "majority_sign_method": "--sign", "svd_rank": "--rank", "svd_clamp": "--clamp"}
    more = [x for key, value in settings.items() for x in (flags[key], value)]
    out = work / "combined"
    weights = ",".join(map(str, WEIGHTS))
    program.lowrank("combine", *folders, "--weights", weights, "--how", kind, *more, "--model", base, "--out", out,
                    "--overwrite", work=work)
    return out


def compare(base: Path, configs: list[dict], kind: str, settings: dict, work: Path) -> tuple[float, list[str]]:
    model, folders = adapters(base, configs, program.fresh(work))
    svd = torch.linalg.svd
    if "svd_clamp" in settings:
        torch.linalg.svd = signed(svd)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a density of 1
            model.add_weighted_adapter([f"a{i}" for i in range(3)], WEIGHTS, "new", combination_type=kind, **settings)
    finally:
        torch.linalg.svd = svd
    theirs = changes(model, "new")
    folder = ours(folders, base, kind, settings, work)
    found = []
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        loaded = PeftModel.from_pretrained(load(base), folder, adapter_name="ours").eval()
    found += [str(w.message)[:120] for w in said if issubclass(w.category, UserWarning)]
    mine = changes(loaded, "ours")
    for key, module in loaded.base_model.model.named_modules():
        if isinstance(module, LoraLayer) and abs(module.scaling["ours"] - 1) > 1e-12:
            found.append(f"{key} has scale {module.scaling['ours']}")
    # PEFT matches the first adapter's other settings only; layers that stay zero there are none of ours.
    moved = {key for key, change in theirs.items() if change.abs().max() > 0}
    found += [f"only one side changes {key}" for key in sorted(moved ^ mine.keys())]
    largest = max(theirs[key].abs().max().item() for key in moved)
    worst = max((theirs[key].double() - mine[key].double()).abs().max().item() for key in moved & mine.keys())
    return worst / largest if worst == worst else float("inf"), found


def main() -> int:
    args = arguments(__doc__)
    torch.set_num_threads(1)
    question = ("`lowrank combine` against PEFT's `add_weighted_adapter`: largest difference of a layer's change, as a part of its largest "
                "entry.")
    report = Report("combine", question, args.work)
    kinds = {kind for _, _, kind, _ in rows()}
    report.holds("every combination type of PEFT is judged", len(kinds) == 11, ", ".join(sorted(kinds)))
    for name, configs, kind, settings in rows():
        what = ", ".join([kind, name] + [f"{key} {value}" for key, value in settings.items()])
        try:
            worst, found = compare(args.fixtures / MODEL, configs, kind, settings, args.work / "combine")
            if found:
                report.holds(what, False, "; ".join(found))
            else:
                report.below(what, worst, BOUND)
        except Exception as error:
            report.failed(what, error)
    return report.finish()


if __name__ == "__main__":
    sys.exit(main())
