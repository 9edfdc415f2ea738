"""Our LoRA-GA of variant `peft-compat` against PEFT's own, from the same batch: the factors agree up to sign.

    lora_ga.py --fixtures DIR --work DIR

PEFT: `preprocess_loraga` with one backward pass of the mean token loss over the batch, then
`init_lora_weights="lora_ga"` with `LoraGAConfig()` (ArB2r, stable, gamma 16). Ours: the `initial/` factors of `lowrank init` with the
same token rows. Rows of A and columns of scaling * B are compared one by one after fixing the sign on A.

PEFT's SVD is randomised, so the exact factors (`torch.linalg.svd` in f64 of the same gradient) stand beside both: the row
"ours" must meet the bound against the exact ones, the row "PEFT" shows how far PEFT itself is from them, and the row
"ours against PEFT" allows for that distance. A singular vector is only determined as well as its gap to the next
singular value allows, so errors are multiplied by the relative gap where that is below 0.1.
"""

import json
import sys
from pathlib import Path

import torch
from peft import LoraConfig, LoraGAConfig, get_peft_model
from peft.tuners.lora.loraga import preprocess_loraga

import program
from fixtures import VOCAB, generator, load
from report import Report, arguments

MODELS = ["llama-mha-untied", "llama-gqa-tied", "qwen2-bias"]
RANK, ALPHA, GAMMA = 4, 16, 16
ROWS, LENGTH = 8, 24
BOUND = 5e-3


def batch(work: Path) -> tuple[Path, torch.Tensor]:
    """Rows of one length, so the mean over tokens and the mean over rows are the same number."""
    tokens = generator("lora-ga", "tokens").integers(3, VOCAB, size=(ROWS, LENGTH))
    path = work / "tokens.json"
    path.write_text(json.dumps(tokens.tolist()))
    return path, torch.tensor(tokens)


def peft_factors(model: Path, tokens: torch.Tensor, work: Path) -> tuple[dict, dict]:
    """PEFT's factors, and the gradient of each site that it used."""
    network = load(model)
    config = LoraConfig(
        r=RANK, lora_alpha=ALPHA, target_modules=program.LINEARS, init_lora_weights="lora_ga",
        lora_ga_config=LoraGAConfig(), task_type="CAUSAL_LM",
    )
    torch.manual_seed(0)
    preprocess_loraga(network, config, lambda: network(input_ids=tokens, labels=tokens).loss.backward())
    gradients = {
        name: module._peft_loraga_grad.clone()
        for name, module in network.named_modules()
        if hasattr(module, "_peft_loraga_grad")
    }
    out = program.fresh(work / "peft")
    get_peft_model(network, config).save_pretrained(out)
    return program.factors(out), gradients


def exact_factors(gradients: dict) -> tuple[dict, dict]:
    """The same formula on an exact SVD, and the weight of each singular vector's error."""
    factors, weights = {}, {}
    for site, gradient in gradients.items():
        u, s, vt = torch.linalg.svd(gradient.double(), full_matrices=False)
        stable = gradient.shape[0] ** 0.25 / GAMMA**0.5
        b = u[:, RANK : 2 * RANK] * s[RANK : 2 * RANK] * stable
        factors[site] = (vt[:RANK], b * (ALPHA / RANK))
        gaps = (s[:-1] - s[1:]) / s[:-1]
        gap = torch.minimum(gaps[: 2 * RANK], torch.cat((torch.ones(1), gaps[: 2 * RANK - 1])))
        weights[site] = (gap / 0.1).clamp(max=1.0)
    return factors, weights


def distance(x: dict, y: dict, weights: dict) -> tuple[float, float]:
    """Largest relative error of a row of A and of a column of B up to sign, weighted by the gaps."""
    if x.keys() != y.keys():
        raise ValueError(f"different sites: {sorted(x.keys() ^ y.keys())}")
    worst = [0.0, 0.0]
    for site in x:
        pairs = ((x[site][0], y[site][0]), (x[site][1].T, y[site][1].T))
        for side, (ours, theirs) in enumerate(pairs):
            for i, (p, q) in enumerate(zip(ours.double(), theirs.double(), strict=True)):
                gap = min((p - q).norm(), (p + q).norm()) / q.norm()
                worst[side] = max(worst[side], (gap * weights[site][side * RANK + i]).item())
    return worst[0], worst[1]


def our_factors(model: Path, tokens: Path, work: Path) -> dict:
    out = program.fresh(work / "ours") / "adapter"
    start = program.STARTS["lora-ga peft-compat"]
    source = ["--model", model, "--data", model / "data.jsonl", "--calibration-tokens", tokens]
    program.lowrank(
        "init", *source, *start, "--rank", RANK, "--alpha", ALPHA, "--out", out, work=work
    )
    return program.factors(out / program.INITIAL)


def main() -> int:
    args = arguments(__doc__)
    torch.set_num_threads(1)
    work = program.fresh(args.work / "lora_ga")
    path, tokens = batch(work)
    question = "LoRA-GA of variant `peft-compat` against PEFT's: largest relative error of a row of A / a column of B up to sign."
    report = Report("lora_ga", question, args.work)
    for model in MODELS:
        try:
            folder = args.fixtures / model
            theirs, gradients = peft_factors(folder, tokens, work)
            exact, weights = exact_factors(gradients)
            slack = distance(theirs, exact, weights)
            for side, value in zip("AB", slack):
                report.below(f"{model}: PEFT against the exact SVD, {side}", value, 5e-2, "PEFT's own error")
            ours = our_factors(folder, path, work)
            for side, value in zip("AB", distance(ours, exact, weights)):
                report.below(f"{model}: ours against the exact SVD, {side}", value, BOUND)
            for side, value, allowed in zip("AB", distance(ours, theirs, weights), slack):
                report.below(f"{model}: ours against PEFT, {side}", value, BOUND + 2 * allowed)
        except Exception as error:
            report.failed(model, error)
    return report.finish()


if __name__ == "__main__":
    sys.exit(main())
