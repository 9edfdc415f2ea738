"""Our EVA, CorDA, OLoRA and LoftQ against PEFT's own, before any step: the same texts, the same ranks.

    starts.py --fixtures DIR --work DIR

Ours are the factors that `lowrank init` writes into `initial/`, on the base that it writes with `--base-out`. PEFT's are those of a model
that was started there. Beside both stands, where there is one, the exact answer in f64 from what the layers were fed: a row "ours"
has to meet it; how far PEFT is from it is told.

* EVA: the part of the inputs' variance that the rows of A hold. PEFT cuts its incremental SVD and stops by single cosines, so
  ours has to hold at least as much at every site; with ranks moved, in sum over the sites of the same budget.
* CorDA: subspaces and `scaling * B A`, both modes. PEFT divides each text's inputs by their largest signed entry, so it agrees on one
  text and weighs several differently, and it inverts the moment in f32.
* OLoRA: the factors one by one up to sign.
* LoftQ: the quantised base entry by entry, the subspaces, and what base and factors lose. PEFT's needs bitsandbytes on an accelerator;
  here its loop and its decomposition run on the published NF4 table.
"""

import json
import sys
import warnings
from pathlib import Path

import torch
from peft import EvaConfig, LoraConfig, get_peft_model, initialize_lora_eva_weights
from peft.tuners.lora.config import CordaConfig
from peft.tuners.lora.corda import preprocess_corda
from peft.utils.loftq_utils import _low_rank_decomposition
from safetensors.torch import load_file

import program
from fixtures import VOCAB, generator, load
from pissa import angle
from report import Report, arguments

MODELS = ["llama-mha-untied", "llama-gqa-tied", "qwen2-bias"]
RANK, ALPHA = 4, 16
SCALE = ALPHA / RANK
# Of the QLoRA paper, appendix E, as bitsandbytes has it.
NF4 = [
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334,
    -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
    0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
]


def texts(rows: int, length: int, work: Path) -> tuple[Path, torch.Tensor]:
    """Token rows of one length, as a file for us and as a tensor for PEFT."""
    tokens = generator("starts", f"{rows} of {length}").integers(3, VOCAB, size=(rows, length))
    path = work / f"tokens-{rows}-{length}.json"
    path.write_text(json.dumps(tokens.tolist()))
    return path, torch.tensor(tokens)


def linears(network: torch.nn.Module) -> dict[str, torch.nn.Linear]:
    return {n: m for n, m in network.named_modules() if n.rsplit(".", 1)[-1] in program.LINEARS and isinstance(m, torch.nn.Linear)}


@torch.no_grad()
def fed(network: torch.nn.Module, tokens: torch.Tensor) -> dict[str, torch.Tensor]:
    """What each layer is fed, [tokens, in] in f64."""
    seen, handles = {}, []
    for name, module in linears(network).items():
        def keep(module: torch.nn.Module, inputs: tuple, name: str = name) -> None:
            seen[name] = inputs[0].reshape(-1, inputs[0].shape[-1]).double()
        handles.append(module.register_forward_pre_hook(keep))
    network(input_ids=tokens)
    for handle in handles:
        handle.remove()
    return seen


def started(model: Path, work: Path, *flags: object, alpha: int = ALPHA) -> Path:
    """Our adapter, with `base` beside it where the flags ask for it."""
    out = program.fresh(work / "ours") / "adapter"
    data = ["--model", model, "--data", model / "data.jsonl"]
    program.lowrank("init", *data, "--rank", RANK, "--alpha", alpha, *flags, "--out", out, work=work / "ours")
    return out


def weights(folder: Path) -> dict[str, torch.Tensor]:
    """Layer -> weight in f64 of a base that the program wrote."""
    tensors = {}
    for path in sorted(folder.glob("*.safetensors")):
        tensors.update(load_file(path))
    return {n.removesuffix(".weight"): t.double() for n, t in tensors.items() if n.removesuffix(".weight").rsplit(".", 1)[-1] in program.LINEARS}


def product(pair: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    return pair[1].double() @ pair[0].double()


def relative(x: torch.Tensor, y: torch.Tensor) -> float:
    return (torch.linalg.norm(x - y) / torch.linalg.norm(y)).item()


def config(init: str, **more: object) -> LoraConfig:
    more.setdefault("lora_alpha", ALPHA)
    return LoraConfig(r=RANK, target_modules=program.LINEARS, init_lora_weights=init, task_type="CAUSAL_LM", **more)


def of_peft(peft: torch.nn.Module) -> tuple[dict, dict]:
    """Layer -> (A, scaling * B), and layer -> base weight in f64, of a model that PEFT started."""
    pairs, bases = {}, {}
    for name, module in peft.named_modules():
        if hasattr(module, "lora_A") and "default" in module.lora_A:
            layer = name.removeprefix("base_model.model.")
            a, b = (getattr(module, side)["default"].weight.detach().clone() for side in ("lora_A", "lora_B"))
            pairs[layer] = (a, b * module.scaling["default"])
            bases[layer] = module.base_layer.weight.detach().double().clone()
    return pairs, bases


def held(covariance: torch.Tensor, rows: torch.Tensor) -> float:
    """The part of the variance within the span of the rows."""
    basis, _ = torch.linalg.qr(rows.double().T)
    return (torch.trace(basis.T @ covariance @ basis) / torch.trace(covariance)).item()


def eva(report: Report, model: Path, work: Path) -> None:
    rows, size = 32, 4
    path, tokens = texts(rows, 48, work)
    # PEFT takes means, so inputs are compared about theirs.
    covariances = {name: torch.cov(x.T, correction=0) for name, x in fed(load(model), tokens).items()}
    for rho in (1, 2):
        peft = get_peft_model(load(model), config("eva", eva_config=EvaConfig(rho=rho)))
        batches = [dict(input_ids=part, attention_mask=torch.ones_like(part)) for part in tokens.split(size)]
        torch.manual_seed(0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            initialize_lora_eva_weights(peft, batches, show_progress_bar=False)
        theirs = {name: pair[0] for name, pair in of_peft(peft)[0].items()}
        flags = ["--init", "eva", "--init-option", f"rho={rho}", "--calibration-tokens", path, "--calibration-batch", size]
        tensors = load_file(started(model, work, *flags) / program.INITIAL / "adapter_model.safetensors")
        suffix = ".lora_A.weight"
        ours = {n.removeprefix("base_model.model.").removesuffix(suffix): t for n, t in tensors.items() if n.endswith(suffix)}
        what = f"{model.name}, eva, rho = {rho}"
        if rho == 1:
            gaps = {n: held(c, ours[n]) - held(c, theirs[n]) for n, c in covariances.items()}
            worst = max(held(c, torch.linalg.eigh(c)[1][:, -RANK:].T) - held(c, ours[n]) for n, c in covariances.items())
            report.below(f"{what}: variance that ours lack of the exact components, largest", max(worst, 0.0), 1e-6)
            note = f"ours hold more by {max(gaps.values()):.1e} at most, {sum(gaps.values()) / len(gaps):.1e} in the mean"
            report.below(f"{what}: variance that ours lack of PEFT's, largest over the sites", max(-min(gaps.values()), 0.0), 1e-6, note)
            continue
        budget = RANK * len(covariances)
        ranks = [sum(a.shape[0] for a in side.values()) for side in (ours, theirs)]
        report.holds(f"{what}: both spend the same ranks", ranks == [budget, budget], f"{ranks} of {budget}")
        ours, theirs = (sum(held(covariances[n], a) for n, a in side.items()) for side in (ours, theirs))
        report.below(f"{what}: variance that ours lack of PEFT's, in sum", max(theirs - ours, 0.0), 1e-6, f"{ours:.4f} against {theirs:.4f}")


def trained(weight: torch.Tensor, inputs: torch.Tensor, mode: str) -> torch.Tensor:
    """The left singular vectors of W times the damped second moment that CorDA trains along, in f64."""
    moment = inputs.T @ inputs
    moment = moment / moment.diagonal().mean() + 0.01 * torch.eye(len(moment), dtype=torch.float64)
    u = torch.linalg.svd(weight @ moment, full_matrices=False)[0]
    return u[:, :RANK] if mode == "ipm" else u[:, -RANK:]


def corda(report: Report, model: Path, work: Path) -> None:
    for count, length in ((1, 384), (6, 64)):
        path, tokens = texts(count, length, work)
        network = load(model)
        inputs = fed(network, tokens)
        original = {n: m.weight.detach().double().clone() for n, m in linears(network).items()}
        for mode in ("ipm", "kpm"):
            settings = config("corda", corda_config=CordaConfig(corda_method=mode))
            network = load(model)

            def run(network: torch.nn.Module = network) -> None:
                for row in tokens:
                    network(input_ids=row[None])

            preprocess_corda(network, settings, run_model=run)
            theirs, bases = of_peft(get_peft_model(network, settings))
            flags = ["--init", "corda", "--init-option", f"mode={mode}", "--calibration-tokens", path, "--base-out", "base"]
            folder = started(model, work, *flags)
            ours, changed = program.factors(folder / program.INITIAL), weights(work / "ours" / "base")
            what = f"{model.name}, corda {mode}, {count} text{'s' if count > 1 else ''}"
            found = {"ours": [], "PEFT's": []}
            own_weighting = 0.0
            rebuilt = {"ours": [], "PEFT's": []}
            for name, weight in original.items():
                u = trained(weight, inputs[name], mode)
                scaled = torch.cat([text / text.max().abs() for text in inputs[name].split(length)])
                own_weighting = max(own_weighting, angle(theirs[name][1], trained(weight, scaled, mode)))
                exact = u @ (u.T @ weight)
                for side, pair, base in (("ours", ours[name], changed[name]), ("PEFT's", theirs[name], bases[name])):
                    columns, rows = angle(pair[1], u), angle(pair[0].T, weight.T @ u)
                    found[side].append((columns, rows, relative(product(pair), exact)))
                    rebuilt[side].append(relative(base + product(pair), weight))
            for i, part in enumerate(("column space", "row space", "scaling * B A")):
                mine, other = (max(row[i] for row in found[side]) for side in ("ours", "PEFT's"))
                report.below(f"{what}: {part} against the exact one", mine, 1e-3, f"PEFT's: {other:.1e}")
            # What explains the difference: texts that are divided by their largest signed entry. The last directions, which `kpm` takes,
            # are beside the rounding of PEFT's f32, so only the first are judged.
            if mode == "ipm":
                report.below(f"{what}: PEFT's column space against the exact one of its own weighting", own_weighting, 1e-3)
            mine, other = (max(rebuilt[side]) for side in ("ours", "PEFT's"))
            report.below(f"{what}: base and factors against the weight", mine, 1e-6, f"PEFT's: {other:.1e}")


def olora(report: Report, model: Path, work: Path) -> None:
    original = {n: m.weight.detach().double().clone() for n, m in linears(load(model)).items()}
    theirs, bases = of_peft(get_peft_model(load(model), config("olora")))
    folder = started(model, work, "--init", "olora", "--base-out", "base")
    ours, changed = program.factors(folder / program.INITIAL), weights(work / "ours" / "base")
    if ours.keys() != theirs.keys():
        raise ValueError(f"different sites: {sorted(ours.keys() ^ theirs.keys())}")
    for side, part in enumerate(("A", "B")):
        worst = 0.0
        for name in ours:
            x, y = ((p[0] if side == 0 else p[1].T).double() for p in (ours[name], theirs[name]))
            gaps = torch.minimum((x - y).norm(dim=1), (x + y).norm(dim=1)) / y.norm(dim=1)
            worst = max(worst, gaps.max().item())
        report.below(f"{model.name}, olora: {part}, vector by vector up to sign", worst, 1e-4)
    worst = max(relative(product(ours[n]), product(theirs[n])) for n in ours)
    report.below(f"{model.name}, olora: scaling * B A", worst, 1e-5)
    mine, other = (max(relative(b[n] + product(p[n]), original[n]) for n in ours) for b, p in ((changed, ours), (bases, theirs)))
    report.below(f"{model.name}, olora: base and factors against the weight", mine, 1e-6, f"PEFT's: {other:.1e}")


def nf4(weight: torch.Tensor, block: int = 64) -> torch.Tensor:
    """Stored as NF4 and read again, as bitsandbytes does: blocks of the flat tensor, the nearest code."""
    table, flat = torch.tensor(NF4), weight.float().flatten()
    padded = torch.nn.functional.pad(flat, (0, -len(flat) % block)).reshape(-1, block)
    scale = padded.abs().amax(dim=1, keepdim=True)
    middles = (table[1:] + table[:-1]) / 2
    codes = torch.bucketize(padded / scale.clamp(min=1e-38), middles)
    return (table[codes] * scale).flatten()[: len(flat)].reshape(weight.shape)


def loftq(report: Report, model: Path, work: Path) -> None:
    original = {n: m.weight.detach().clone() for n, m in linears(load(model)).items()}
    for turns in (1, 5):
        flags = ["--init", "loftq", "--init-option", f"iterations={turns}", "--base-out", "base"]
        # PEFT leaves out the scale, so it is right where that is 1.
        folder = started(model, work, *flags, alpha=RANK)
        ours, stored = program.factors(folder / program.INITIAL), weights(work / "ours" / "base")
        other, gone, angles, errors, plain = 0, 0, [], [], []
        for name, weight in original.items():
            rest = weight.clone()
            for turn in range(turns):
                base = nf4(rest)
                found = _low_rank_decomposition(weight - base, reduced_rank=RANK)
                rest = weight - found["L"] @ found["R"]
            other += ((stored[name] - base.double()).abs() > 1e-6 * weight.abs().max()).sum().item()
            gone += weight.numel()
            angles.append((angle(ours[name][1], found["L"]), angle(ours[name][0].T, found["R"].T)))
            size = weight.double().norm()
            mine = ((stored[name] + product(ours[name]) - weight.double()).norm() / size).item()
            theirs = ((base + found["L"] @ found["R"]).double() - weight.double()).norm() / size
            errors.append((mine, theirs.item()))
            plain.append(((nf4(weight) - weight).double().norm() / size).item())
        what = f"{model.name}, loftq, {turns} turn{'s' if turns > 1 else ''}"
        if turns == 1:
            report.below(f"{what}: entries of the quantised base that differ, part of all", other / gone, 1e-4)
            report.below(f"{what}: column spaces", max(a for a, _ in angles), 1e-3)
            report.below(f"{what}: row spaces", max(a for _, a in angles), 1e-3)
        worst = max(mine - theirs for mine, theirs in errors)
        mean = [sum(column) / len(errors) for column in zip(*errors)]
        note = f"in the mean {mean[0]:.4f} against {mean[1]:.4f}, quantised alone {sum(plain) / len(plain):.4f}"
        report.below(f"{what}: what base and factors lose more than PEFT's, largest", max(worst, 0.0), 1e-5, note)


def main() -> int:
    args = arguments(__doc__)
    torch.set_num_threads(1)
    work = program.fresh(args.work / "starts")
    report = Report("starts", "Our EVA, CorDA, OLoRA and LoftQ against PEFT's and the exact answer: largest over all sites.", args.work)
    for model in MODELS:
        for compare in (eva, corda, olora, loftq):
            try:
                compare(report, args.fixtures / model, work)
            except Exception as error:
                report.failed(f"{model}, {compare.__name__}", error)
    return report.finish()


if __name__ == "__main__":
    sys.exit(main())
