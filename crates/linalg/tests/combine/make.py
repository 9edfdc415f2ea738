"""Writes reference.rs: the change that PEFT's add_weighted_adapter makes of three adapters, for every combination type.

    make.py > reference.rs        (peft 0.21.2, torch on the CPU)

Factors and masks follow formulas that the test repeats; DARE's masks stand in for torch's draws.
"""

import peft
import torch
from peft import LoraConfig, get_peft_model

OUT, IN, RANK, DENSITY = 5, 6, 3, 0.6
ALPHAS, WEIGHTS = [6.0, 1.5, 3.0], [0.7, -0.4, 1.3]
TENSORS = {"right": 0, "left": 1, "change": 2}


def values(part: int, tensor: str, rows: int, cols: int) -> torch.Tensor:
    first = 11 * part + 53 * TENSORS[tensor]
    flat = [((37 * (i + 1) + first) % 101 - 50 + 0.25) / 32 for i in range(rows * cols)]
    return torch.tensor(flat).reshape(rows, cols)


def mask(part: int, tensor: str, entries: int) -> torch.Tensor:
    return torch.tensor([float((29 * i + 17 * part + 7 * TENSORS[tensor]) % 10 < 6) for i in range(entries)])


class Net(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.q = torch.nn.Linear(IN, OUT, bias=False)


def model():
    config = lambda alpha: LoraConfig(r=RANK, lora_alpha=alpha, target_modules=["q"])
    net = get_peft_model(Net(), config(ALPHAS[0]), adapter_name="a0")
    for i in (1, 2):
        net.add_adapter(f"a{i}", config(ALPHAS[i]))
    q = net.base_model.model.q
    for i in range(3):
        q.lora_A[f"a{i}"].weight.data = values(i, "right", RANK, IN)
        q.lora_B[f"a{i}"].weight.data = values(i, "left", OUT, RANK)
    return net, q


def change(kind: str, **more) -> torch.Tensor:
    net, q = model()
    calls = []

    def bernoulli(input: torch.Tensor) -> torch.Tensor:
        part = len(calls) % 3
        tensor = "change" if kind.endswith("svd") else "right" if len(calls) < 3 else "left"
        calls.append(tensor)
        return mask(part, tensor, input.numel()).reshape(input.shape)

    draw, torch.bernoulli = torch.bernoulli, bernoulli
    try:
        net.add_weighted_adapter([f"a{i}" for i in range(3)], WEIGHTS, "new", combination_type=kind, **more)
    finally:
        torch.bernoulli = draw
    return q.get_delta_weight("new").detach()


def main() -> None:
    print(f"//! Written by make.py with peft {peft.__version__}: what `add_weighted_adapter` makes of three adapters.\n")
    print("/// Name, sign, rank, and the change `[5, 6]` in row-major order.")
    print("#[rustfmt::skip]")
    print("pub const CHANGES: &[(&str, &str, usize, [f64; 30])] = &[")
    rows = [(kind, "total", 3) for kind in ("cat", "linear", "svd", "dare_linear", "dare_linear_svd", "magnitude_prune",
                                            "magnitude_prune_svd")]
    rows += [("svd", "total", 2)]
    rows += [(kind, sign, 2) for kind in ("ties", "ties_svd", "dare_ties", "dare_ties_svd") for sign in ("total", "frequency")]
    for kind, sign, rank in rows:
        more = dict(density=DENSITY, majority_sign_method=sign, svd_rank=rank)
        flat = ", ".join(f"{x:.9}" if "." in f"{x:.9}" else f"{x:.9}.0" for x in change(kind, **more).flatten().tolist())
        print(f'    ("{kind.replace("_", "-")}", "{sign}", {rank}, [{flat}]),')
    print("];")


if __name__ == "__main__":
    main()
