#!/usr/bin/env bash
# Compares the program with transformers and PEFT; writes RESULTS.md beside this script; fails if any comparison does.
#
#   LOWRANK_PYTHON         a Python with the packages of requirements.txt (default: .venv made by setup.sh)
#   LOWRANK_BIN            the program (default: built here)
#   LOWRANK_TYPED_FOLDERS  the program that writes adapters of every kind (default: built here)
#   LOWRANK_INTEROP_WORK   folder for fixtures and outputs (default: a new one, removed at the end)
#
# Arguments name the scripts to run: run.sh forward pissa (default: all).
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
root="$(cd "$here/../.." && pwd)"
python="${LOWRANK_PYTHON:-$here/.venv/bin/python}"
if ! "$python" -c 'import torch, transformers, peft, gguf' 2>/dev/null; then
    echo "$python lacks torch, transformers, peft or gguf; run $here/setup.sh or set LOWRANK_PYTHON" >&2
    exit 1
fi
if [[ -z "${LOWRANK_BIN:-}" ]]; then
    (cd "$root" && cargo build --release --quiet --package lowrank-cli)
    LOWRANK_BIN="${CARGO_TARGET_DIR:-$root/target}/release/lowrank"
fi
if [[ -z "${LOWRANK_TYPED_FOLDERS:-}" ]]; then
    (cd "$root" && cargo build --release --quiet --package lowrank-store --example typed_folders)
    LOWRANK_TYPED_FOLDERS="${CARGO_TARGET_DIR:-$root/target}/release/examples/typed_folders"
fi
export LOWRANK_BIN LOWRANK_TYPED_FOLDERS PYTHONDONTWRITEBYTECODE=1 HF_HUB_OFFLINE=1 TRANSFORMERS_VERBOSITY=error TQDM_DISABLE=1
if [[ -n "${LOWRANK_INTEROP_WORK:-}" ]]; then
    work="$LOWRANK_INTEROP_WORK"
    mkdir -p "$work"
else
    work="$(mktemp -d)"
    trap 'rm -rf "$work"' EXIT
fi

"$python" "$here/fixtures.py" --out "$work/fixtures"
"$python" "$here/gguf_models.py" --out "$work/fixtures"
scripts=("$@")
whole=0
if [[ ${#scripts[@]} == 0 ]]; then
    scripts=(forward pissa lora_ga starts adapters encoders vision_t5 combine typed_peft roads)
    whole=1
    rm -rf "$work/results"
fi
failed=0
for script in "${scripts[@]}"; do
    echo "== $script"
    "$python" "$here/$script.py" --fixtures "$work/fixtures" --work "$work" || failed=1
done
# The committed page is of a whole run, all of one program.
if [[ "$whole" == 1 ]]; then
    "$python" "$here/report.py" --work "$work" --out "$here/RESULTS.md"
fi
exit "$failed"
