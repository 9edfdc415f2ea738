"""One training step in PyTorch eager mode, the peer of `crates/models/examples/step.rs`.

Shape: Llama-like decoder, hidden 576, 9 heads / 3 KV heads of 64, FFN 1536, 6 layers, vocabulary 8192, batch 4 x 256,
f32, base frozen (`requires_grad = False`, tied head), plain LoRA of rank 8 on all seven linears of every layer, AdamW.
A step is forward, mean token cross-entropy, backward, optimiser step, gradients dropped.

Usage: step.py [THREADS] [STEPS]      two steps of warm-up come before

Prints one JSON object, with the times of a step as [lowest, median, highest] in milliseconds:
    wall_ms          wall time
    cpu_ms           CPU time of the process, all threads together
    peak_growth_mb   peak resident memory (2^20 bytes) during all steps, warm-up included, less the resident memory after
                     the model and the optimiser object are built. The peak is VmHWM of /proc/self/status, reset just
                     before the steps by writing 5 to /proc/self/clear_refs; where that is refused, the growth of
                     ru_maxrss, which cannot see a peak below the one reached while building (`peak_source` says which).
    first_loss, loss   of the measured steps, so that both sides can be seen to train

PyTorch's products, attention (scaled_dot_product_attention, causal) and loss are its own best defaults; LoRA is the
plain form y = xW^T + s (xA^T)B^T as PEFT computes it, without dropout.
"""

import argparse
import json
import os
import resource
import time

WARM_UP = 2


class Memory:
    """Peak growth of this process in MB (2^20 bytes) since construction."""

    def __init__(self) -> None:
        try:
            with open("/proc/self/clear_refs", "w") as file:
                file.write("5")
            self.source = "VmHWM"
            self.start = self._status("VmRSS")
        except OSError:
            self.source = "ru_maxrss"
            self.start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    @staticmethod
    def _status(key: str) -> int:
        with open("/proc/self/status") as file:
            for line in file:
                if line.startswith(key + ":"):
                    return int(line.split()[1])
        raise OSError(f"no {key} in /proc/self/status")

    def growth(self) -> float:
        if self.source == "VmHWM":
            peak = self._status("VmHWM")
        else:
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return (peak - self.start) / 1024


def spread(values: list[float]) -> list[float]:
    """[lowest, median, highest]; of an even number the upper middle, as the peer does."""
    values = sorted(values)
    return [values[0], values[len(values) // 2], values[-1]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("threads", type=int, nargs="?", default=1)
    parser.add_argument("steps", type=int, nargs="?", default=10)
    args = parser.parse_args()
    # Before torch is imported, or its thread pools ignore it.
    os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = str(args.threads)

    import torch

    from step_model import SHAPE, Decoder

    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    model = Decoder()
    trainable = [p for p in model.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(trainable, lr=1e-3, weight_decay=0.0)
    batch, time_steps, vocab = SHAPE["batch"], SHAPE["time"], SHAPE["vocab"]
    tokens = torch.randint(0, vocab, (batch, time_steps + 1))

    def step() -> float:
        loss = model.loss(tokens[:, :-1], tokens[:, 1:])
        loss.backward()
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        return loss.item()

    memory = Memory()
    for _ in range(WARM_UP):
        step()
    wall, cpu, losses = [], [], []
    for _ in range(args.steps):
        wall_start, cpu_start = time.perf_counter(), time.process_time()
        losses.append(step())
        wall.append((time.perf_counter() - wall_start) * 1e3)
        cpu.append((time.process_time() - cpu_start) * 1e3)

    report = {
        "name": "pytorch eager, plain LoRA",
        "version": torch.__version__,
        "threads": args.threads,
        "steps": args.steps,
        "trainable": sum(p.numel() for p in trainable),
        "wall_ms": spread(wall),
        "cpu_ms": spread(cpu),
        "peak_growth_mb": memory.growth(),
        "peak_source": memory.source,
        "first_loss": losses[0],
        "loss": losses[-1],
    }
    print(json.dumps(report))


if __name__ == "__main__":
    main()
