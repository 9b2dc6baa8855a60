#!/usr/bin/env python3
"""Write docs/results.md, the ledger: every claim of the experiments with its verdict.

    python docs/make_results.py

Verdicts, numbers and figures are those of the committed rows in experiments/results/.
The page is a function of the experiments and their rows, byte for byte.
"""

import ast
import json
import re
from collections import Counter
from pathlib import Path

from aigc_jax.sweeps import experiment as experiments
from aigc_jax.sweeps.claims import Comparison, compare_claim
from aigc_jax.sweeps.evidence import read_rows

ROOT = Path(__file__).resolve().parent.parent
OUT = ROOT / "docs/results.md"
SPACE = "\u00a0"  # no line break

INTRO = """\
# Results

Each number that an experiment sets beside a published one, with the verdict of its committed rows.
This page is generated from the rows by `python docs/make_results.py`, and a test compares it with
what they say: no verdict is written by hand. A number is *reproduced* if it differs from the
published one by at most the tolerance that the experiment states, or lies beyond it on the better
side; otherwise it *differs*, or is *not reached* where one side is better.
"""


def make_page() -> str:
    """Return the page."""
    found = {p.stem: experiments.load(p) for p in sorted((ROOT / "experiments").glob("*.py"))}
    rows = {name: read_rows(e.results_dir) for name, e in found.items()}
    compared = {
        name: [compare_claim(claim, rows[name]) for claim in e.claims] for name, e in found.items()
    }
    published = select(compared, is_baseline=False)
    baselines = select(compared, is_baseline=True)
    parts = [
        INTRO,
        f"## Published numbers\n\n{describe_counts(published)}",
        format_claims(published, "published"),
        "## Baselines\n\nNumbers beside those of a baseline that was trained or fitted here, or "
        f"beside a bound that was set before the run. {describe_counts(baselines)}",
        format_claims(baselines, "baseline"),
        "## Experiments\n\nThe evidence of each is in `experiments/results/`: `rows.csv`, and "
        "`table.md` and `figure.png`, which are drawn from the rows alone, without training.",
        *(format_experiment(name, e, rows[name]) for name, e in found.items()),
    ]
    return "\n\n".join(part.strip() for part in parts) + "\n"


def select(
    compared: dict[str, list[Comparison]], is_baseline: bool
) -> list[tuple[str, Comparison]]:  # (experiment, comparison)
    """Return the comparisons with baselines, or with published numbers."""
    return [
        (name, c)
        for name, comparisons in compared.items()
        for c in comparisons
        if c.claim.is_baseline == is_baseline
    ]


def describe_counts(comparisons: list[tuple[str, Comparison]]) -> str:
    """Return a sentence with the number of each kind of verdict."""
    kinds = Counter(re.match(r"reproduced|reached|differs|not reached", c.outcome)[0]
                    for _, c in comparisons)  # fmt: skip
    verbs = {"differs": "differ", "reached": "are reached", "reproduced": "are reproduced",
             "not reached": "are not reached"}  # fmt: skip
    counts = ", ".join(f"{count} {verbs[kind]}" for kind, count in kinds.most_common())
    return f"Of {len(comparisons)} numbers {counts}."


def format_claims(comparisons: list[tuple[str, Comparison]], heading: str) -> str:
    """Return a table for each experiment, below a line with the source where all its
    claims have the same one.
    """
    parts = []
    for name in dict.fromkeys(name for name, _ in comparisons):
        own = [comparison for other, comparison in comparisons if other == name]
        sources = {describe_source(c) for c in own}
        beside = f", beside {sources.pop()}" if len(sources) == 1 else ""
        parts += [f"**[{name}](#{name})**{beside}:", format_table(own, heading, not beside)]
    return "\n\n".join(parts)


def describe_source(comparison: Comparison) -> str:
    """Return who published a number, and how the setting differs."""
    claim = comparison.claim
    return claim.source + (f" (here: {claim.setting})" if claim.setting else "")


def format_table(comparisons: list[Comparison], heading: str, with_sources: bool) -> str:
    """Return a table with a line per comparison."""
    titles = ["number", "verdict", "ours", heading, "tolerance", *["beside"] * with_sources]
    lines = [f"| {' | '.join(titles)} |", "|---" * len(titles) + "|"]
    for comparison in comparisons:
        claim, mean, error, published, verdict = comparison
        n, bold = claim.digits, "**" * (verdict in ("reproduced", "reached"))
        ours = f"{mean:.{n}f}" + (f"{SPACE}±{SPACE}{error:.{n}f}" if error is not None else "")
        cells = [claim.what, f"{bold}{verdict}{bold}", ours, f"{published:.{n}f}"]
        cells += [f"{claim.tolerance:.2g}", *[describe_source(comparison)] * with_sources]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def format_experiment(name: str, e: experiments.Experiment, rows: list[dict]) -> str:
    """Return the section of an experiment: its question, figure, table and origin."""
    source = e.file.read_text()
    question, _, _ = ast.get_docstring(ast.parse(source)).partition("\n\n")
    table = (e.results_dir / "table.md").read_text()
    study = find_page(table)
    if study:
        table = f"Table and discussion: [{study.stem}]({study.relative_to(OUT.parent)}).\n"
    return f"""\
### {name}

{" ".join(question.split())}

![{name}](../experiments/results/{name}/figure.png)

*{describe_configs(source)}; `aigc sweep --experiment={name} --workdir=runs/{name}`*

{table}
{describe_origin(e.results_dir, rows)}"""


def find_page(table: str) -> Path | None:
    """Return the page of docs/ that contains a table."""
    pages = (p for p in sorted(OUT.parent.rglob("*/*.md")) if table in p.read_text())
    return next(pages, None)


def describe_configs(source: str) -> str:
    """Return the names of the shipped configs that a source names."""
    shipped = {p.stem for p in (ROOT / "configs").glob("*.py")}
    named = sorted(shipped.intersection(re.findall(r"\w+", source)))
    return f"config{'s' * (len(named) > 1)} {', '.join(f'`{config}`' for config in named)}"


def describe_origin(folder: Path, rows: list[dict]) -> str:
    """Return a sentence with the rows, the versions and the hardware."""
    it = json.loads((folder / "environment.json").read_text())
    commit = f", commit `{it['commit'][:7]}`" if it["commit"] else ""
    return (
        f"{len(rows):,} rows, of jax {it['versions']['jax']}, Python {it['versions']['python']}, "
        f"{it['cores']} CPU cores{commit}."
    )


if __name__ == "__main__":
    OUT.write_text(make_page(), encoding="utf-8")
    print(OUT.relative_to(ROOT))
