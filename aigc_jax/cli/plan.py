"""Estimate the memory per device and the minimum time of a training step.

The devices of the mesh need not exist: the step is compiled, but not run.
"""

import os
from argparse import ArgumentParser, Namespace

from aigc_jax.utils.errors import choose, require
from aigc_jax.utils.terminal import print_blocks


def add_arguments(parser: ArgumentParser) -> None:
    """Add the config, the number of devices, their mesh and the hardware."""
    parser.add_argument(
        "--config",
        required=True,
        metavar="FILE",
        help="a config; --config.KEY=VALUE sets a key, such as --config.run.fsdp=True",
    )
    parser.add_argument(
        "--devices",
        type=int,
        default=1,
        metavar="N",
        help="number of devices to plan for (default: 1)",
    )
    parser.add_argument(
        "--mesh",
        default="",
        metavar="AXIS:N,...",
        help="shape of the device mesh, such as data:64,model:4 (default: the config's run.mesh)",
    )
    parser.add_argument(
        "--hardware",
        default="",
        metavar="NAME,...",
        help="hardware to estimate: h100, h200, tpu_v5e, tpu_v5p, tpu_v6e (default: all)",
    )


def run(args: Namespace, overrides: dict[str, str]) -> int:  # the exit code
    """Print memory and time of a training step, compiled for simulated CPU devices;
    return exit code 0. Must be called before jax is initialized, because it sets
    XLA_FLAGS and JAX_PLATFORMS.
    """
    os.environ["JAX_PLATFORMS"] = "cpu"
    os.environ["XLA_FLAGS"] = (
        f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={args.devices}"
    )

    from aigc_jax.core.compilation_cache import enable_compilation_cache
    from aigc_jax.training import config as configs
    from aigc_jax.training import config_files, costs
    from aigc_jax.training import plan as plans

    enable_compilation_cache()
    require(args.devices > 0, f"--devices={args.devices} must be positive")
    names = args.hardware.split(",") if args.hardware else list(costs.HARDWARE)
    for name in names:
        choose(costs.HARDWARE, name, "hardware")
    config = configs.override(config_files.load(args.config), overrides)
    for part in filter(None, args.mesh.split(",")):
        axis, colon, size = part.partition(":")
        require(
            colon and size.lstrip("-").isdecimal(),
            f"--mesh={args.mesh} must be like data:64,model:4",
        )
        config = configs.override(config, {f"run.mesh.{axis}": int(size)})
    print_blocks(plans.make_plan_tables(plans.make_plan(config), names))
    return 0
