#!/usr/bin/env python3
"""Every training step that is compared with PyTorch, one after another, and their page
in docs.

    pip install -r requirements.txt -r requirements-bench.txt -e .
    python benchmarks/bench.py [--rounds=7] [--seconds=4]
    python benchmarks/bench.py --case=dcgan --case=vae_mnist
    python benchmarks/bench.py --page      the page from the timings, nothing timed

A case appends its raw timings to a file beside this one; the page shows the last ones
of each case. Leave the machine alone meanwhile: 20 to 60 minutes on two cores.
"""

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
TIMINGS, PAGE = HERE / "timings.jsonl", HERE.parent / "docs" / "benchmarks.md"
SCRIPTS = ("gan_step", "vae_step", "lm_step", "gpt2")

INTRO = """\
# Speed of a training step

Milliseconds of one training step, here and in PyTorch; of GPT-2, of 256 tokens after 32, here and
in transformers. `make bench` times every case and writes this page from the raw timings; `python
benchmarks/bench.py --page` writes it without timing.

Each side runs in a process of its own; the sides take turns, and medians are compared. Before the
clock starts, both sides compute the losses of one batch with the same parameters, which must agree
within 1e-4. PyTorch runs eagerly with its fused optimiser, convolutions in the faster of its two
memory layouts. *PyTorch / ours* above 1 is in our favour. The *limit* is the time of the step's
matrix products and convolutions alone, at their own shapes, and of reading and writing the state
once, in the same run: *share* is the limit over our step.
"""


def find_cases():
    """{case: script}."""
    from importlib import import_module

    return {case: name for name in SCRIPTS for case in import_module(name).CASES}


def last_rows():
    """{case: its last row in the timings}."""
    if not TIMINGS.exists():
        return {}
    rows = map(json.loads, TIMINGS.read_text(encoding="utf-8").splitlines())
    return {row["case"]: row for row in rows}


def format_case(row):
    times = row["milliseconds"]
    median = {side: statistics.median(t) for side, t in times.items()}
    own = median["ours"]
    pytorch = min(m for side, m in median.items() if side.startswith("pytorch"))
    ratio = lambda side: f"{own / median[side]:.2f}" if side in median else ""
    trials = median.get("ours_four_trials")
    spread = f"{min(times['ours']):.4g} - {max(times['ours']):.4g}"
    cells = (
        row["what"],
        f"{own:.4g} ({spread})",
        f"{pytorch:.4g}",
        f"**{pytorch / own:.2f}**",
        f"{median['limit']:.4g}" if "limit" in median else "",
        f"{100 * median['limit'] / own:.0f} %" if "limit" in median else "",
        ratio("ours_plain_jit"),
        f"{trials / own:.2f}" if trials else "",
    )
    return f"| {' | '.join(cells)} |"


def make_page():
    """The page of the last timings of each case, in the order of the scripts."""
    rows = last_rows()
    found = [rows[case] for case in find_cases() if case in rows]
    machines = sorted({f"{r['machine']}, jax {r['jax']}, torch {r['torch']}" for r in found})
    head = (
        "case",
        "ours, ms (least - most)",
        "PyTorch, ms",
        "PyTorch / ours",
        "limit, ms",
        "share",
        "loop / plain jit",
        "four trials / one",
    )
    table = [f"| {' | '.join(head)} |", "|---" * len(head) + "|", *map(format_case, found)]
    lines = [INTRO, f"Machine: {'; '.join(machines)}.", "", *table]
    return "\n".join(lines) + "\n"


def main():
    cases = find_cases()
    arguments = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments.add_argument("--case", action="append", choices=cases, help="(default: every case)")
    arguments.add_argument("--rounds", type=int, default=7)
    arguments.add_argument("--seconds", type=float, default=4.0, help="of each stretch")
    arguments.add_argument("--page", action="store_true", help="only write the page")
    args = arguments.parse_args()
    for case in () if args.page else args.case or cases:
        command = [sys.executable, HERE / f"{cases[case]}.py", f"--case={case}"]
        command += [f"--rounds={args.rounds}", f"--seconds={args.seconds}", f"--out={TIMINGS}"]
        subprocess.run(list(map(str, command)), check=True)
    PAGE.write_text(make_page(), encoding="utf-8")


if __name__ == "__main__":
    main()
