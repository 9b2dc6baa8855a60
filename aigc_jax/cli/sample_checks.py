"""Checks of the flags of `sample` for a run's samplers."""

from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from aigc_jax.utils.errors import choose, require

if TYPE_CHECKING:
    from aigc_jax.inference.run import Run


def check_drawable(run: "Run", args: Namespace, out: Path) -> None:
    """Raise a UserError unless samples of `args.what` can be written to `out`."""
    from aigc_jax.media import images

    require(
        out.suffix not in (".txt", ".mid"),
        f"--out={args.out} is for text, but config.method = {run.config.method!r} generates none",
    )
    samplers = run.programs.method.samplers
    of_prior = ("neighbours", "separability") if "prior" in samplers else ()
    require(
        args.what != "manifold" or "manifold" in samplers or "traversal" not in samplers,
        "--what=manifold needs two latents, config.latent_dims = (2,), and the run has "
        f"{run.config.get('latent_dims')}",
    )
    choose(dict.fromkeys((*samplers, *of_prior)), args.what, "what")
    check_split_is_read(run, args, of_prior)
    check_settings(args, list(samplers))
    require(
        not args.inception or args.what == "separability",
        f"--inception applies to --what=separability, not to {args.what}",
    )
    if args.what in samplers and not samplers[args.what].figure and out.suffix != ".npy":
        shape = run.sample_shape(args.what)
        require(
            images.is_drawable(shape, run.spec),
            f"--what={args.what} draws arrays {list(shape)}, which cannot be drawn as "
            f"{run.spec.kind} {list(run.spec.shape)}: it writes .npy files alone, by "
            f"--out={args.what}.npy",
        )
    require(
        args.what != "separability" or run.spec.kind == "image",
        f"--what=separability is for images, and the run's data are {run.spec.kind}",
    )


def check_settings(args: Namespace, samplers: list[str]) -> None:
    """Raise a UserError unless at most one of --latent, --input and --split is set,
    the first two with one of the `samplers`.
    """
    flags = [f"--{flag}" for flag in ("latent", "input", "split") if getattr(args, flag)]
    require(len(flags) < 2, f"{' and '.join(flags)} are mutually exclusive: set one")
    require(
        args.what in samplers or not (args.latent or args.input),
        f"{''.join(flags)} applies to --what={', '.join(samplers)}, not to {args.what}",
    )


def check_split_is_read(run: "Run", args: Namespace, views: tuple[str, ...] = ()) -> None:
    """Raise a UserError for --split with a sampler that uses no examples; the
    `views` of samples use some.
    """
    samplers = run.programs.method.samplers
    what = args.what or run.default_sampler
    readers = [*(name for name in samplers if samplers[name].conditioned), *views]
    require(
        args.split is None or what in readers,
        f"--split={args.split} is not read by --what={what}, only by "
        f"{', '.join(readers) or 'no sampler'} of this run",
    )
