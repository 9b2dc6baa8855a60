"""Does a GAN that can draw digits learn clothes sooner than one that can draw nothing? `init_from` against scratch.

    python launch.py train --config=configs/dcgan_mnist.py   --workdir=runs/digits
    python launch.py train --config=configs/dcgan_fashion.py --workdir=runs/scratch
    python launch.py train --config=configs/dcgan_fashion.py --workdir=runs/adapted --config.init_from=runs/digits --config.steps="400 steps"
    python experiments/fashion_from_digits.py --scratch=runs/scratch --adapted=runs/adapted

The last line takes the two runs' rows into experiments/results/fashion_from_digits/; without words it draws table and figure again
from the rows that lie there. The curve is the Fréchet distance on pixels of the averaged generator's samples to the valid split.

Answer (one seed): not at once. The adapted run is behind after 100 steps, where it has digits to forget and a discriminator that wins
easily, level after 200, and ahead after 300 and 400.
"""

import argparse
import csv
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
RESULTS = HERE / "results" / "fashion_from_digits"
RUNS = {"scratch": "from scratch", "adapted": "from dcgan_mnist"}  # name in the rows -> in words
METRIC = "frechet_pixels"


def collect(name, workdir):
    """Rows of a run's evaluations: {run, step, metrics}."""
    from aigc_jax.run import load

    return [dict(run=name, **{k: v for k, v in row.items() if k != "split"}) for row in load(workdir).rows("valid")]


def read(path=RESULTS / "rows.csv") -> list[dict]:
    number = lambda key, value: value if key == "run" else int(value) if key == "step" else float(value)
    with open(path, newline="") as f:
        return [{k: number(k, v) for k, v in row.items()} for row in csv.DictReader(f)]


def curves(rows) -> dict[str, dict[int, float]]:  # run -> {step: METRIC}
    return {name: {row["step"]: row[METRIC] for row in rows if row["run"] == name} for name in RUNS}


def table(rows) -> str:
    """Both runs where both were evaluated, and after how many steps scratch is as good."""
    scratch, adapted = curves(rows).values()
    lines = ["| step | from scratch | from dcgan_mnist | scratch is as good after |", "|---|---|---|---|"]
    for step in sorted(scratch.keys() & adapted.keys()):
        later = [s for s, value in scratch.items() if value <= adapted[step]]
        lines.append(f"| {step} | {scratch[step]:.1f} | {adapted[step]:.1f} | {min(later) if later else 'never in ' + str(max(scratch))} |")
    return "\n".join(lines) + "\n"


def figure(rows, axes):
    for name, curve in curves(rows).items():
        axes.plot(*zip(*sorted(curve.items()), strict=True), marker=".", label=RUNS[name])
    axes.set(xlabel="step", ylabel=METRIC, yscale="log", title="Fashion-MNIST, valid split")
    axes.grid(alpha=0.3)
    axes.legend()


def main():
    from matplotlib.figure import Figure

    from aigc_jax.errors import UserError

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, words in RUNS.items():
        parser.add_argument(f"--{name}", metavar="WORKDIR", help=f"the run {words}")
    given = vars(parser.parse_args())
    if any(given.values()):
        if not all(given.values()):
            parser.error("--scratch and --adapted go together")
        try:
            rows = [row for name in RUNS for row in collect(name, given[name])]
        except UserError as e:
            parser.error(str(e))
        with open(RESULTS / "rows.csv", "w", newline="") as f:
            writer = csv.DictWriter(f, rows[0].keys(), lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
        environment = Path(given["scratch"], "environment.json").read_text()
        (RESULTS / "environment.json").write_text(environment)
    rows = read()
    (RESULTS / "table.md").write_text(table(rows))
    drawing = Figure(figsize=(5, 3.2), layout="constrained", dpi=100)
    figure(rows, drawing.subplots())
    drawing.savefig(RESULTS / "figure.png")
    print(table(rows), end="")


if __name__ == "__main__":
    main()
