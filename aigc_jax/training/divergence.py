"""The description of a run that diverged: where, after which values, and which
hyper-parameters commonly cause it.
"""

from typing import Any

from ml_collections import ConfigDict

from aigc_jax.methods.choices import REGULARIZERS
from aigc_jax.training import config as configs
from aigc_jax.utils.errors import join_names

# Hyper-parameters that commonly decide whether training diverges, the first ones most.
SUSPECTS = ("lr", "lr_g", "lr_d", "grad_clip", "beta", "sigma", "penalty", "commitment")
SHOWN = 8  # most metrics of a description


def describe_divergence(failed: dict[str, Any], config: ConfigDict) -> str:
    """Return at which step what was not finite, the last finite values, and the files
    and hyper-parameters to inspect. Files are named without their directory.

    Args:
      failed: {"step", "metric"}, and "before" with the last finite values where known.
      config: of the trial.
    """
    parts = [f"{failed['metric']} is not finite at step {failed['step']}"]
    before = dict(failed.get("before") or {})
    if before:
        step = before.pop("step")
        values = join_names([f"{name} = {value:.4g}" for name, value in before.items()], SHOWN)
        parts.append(f"the last finite values, of step {step}: {values}")
    parts.append(f"inspect rows.jsonl and {join_names(list_suspects(config))}")
    return "; ".join(parts)


def list_suspects(config: ConfigDict) -> list[str]:  # "config.hp.lr = 0.1"
    """Return the hyper-parameters of a config that commonly make training diverge, with
    their values, and the optimizer where it cannot clip gradients.
    """
    values = configs.resolve_hparams(config)
    names = [name for name in (*SUSPECTS, *REGULARIZERS) if name in values]
    suspects = [f"config.hp.{name} = {values[name]:g}" for name in names]
    if values.get("grad_clip") == 0:
        place = names.index("grad_clip")
        suspects[place] += " (above 0 clips gradients)"
    if "grad_clip" not in values:
        suspects.append(f"config.optimizer = {config.optimizer!r} ('adamw' has hp.grad_clip)")
    return suspects
