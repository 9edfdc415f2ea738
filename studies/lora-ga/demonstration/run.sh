#!/usr/bin/env bash
# The runs behind NOTE.md: every start, rate and seed on the model and the text inside the binary, 80 steps each.
#
#   LOWRANK_BIN=target/release/lowrank studies/lora-ga/demonstration/run.sh WORK
#
# Writes result.json beside this script. Goes on where it was stopped; JOBS runs at once (default 2), one thread each.
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
work="$1"
LOWRANK_BIN="$(realpath "${LOWRANK_BIN:-target/release/lowrank}")"
TEXT="$here/../../../assets/tune/tune.txt"
export LOWRANK_BIN TEXT
mkdir -p "$work"
run() {
    out="$1/$2-$3-$4"
    [[ -s "$out.json" ]] && return
    rm -rf "$out"
    "$LOWRANK_BIN" --quiet --json --threads 1 tune --data "$TEXT" --init "$2" --rate "$3" --seed "$4" --steps 80 \
        --run "$out" --out "$out/adapter" > "$out.tmp" || return 255 # which ends xargs
    number() { sed -n "s/.*\"$1\": \([0-9.e-]*\).*/\1/p" "$out.tmp" | head -1; }
    printf '{"init": "%s", "rate": %s, "seed": %s, "held_out_before": %s, "held_out_after": %s}' \
        "$2" "$3" "$4" "$(number held_out_before)" "$(number held_out_after)" > "$out.row" && mv "$out.row" "$out.json"
    rm -rf "$out" "$out.tmp"
}
export -f run
for seed in 0 1 2; do
    for rate in 1e-3 2e-3 4e-3 8e-3 1.6e-2; do
        # The outer rates, which seed 0 shows to be worse for every start, are not repeated.
        [[ "$seed" == 0 || "$rate" == 1e-3 || "$rate" == 4e-3 || "$rate" == 8e-3 ]] || continue
        for init in kaiming lora-ga lora-ga-control; do
            echo "$work $init $rate $seed"
        done
    done
done | xargs -P "${JOBS:-2}" -L 1 bash -c 'run "$@"' _
rows="$(for file in "$work"/*.json; do echo "    $(cat "$file"),"; done)"
{
    echo "{"
    echo "  \"program\": \"$("$LOWRANK_BIN" --version) at commit $(git -C "$here" describe --always --dirty)\","
    echo "  \"runs\": ["
    echo "${rows%,}"
    echo "  ]"
    echo "}"
} > "$here/result.json.new"
mv "$here/result.json.new" "$here/result.json"
