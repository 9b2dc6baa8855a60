"""Speed, utilization and memory of running programs, for timings.jsonl."""

import resource
import sys
from typing import Any

import jax

from aigc_jax import methods
from aigc_jax.training import costs
from aigc_jax.training.programs import Programs


def describe_speed(programs: Programs, steps_per_second: float) -> dict[str, Any]:
    """Return examples or tokens per second, utilization where the device's peak is
    known, and peak memory in bytes.

    Args:
      programs: the programs of the trials.
      steps_per_second: of all trials together.
    """
    config, spec = programs.config, programs.dataset.spec
    is_text = programs.dataset.tokenizer is not None
    unit, each = ("tokens", spec.shape[0]) if is_text else ("examples", 1)
    size = methods.examples_per_step(config) * each
    speed: dict[str, Any] = {
        "steps_per_s": round(steps_per_second, 3),
        f"{unit}_per_s": round(steps_per_second * size),
    }
    if peak := costs.peak_flops(jax.devices()[0].device_kind, config.precision):
        flops = programs.step_flops * steps_per_second
        speed["utilization"] = round(flops / (peak * programs.mesh.size), 4)
    device = jax.local_devices()[0].memory_stats() or {}
    unit_bytes = 1 if sys.platform == "darwin" else 1024
    return speed | dict(
        host_bytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit_bytes,
        device_bytes=device.get("peak_bytes_in_use"),
    )
