"""The starts of PEFT on a real model, the peer of `lowrank init`.

Usage: init.py METHOD MODEL_DIR TOKENS.json [--threads N] [--rank R] [--alpha A]

METHOD is pissa, pissa_niter_4, olora, lora_ga, eva or corda, as PEFT names them; TOKENS.json a list of rows of token ids, one
batch of calibration text each 4 rows. All linear layers but the head are started, from f32 weights.

Prints one JSON object:
    seconds          wall time of the start alone: the model is loaded before, nothing is saved
    cpu_seconds      CPU time of the process in it, all threads together
    peak_growth_mb   peak resident memory (2^20 bytes) in it, less the resident memory before
    converged        eva: whether its components had converged when it ended; it has no limit of its own, and is stopped after
                     --most seconds, so that the time is then a lower bound
    energy           pissa*, olora: mean over the layers of |scale B A|^2 / |W|^2, the part of the weight's energy that is trained

What is timed is PEFT's own public road: `get_peft_model` with `init_lora_weights`, behind `preprocess_loraga` or `preprocess_corda`
where there is one, before `initialize_lora_eva_weights` where there is that.
"""

import argparse
import json
import os
import time

from step import Memory

LINEARS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
BATCH = 4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("method", choices=["pissa", "pissa_niter_4", "olora", "lora_ga", "eva", "corda"])
    parser.add_argument("model")
    parser.add_argument("tokens")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--alpha", type=float, default=16)
    parser.add_argument("--most", type=float, default=120, help="seconds after which eva is stopped")
    args = parser.parse_args()
    # Before torch is imported, or its thread pools ignore it.
    os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = str(args.threads)
    os.environ["HF_HUB_OFFLINE"] = os.environ["TQDM_DISABLE"] = "1"

    import torch
    from peft import EvaConfig, LoraConfig, LoraGAConfig, get_peft_model, initialize_lora_eva_weights
    from peft.tuners.lora.config import CordaConfig
    from peft.tuners.lora.loraga import preprocess_loraga
    from transformers import AutoModelForCausalLM

    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_pretrained(args.model, dtype=torch.float32)
    rows = json.load(open(args.tokens))
    # Rows of one length, so that no padding enters on either side.
    shortest = min(len(row) for row in rows)
    rows = torch.tensor([row[:shortest] for row in rows])
    batches = [rows[at : at + BATCH] for at in range(0, len(rows) - BATCH + 1, BATCH)]
    weights = {name: m.weight.detach().clone() for name, m in model.named_modules() if name.split(".")[-1] in LINEARS}
    options = {"r": args.rank, "lora_alpha": args.alpha, "target_modules": LINEARS, "task_type": "CAUSAL_LM"}

    memory = Memory()
    wall, cpu = time.perf_counter(), time.process_time()
    if args.method == "lora_ga":
        config = LoraConfig(init_lora_weights="lora_ga", lora_ga_config=LoraGAConfig(), **options)
        first = batches[0]
        preprocess_loraga(model, config, lambda: model(input_ids=first, labels=first).loss.backward())
        started = get_peft_model(model, config)
    elif args.method == "corda":
        # It imports the package attrs, which PEFT does not ask for: the other methods do without.
        from peft.tuners.lora.corda import preprocess_corda

        config = LoraConfig(init_lora_weights="corda", corda_config=CordaConfig(corda_method="ipm"), **options)

        def show() -> None:
            # Its hook takes one row at a time.
            with torch.no_grad():
                for row in rows:
                    model(input_ids=row[None])

        preprocess_corda(model, config, run_model=show)
        started = get_peft_model(model, config)
    elif args.method == "eva":
        config = LoraConfig(init_lora_weights="eva", eva_config=EvaConfig(rho=1.0, use_label_mask=False), **options)
        started = get_peft_model(model, config)

        class Loader:
            """The batches over and over, as PEFT takes them, until the time is up."""

            def __len__(self):
                return len(batches)

            def __iter__(self):
                while time.perf_counter() - wall < args.most:
                    for batch in batches:
                        yield {"input_ids": batch, "attention_mask": torch.ones_like(batch)}
                raise TimeoutError

        try:
            initialize_lora_eva_weights(started, dataloader=Loader(), show_progress_bar=False)
            converged = True
        except TimeoutError:
            converged = False
    else:
        started = get_peft_model(model, LoraConfig(init_lora_weights=args.method, **options))
    report = {
        "name": f"PEFT {args.method}",
        "version": __import__("peft").__version__,
        "threads": args.threads,
        "rank": args.rank,
        "seconds": time.perf_counter() - wall,
        "cpu_seconds": time.process_time() - cpu,
        "peak_growth_mb": memory.growth(),
    }
    if args.method == "eva":
        report["converged"] = converged
    shares = []
    for name, module in started.named_modules():
        if not hasattr(module, "lora_A"):
            continue
        weight = weights[name.removeprefix("base_model.model.")]
        a, b = module.lora_A["default"].weight.detach(), module.lora_B["default"].weight.detach()
        # |B A|^2 from the two Gram matrices, in f64.
        gram = (b.double().T @ b.double()) @ (a.double() @ a.double().T)
        shares.append((module.scaling["default"] ** 2 * gram.trace() / weight.double().square().sum()).item())
    report["sites"] = len(shares)
    if args.method.startswith("pissa") or args.method == "olora":
        report["energy"] = sum(shares) / len(shares)
    print(json.dumps(report))


if __name__ == "__main__":
    main()
