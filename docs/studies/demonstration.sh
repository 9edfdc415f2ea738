#!/usr/bin/env bash
# The runs behind demonstration.md: every start, rate and seed on the model and the text inside the binary, 80 steps each.
#
#   LOWRANK_BIN=target/release/lowrank docs/studies/demonstration.sh WORK > demonstration.csv
#
# Goes on where it was stopped; JOBS runs at once (default 2), one thread each.
set -euo pipefail
work="$1"
export LOWRANK_BIN="${LOWRANK_BIN:-target/release/lowrank}"
export TEXT="$(dirname "${BASH_SOURCE[0]}")/../../assets/tune/tune.txt"
mkdir -p "$work"
run() {
    out="$1/$2-$3-$4"
    [[ -s "$out.json" ]] && return
    rm -rf "$out"
    "$LOWRANK_BIN" --quiet --json --threads 1 tune --data "$TEXT" --init "$2" --rate "$3" --seed "$4" --steps 80 \
        --run "$out" --out "$out/adapter" > "$out.tmp" && mv "$out.tmp" "$out.json"
    rm -rf "$out"
}
export -f run
for seed in 0 1 2; do
    for rate in 1e-3 2e-3 4e-3 8e-3 1.6e-2; do
        # The outer rates, which seed 0 has shown to be worse for every start, are not repeated.
        [[ "$seed" == 0 || "$rate" == 1e-3 || "$rate" == 4e-3 || "$rate" == 8e-3 ]] || continue
        for init in kaiming lora-ga lora-ga-control; do
            echo "$work $init $rate $seed"
        done
    done
done | xargs -P "${JOBS:-2}" -L 1 bash -c 'run "$@"' _
echo "init,rate,seed,held_out_before,held_out_after"
for file in "$work"/*.json; do
    name="$(basename "$file" .json)"
    loss() { sed -n "s/.*\"$1\": \([0-9.]*\).*/\1/p" "$file" | head -1; }
    seed="${name##*-}"
    rate="$(sed -n 's/.*"rate": \([0-9.e-]*\).*/\1/p' "$file" | head -1)"
    init="$(sed -n 's/.*"init": "\(.*\)".*/\1/p' "$file" | head -1)"
    echo "$init,$rate,$seed,$(loss held_out_before),$(loss held_out_after)"
done
