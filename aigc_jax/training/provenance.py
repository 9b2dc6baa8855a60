"""What a run was made by: versions, devices, commit and command."""

import os
import platform
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

from aigc_jax import __version__
from aigc_jax.utils.disk import hide_paths
from aigc_jax.utils.python_files import IS_CHECKOUT, REPOSITORY
from aigc_jax.utils.subprocesses import launched_as


def environment() -> dict:
    """Versions, devices, commit and command: no host name, no absolute path."""
    import jax

    names = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "ml-collections", "numpy")
    devices = jax.devices()
    script = ["python", hide_paths(str(Path(sys.argv[0]).resolve()), REPOSITORY)]

    def git(*words):
        done = subprocess.run(
            ["git", "-C", str(REPOSITORY), *words], capture_output=True, text=True, check=False
        )
        return done.stdout.strip() if done.returncode == 0 else ""

    try:
        commit = (
            git("rev-parse", "HEAD") + ("+changes" if git("status", "--porcelain") else "")
            if IS_CHECKOUT
            else ""
        )
    except OSError:  # no git
        commit = ""
    return dict(
        versions=dict(aigc_jax=__version__)
        | {name: version(name) for name in names}
        | dict(python=platform.python_version()),
        platform=f"{platform.system()} {platform.machine()}",
        devices=[f"{len(devices)} x {devices[0].platform} {devices[0].device_kind}"],
        cores=os.cpu_count(),
        commit=commit,
        command=[
            *(launched_as() or script),
            *(hide_paths(word, REPOSITORY) for word in sys.argv[1:]),
        ],
    )
