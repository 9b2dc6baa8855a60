"""What bfloat16 costs: a VAE and a small GPT trained alike but for config.precision and
config.optimizer_dtype.

    python launch.py sweep --experiment=precision --workdir=runs/precision
    python launch.py figure --experiment=precision

The first command trains in ten minutes on 2 CPU cores (--only=vae_mnist: one of the two
configs); the second draws table and figure from the committed rows.

Each is the project's config of its name, unchanged, at seed 0: the same weights (but
where they are bfloat16 themselves), noise and batches.
"""

from pathlib import Path

from aigc_jax.sweeps.experiment import Claim, Experiment

HERE = Path(__file__).resolve().parent
CASES = {
    "vae_mnist": ("neg_elbo", "negative ELBO, nats"),
    "gpt_shakespeare_cpu": ("loss", "nats a character"),
}
POLICIES = {
    "float32": {},
    "networks in bfloat16": {"precision": "bfloat16"},
    "and moments": {"precision": "bfloat16", "optimizer_dtype": "bfloat16"},
    "and parameters": {"precision": "bfloat16_all"},
}


def run(case, workdir) -> list[dict]:
    """The rows of every policy: {case, policy, step, split, value}."""
    from aigc_jax.training import config as configs
    from aigc_jax.training import config_files
    from aigc_jax.training.run_dir import RunDir
    from aigc_jax.training.train import train_configs

    rows, metric = [], CASES[case][0]
    for policy, changes in POLICIES.items():
        folder = Path(workdir, case, policy.replace(" ", "_"))
        quiet = {"run.sample_every": "never", "run.log": ()}
        train_configs(
            [
                configs.override(
                    config_files.load(HERE.parent / "configs" / f"{case}.py"), quiet | changes
                )
            ],
            [folder],
        )
        evaluated = [row for row in RunDir(folder).read_rows() if row["split"] != "train"]
        rows += [
            dict(case=case, policy=policy, step=row["step"], split=row["split"], value=row[metric])
            for row in evaluated
        ]
    return rows


def curve(rows, case, policy, split="valid"):
    """(step, value) of a policy after training began."""
    return [
        (row["step"], row["value"])
        for row in rows
        if (row["case"], row["policy"], row["split"]) == (case, policy, split) and row["step"]
    ]


def cost(rows, case, policy) -> float:
    """How much worse than float32 at the end, of its value."""
    (_, value), (_, reference) = (
        curve(rows, case, name, "test")[-1] for name in (policy, "float32")
    )
    return value / reference - 1


def table(rows) -> str:
    cases = [case for case in CASES if curve(rows, case, "float32")]
    lines = [
        "| test, at the end | "
        + " | ".join(f"`{case}`: {CASES[case][1]} | against float32" for case in cases)
        + " |",
        "|---" * (1 + 2 * len(cases)) + "|",
    ]
    for policy in POLICIES:
        cells = [
            f"{curve(rows, case, policy, 'test')[-1][1]:.3f} | "
            f"{100 * cost(rows, case, policy):+.2f} %"
            for case in cases
        ]
        lines.append(f"| {policy} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def figure(rows, axes):
    for ax, (case, (_, label)) in zip(axes, CASES.items(), strict=True):
        for policy in POLICIES:
            if points := curve(rows, case, policy):
                ax.plot(*zip(*points, strict=True), label=policy, marker=".")
        ax.set(xlabel="step", ylabel=f"{label}, valid", title=case)
        ax.grid(alpha=0.3)
    axes[0].legend(fontsize=7)


LABELS = {
    "networks in bfloat16": "networks in bfloat16",
    "and moments": "networks and moments in bfloat16",
    "and parameters": "networks, moments and parameters in bfloat16",
}
CLAIMS = tuple(
    Claim(
        what=f"`{case}`, {LABELS[policy]}: {CASES[case][1]}, % over float32",
        source="the same config in float32",
        published=0.0,
        is_baseline=True,
        values=lambda rows, case=case, policy=policy: [100 * cost(rows, case, policy)],
        tolerance=2.0,
        better="lower",
    )
    for case in CASES
    for policy in LABELS
)

EXPERIMENT = Experiment(
    claims=CLAIMS,
    run=run,
    parts=tuple(CASES),
    column="case",
    table=table,
    figure=figure,
    caption="One trial of each policy (n = 1).",
    size=(9, 3.4),
    panels=(1, len(CASES)),
)
