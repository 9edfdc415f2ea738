"""Rows of a comparison: printed as they come, kept as JSON, rendered as RESULTS.md.

    report.py --work DIR --out RESULTS.md      renders what the scripts left in DIR/results
"""

import argparse
import json
import os
import platform
import subprocess
import sys
from pathlib import Path


class Report:
    """Collects the rows of one script; `finish` writes them and says whether all passed."""

    def __init__(self, name: str, question: str, work: Path) -> None:
        self.name, self.question, self.work, self.rows = name, question, work, []

    def below(self, what: str, value: float, bound: float, note: str = "") -> None:
        """A row that passes when `value` is a number at most `bound`."""
        self._add(what, f"{value:.1e}", f"≤ {bound:.0e}", value <= bound, note)

    def holds(self, what: str, passed: bool, note: str = "") -> None:
        self._add(what, "yes" if passed else "no", "yes", passed, note)

    def failed(self, what: str, error: Exception) -> None:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        print(error, file=sys.stderr)
        self._add(what, "error", "", False, lines[-1][:160])

    def _add(self, what: str, value: str, bound: str, passed: bool, note: str) -> None:
        self.rows.append(dict(what=what, value=value, bound=bound, passed=passed, note=note))
        print(f"{'ok  ' if passed else 'FAIL'} {what}: {value} ({bound}) {note}", flush=True)

    def finish(self) -> int:
        folder = self.work / "results"
        folder.mkdir(parents=True, exist_ok=True)
        page = dict(name=self.name, question=self.question, rows=self.rows)
        (folder / f"{self.name}.json").write_text(json.dumps(page, indent=1))
        passed = sum(row["passed"] for row in self.rows)
        print(f"{self.name}: {passed} of {len(self.rows)} passed")
        return 0 if self.rows and passed == len(self.rows) else 1


def version() -> str:
    """The program that was judged, and the commit of the source beside it."""

    def said(*command: str) -> str:
        return subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parent).stdout.strip()

    return f"{said(os.environ['LOWRANK_BIN'], '--version')} at commit {said('git', 'describe', '--always', '--dirty')}"


def render(work: Path) -> str:
    import peft
    import torch
    import transformers

    lines = [
        "# Results of the comparison with Python",
        "",
        "Written by `run.sh`; every row was computed, none is copied.",
        "",
        f"Python {platform.python_version()}, torch {torch.__version__}, transformers {transformers.__version__}, "
        f"peft {peft.__version__}; {version()}.",
    ]
    for path in sorted((work / "results").glob("*.json")):
        page = json.loads(path.read_text())
        rows = page["rows"]
        lines += ["", f"## {page['name']}: {sum(r['passed'] for r in rows)} of {len(rows)}", "", page["question"], ""]
        lines += ["| comparison | value | bound | | note |", "| --- | --- | --- | --- | --- |"]
        for row in rows:
            mark = "passed" if row["passed"] else "**FAILED**"
            lines.append(f"| {row['what']} | {row['value']} | {row['bound']} | {mark} | {row['note']} |")
    return "\n".join(lines) + "\n"


def arguments(doc: str) -> argparse.Namespace:
    """The two folders that every comparison takes."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fixtures", type=Path, required=True, help="the folder that fixtures.py wrote")
    parser.add_argument("--work", type=Path, required=True, help="outputs and results go here")
    args = parser.parse_args()
    args.fixtures, args.work = args.fixtures.resolve(), args.work.resolve()
    return args


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    args.out.write_text(render(args.work))
