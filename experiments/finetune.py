"""Fine-tuning against training from scratch: a small GPT of bytes, from Python's source
to Python's reference, at three budgets of steps.

    python launch.py sweep  --experiment=finetune --workdir=runs/finetune
    python launch.py figure --experiment=finetune

The first line trains; the second draws table and figure from the committed rows.

The network of `configs/gpt_shakespeare_cpu.py` is trained for 3,000 steps on the source
of the standard library, and continues on the reference (`pydoc`) for 50, 200
and 800 steps; beside it networks that begin with random weights, for as many steps and
for 4,000. Each budget has a cosine of its own. Scored: the test split.
"""

from pathlib import Path

import numpy as np

from aigc_jax.sweeps.experiment import Experiment

HERE = Path(__file__).resolve().parent
SEEDS, BUDGETS, LONG = 3, (50, 200, 800), 4000
START = {"scratch": "random weights", "tuned": "weights trained on Python's source"}


def config_of(data, steps, seed=0, **more):
    from aigc_jax.training import config as configs
    from aigc_jax.training import config_files

    overrides = {
        "data.name": data,
        "data.tokenizer": "bytes",
        "data.split": "80/10/10",
        "steps": f"{steps} steps",
        "seed": seed,
        "schedule.warmup": f"{min(100, steps // 5)} steps",
        "run.eval_every": f"{max(steps // 10, 50)} steps",
        "run.sample_every": "never",
        "run.save_every": "1000 steps",
    }
    return configs.override(
        config_files.load(HERE.parent / "configs" / "gpt_shakespeare_cpu.py"), overrides | more
    )


def run(workdir):
    """Rows {start, budget, seed, split, step, metrics}."""
    from aigc_jax.training.run_dir import RunDir
    from aigc_jax.training.train import train_configs

    workdir = Path(workdir)
    train_configs([config_of("stdlib", 3000)], [workdir / "before"])
    rows = []
    for start, budget in [
        *((start, budget) for budget in BUDGETS for start in START),
        ("scratch", LONG),
    ]:
        more = dict(init_from=str(workdir / "before")) if start == "tuned" else {}
        dirs = [workdir / f"{start}_{budget}_{seed}" for seed in range(SEEDS)]
        configs = [config_of("pydoc", budget, seed, **more) for seed in range(SEEDS)]
        train_configs(configs, dirs, group_dir=workdir / f"{start}_{budget}", route="map")
        for seed, path in enumerate(dirs):
            rows += [
                dict(start=start, budget=budget, seed=seed) | row
                for row in RunDir(path).read_rows()
                if row["split"] != "train"
            ]
    return rows


def final(rows, start, budget) -> np.ndarray:
    """Bits a byte of each seed on the test split."""
    return np.array(
        [
            r["bits_per_byte"]
            for r in rows
            if (r["start"], r["budget"], r["split"]) == (start, budget, "test")
        ]
    )


def table(rows) -> str:
    lines = [
        "| steps | random weights, bits a byte | trained on source before | difference |",
        "|---|---|---|---|",
    ]
    show = lambda values: f"{values.mean():.3f} ({', '.join(f'{v:.3f}' for v in values)})"
    for budget in BUDGETS:
        scratch, tuned = final(rows, "scratch", budget), final(rows, "tuned", budget)
        lines.append(
            f"| {budget:,} | {show(scratch)} | {show(tuned)} | {(scratch - tuned).mean():.3f} |"
        )
    return "\n".join([*lines, f"| {LONG:,} | {show(final(rows, 'scratch', LONG))} | | |"]) + "\n"


def figure(rows, axes):
    for start, colour in zip(START, ("tab:gray", "tab:blue"), strict=True):
        values = np.array([final(rows, start, budget) for budget in BUDGETS])
        axes.plot(BUDGETS, values.mean(1), marker="o", color=colour, label=START[start])
        axes.fill_between(BUDGETS, values.min(1), values.max(1), color=colour, alpha=0.2)
    steps = sorted(
        {r["step"] for r in rows if r["budget"] == LONG and r["split"] == "valid" and r["step"]}
    )
    curve = [
        np.mean(
            [
                r["bits_per_byte"]
                for r in rows
                if (r["budget"], r["split"], r["step"]) == (LONG, "valid", s)
            ]
        )
        for s in steps
    ]
    axes.plot(
        steps,
        curve,
        color="black",
        linestyle=":",
        label=f"random weights, the run of {LONG:,} steps (valid)",
    )
    axes.set(
        xlabel="steps",
        ylabel="bits a byte",
        xscale="log",
        ylim=(1.5, 5.6),
        title="Python's reference: where a network begins",
    )
    axes.grid(alpha=0.3)
    axes.legend()


EXPERIMENT = Experiment(
    run=run,
    table=table,
    figure=figure,
    caption="Bands: range of n = 3 seeds. Table: the seeds in parentheses.",
    size=(5, 3.2),
)
