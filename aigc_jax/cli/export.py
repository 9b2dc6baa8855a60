"""Export a language model to a GPT-2 directory, which `transformers` loads."""

from argparse import ArgumentParser, Namespace

from aigc_jax.utils.errors import require
from aigc_jax.utils.terminal import print_text


def add_arguments(parser: ArgumentParser) -> None:
    """Add the run, its checkpoint and the directory to write."""
    parser.add_argument(
        "--workdir", required=True, metavar="DIR", help="a run of a GPT-2-compatible network"
    )
    parser.add_argument(
        "--checkpoint",
        default="latest",
        metavar="latest|best",
        help="the checkpoint to export (default: latest)",
    )
    parser.add_argument(
        "--out",
        required=True,
        metavar="DIR",
        help="the directory to write: config.json, model.safetensors, tokenizer.json",
    )


def run(args: Namespace, overrides: dict[str, str]) -> int:  # the exit code
    """Write the directory and print its path; return exit code 0.

    Raises:
      UserError: the run is not a decoder-only Transformer.
    """
    from aigc_jax.inference.load import load
    from aigc_jax.methods import lora
    from aigc_jax.training import gpt2_weights
    from aigc_jax.training.serialization import flatten_state
    from aigc_jax.utils.disk import convert_disk_errors

    run = load(args.workdir, args.checkpoint)
    require(
        run.config.method == "lm" and run.config.network == "transformer",
        f"{args.workdir} is not a run of a decoder-only Transformer and cannot be exported",
    )
    with convert_disk_errors(args.out):
        gpt2_weights.write_model_directory(
            args.out,
            run.config.model.to_dict(),
            flatten_state(lora.merge_adaptation(run.config, run.state.params)),
            run.tokenizer,
            run.end_tokens,
        )
    print_text(args.out)
    return 0
