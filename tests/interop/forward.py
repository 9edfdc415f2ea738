"""Our forward against transformers': max abs difference of the logits in f32 at most 1e-4.

    forward.py --fixtures DIR --work DIR

Every folder and GGUF file below --fixtures that has a `tokens.json` and `expected.safetensors` beside it takes part.
A model with a sliding window shorter than the rows may also be refused by name; it may not be computed without it.
"""

import json
import sys
from pathlib import Path

from safetensors.torch import load_file

import program
from report import Report, arguments

BOUND = 1e-4


def window_is_short(model: Path, lengths: list[int]) -> bool:
    config = model / "config.json"
    window = json.loads(config.read_text()).get("sliding_window") if config.exists() else None
    return bool(window) and window < max(lengths)


def main() -> int:
    args = arguments(__doc__)
    work = program.fresh(args.work / "forward")
    report = Report("forward", "`lowrank eval --dump-logits` against `transformers`, max abs difference.", args.work)
    for expected in sorted(args.fixtures.rglob("expected.safetensors")):
        folder = expected.parent
        tokens = folder / "tokens.json"
        lengths = [len(row) for row in program.rows(tokens)]
        found = sorted(folder.glob("*.gguf"))
        model = found[0] if found else folder
        name = folder.name
        try:
            ours = program.logits(model, tokens, work)
            report.below(name, program.difference(ours, load_file(expected)["logits"], lengths), BOUND)
        except program.Refused as refused:
            if window_is_short(model, lengths) and refused.code == 2 and "sliding_window" in refused.message:
                report.holds(f"{name}: refused by name", True, refused.message.splitlines()[-1][:120])
            else:
                report.failed(name, refused)
        except Exception as error:
            report.failed(name, error)
    return report.finish()


if __name__ == "__main__":
    sys.exit(main())
