"""Say what a training step needs of each device, and how long it takes at least.

Of a mesh that need not exist: the step is compiled, never run.
"""

import os

from aigc_jax.core import config as configs
from aigc_jax.utils.errors import choose, require
from aigc_jax.utils.terminal import print_text


def add_arguments(parser):
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
        help="how many devices there would be (default: 1)",
    )
    parser.add_argument(
        "--mesh",
        default="",
        metavar="AXIS:N,...",
        help="how they are used, such as data:64,model:4 (default: the config's run.mesh)",
    )
    parser.add_argument(
        "--hardware",
        default="",
        metavar="NAME,...",
        help="what a step would take on: h100, h200, tpu_v5e, tpu_v5p, tpu_v6e (default: all)",
    )


def run(args, overrides) -> int:
    """Print memory and time of a training step, compiled for simulated CPU devices;
    return the exit code 0. To be called before jax starts, whose flags it sets.
    """
    os.environ["JAX_PLATFORMS"] = "cpu"
    os.environ["XLA_FLAGS"] = (
        f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={args.devices}"
    )

    from aigc_jax.training import costs
    from aigc_jax.training import plan as plans

    require(args.devices > 0, f"--devices={args.devices} must be positive")
    names = args.hardware.split(",") if args.hardware else list(costs.HARDWARE)
    for name in names:
        choose(costs.HARDWARE, name, "hardware")
    config = configs.override(configs.load(args.config), overrides)
    for part in filter(None, args.mesh.split(",")):
        axis, colon, size = part.partition(":")
        require(
            colon and size.lstrip("-").isdecimal(),
            f"--mesh={args.mesh} must be like data:64,model:4",
        )
        config = configs.override(config, {f"run.mesh.{axis}": int(size)})
    print_text(plans.report(plans.make(config), names))
    return 0
