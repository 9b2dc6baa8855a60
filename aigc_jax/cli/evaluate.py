"""Evaluate a run's checkpoint on a split.

Prints a table of the metrics with their definitions, and appends a line to
WORKDIR/evaluations.jsonl.
"""

from argparse import ArgumentParser, Namespace

from aigc_jax.utils.errors import require
from aigc_jax.utils.terminal import print_table, print_text, print_warning


def add_arguments(parser: ArgumentParser) -> None:
    """Add the run, its checkpoint, the split and the metrics."""
    parser.add_argument("--workdir", required=True, metavar="DIR", help="a run")
    parser.add_argument(
        "--checkpoint",
        default="latest",
        metavar="latest|best",
        help="the checkpoint to evaluate (default: latest)",
    )
    parser.add_argument(
        "--split", default="test", metavar="train|valid|test", help="the split (default: test)"
    )
    parser.add_argument(
        "--num",
        type=int,
        metavar="N",
        help="number of samples that the metrics draw (default: config.num_metric_samples)",
    )
    parser.add_argument(
        "--metrics",
        default="",
        metavar="NAME,...",
        help="metrics to compute instead of config.metrics, such as nll or frechet,kid,prdc",
    )
    parser.add_argument(
        "--inception",
        default="",
        metavar="FILE",
        help="extract image features by Inception with these weights, instead of config.extractor",
    )


def run(args: Namespace, overrides: dict[str, str]) -> int:  # the exit code
    """Print the metrics of the checkpoint with their definitions, and append them to
    the run's evaluations.jsonl; return exit code 0.
    """
    from aigc_jax.training.memory import convert_inference_errors

    with convert_inference_errors(args.workdir, "a smaller --num"):
        evaluate_and_print(args)
    return 0


def evaluate_and_print(args: Namespace) -> None:
    """Evaluate the checkpoint; print the metrics and append them to the run's
    evaluations.jsonl.
    """
    from aigc_jax import metrics
    from aigc_jax.inference.load import load
    from aigc_jax.utils import documents
    from aigc_jax.utils.documents import json_float
    from aigc_jax.utils.text_table import Table

    run = load(args.workdir, args.checkpoint)
    require(args.num is None or args.num > 1, f"--num={args.num} must be at least 2")
    names = args.metrics.split(",") if args.metrics else list(run.config.metrics)
    values = run.evaluate(args.split, args.num, names, args.inception)
    print_table(Table((f"step {run.step:,}", args.split), list(values.items())))
    row = dict(
        step=run.step,
        split=args.split,
        checkpoint=args.checkpoint,
        num=args.num or run.config.num_metric_samples,
    )
    extractor = run.make_extractor() if set(names) & set(metrics.EXTRACTED) else None
    for name in names:
        examples = run.full_programs.dataset.splits[args.split][1]
        signature = run.metric_signatures.get(f"{name}_signature", "")
        print_text(
            metrics.describe_metric(name, row["num"], examples, args.split, extractor, signature)
        )
    row |= run.metric_signatures
    if extractor is not None:
        row |= dict(extractor=extractor.name, extractor_sha256=extractor.sha256)
    try:
        documents.append_line(
            run.dir / "evaluations.jsonl", row | {k: json_float(v) for k, v in values.items()}
        )
    except OSError as e:  # a directory that is mounted read-only
        print_warning(
            f"{run.dir / 'evaluations.jsonl'} could not be written ({e.strerror or e}): "
            "these results are not stored"
        )
