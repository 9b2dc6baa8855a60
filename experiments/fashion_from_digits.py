"""Does a GAN that can draw digits learn clothes sooner than one that can draw nothing?
`init_from` against scratch.

    python launch.py train --config=dcgan_mnist   --workdir=runs/digits
    python launch.py train --config=dcgan_fashion --workdir=runs/scratch
    python launch.py train --config=dcgan_fashion --workdir=runs/both \\
        --config.init_from=runs/digits --config.steps="400 steps"
    python launch.py train --config=dcgan_fashion --workdir=runs/generator \\
        --config.init_from=runs/digits --config.steps="400 steps" \\
        --config.init_match="params/g/|extra/ema|extra/stats/g"
    python experiments/fashion_from_digits.py --scratch=runs/scratch --both=runs/both \\
        --generator=runs/generator

The last line takes the runs' rows into experiments/results/fashion_from_digits/;
without words it draws table and figure again from the committed rows. The curve is the
Fréchet distance on pixels of the averaged generator's samples to the valid split.

Answer (one seed): yes, with the generator alone: after 200 steps it is where scratch is
after 400, after 400 where scratch is after 700. With both networks it is lost: the
discriminator of digits tells clothes from digits at once and drives the generator into
the flat end of its tanh, all black, from which no gradient leads back. The first 200
steps from scratch are worse than they would be: docs/LOG.md.
"""

import argparse
from pathlib import Path

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results" / "fashion_from_digits"
SIZE = (5, 3.2)
# Name in the rows -> name in the figure.
RUNS = {
    "scratch": "from scratch",
    "both": "both networks of dcgan_mnist",
    "generator": "its generator alone",
}
METRIC = "frechet_pixels"


def collect(name, workdir):
    """Rows of a run's evaluations: {run, step, metrics}."""
    from aigc_jax.inference.run import load

    return [
        dict(run=name, **{k: v for k, v in row.items() if k != "split"})
        for row in load(workdir).rows("valid")
    ]


def curves(rows) -> dict[str, dict[int, float]]:  # run -> {step: METRIC}
    return {name: {row["step"]: row[METRIC] for row in rows if row["run"] == name} for name in RUNS}


def table(rows) -> str:
    """The runs where all were evaluated, and after how many steps scratch is as good as
    the adapted generator.
    """
    all_ = curves(rows)
    scratch, generator = all_["scratch"], all_["generator"]
    lines = [
        f"| step | {' | '.join(RUNS.values())} | scratch is as good as the last after |",
        "|---" * (len(RUNS) + 2) + "|",
    ]
    for step in sorted(set.intersection(*map(set, all_.values()))):
        later = [s for s, value in scratch.items() if value <= generator[step]]
        values = " | ".join(f"{curve[step]:.1f}" for curve in all_.values())
        lines.append(
            f"| {step} | {values} | {min(later) if later else 'never in ' + str(max(scratch))} |"
        )
    return "\n".join(lines) + "\n"


def figure(rows, axes):
    for name, curve in curves(rows).items():
        axes.plot(*zip(*sorted(curve.items()), strict=True), marker=".", label=RUNS[name])
    axes.set(xlabel="step", ylabel=METRIC, yscale="log", title="Fashion-MNIST, valid split")
    axes.grid(alpha=0.3)
    axes.legend()


def main():
    from aigc_jax.sweeps import evidence
    from aigc_jax.utils.errors import UserError

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name, words in RUNS.items():
        parser.add_argument(f"--{name}", metavar="WORKDIR", help=f"the run {words}")
    given = vars(parser.parse_args())
    if any(given.values()):
        if not all(given.values()):
            parser.error(f"{', '.join('--' + name for name in RUNS)} go together")
        try:
            rows = [row for name in RUNS for row in collect(name, given[name])]
        except UserError as e:
            parser.error(str(e))
        evidence.write_rows(RESULTS, rows, Path(given["scratch"], "environment.json"))
    rows = evidence.read_rows(RESULTS)
    evidence.render_figure(RESULTS, table(rows), lambda axes: figure(rows, axes), SIZE)


if __name__ == "__main__":
    main()
