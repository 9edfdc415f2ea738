#!/usr/bin/env bash
# Makes .venv beside this script with what the comparison needs (several gigabytes because of torch).
# PYTHON names the interpreter to start from (default python3); nothing outside .venv is touched.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
"${PYTHON:-python3}" -m venv .venv
.venv/bin/python -m pip install --quiet --upgrade pip
.venv/bin/python -m pip install --quiet -r requirements.txt
.venv/bin/python -c 'import torch, transformers, peft
print("torch", torch.__version__, "transformers", transformers.__version__, "peft", peft.__version__)'
