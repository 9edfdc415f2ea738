#!/usr/bin/env bash
# The figures of "A real model" in docs/performance.md: tune SmolLM2 on GSM8K from LoRA-GA's start, then let it answer.
#
#   benches/real_model.sh SmolLM2-135M-Instruct.Q4_1.gguf gsm8k/train.jsonl
#
# Writes benches/results/smollm2-tune.json and benches/results/smollm2-generate.json; about ten minutes on two cores.
set -euo pipefail
model="$(realpath "$1")"
data="$(realpath "$2")"
cd "$(dirname "${BASH_SOURCE[0]}")/.."
lowrank="$(realpath "${LOWRANK_BIN:-target/release/lowrank}")"
results="$PWD/benches/results"
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
cd "$work"
"$lowrank" --quiet --json --threads 2 tune --model "$model" --data "$data" --init lora-ga --rank 8 --batch 4 \
    --max-length 256 --steps 60 --eval-limit 16 --run run --out adapter > tune.json
"$lowrank" --quiet --json --threads 2 generate --model "$model" --adapter adapter --max-tokens 96 --prompt \
    "A shop sells 12 pens in the morning and twice as many in the afternoon. How many pens does it sell?" > generate.json
mv tune.json "$results/smollm2-tune.json"
mv generate.json "$results/smollm2-generate.json"
