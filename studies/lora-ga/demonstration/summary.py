"""Prints the tables of NOTE.md from result.json: python3 summary.py"""

import json
from pathlib import Path
from statistics import mean, stdev

runs = json.loads((Path(__file__).parent / "result.json").read_text())["runs"]
loss = {(r["init"], r["rate"], r["seed"]): r["held_out_after"] for r in runs}
starts = ["kaiming", "lora-ga", "lora-ga-control"]
seeds = sorted({r["seed"] for r in runs})
rates = sorted({r["rate"] for r in runs})
print("before training:", sorted({(r["seed"], round(r["held_out_before"], 3)) for r in runs}))
print("\n| rate |", " | ".join(starts), "|")
for rate in rates:
    print(f"| {rate:g} |", " | ".join(f"{loss[start, rate, 0]:.3f}" for start in starts), "|")
# The tried rate with the lowest mean loss, among those that every seed has.
whole = [rate for rate in rates if all((start, rate, seed) in loss for start in starts for seed in seeds)]
best = {start: min(whole, key=lambda rate: mean(loss[start, rate, seed] for seed in seeds)) for start in starts}
print("\nbest rates:", best)
# Student's t for a two-sided 95 % interval, by degrees of freedom.
t = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776}[len(seeds) - 1]
print("\n| compared | difference |")
for one, other in [("lora-ga", "kaiming"), ("lora-ga", "lora-ga-control"), ("lora-ga-control", "kaiming")]:
    for name, pick in [(f"both at {rate:g}", lambda _, rate=rate: rate) for rate in whole] + [("each at its best", best.get)]:
        gaps = [loss[one, pick(one), seed] - loss[other, pick(other), seed] for seed in seeds]
        print(f"| {one} and {other}, {name} | {mean(gaps):+.3f} ± {t * stdev(gaps) / len(gaps) ** 0.5:.3f} |")
