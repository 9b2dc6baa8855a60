"""Resource plan of a training step per device of a mesh, which need not exist: the step
is compiled for simulated devices and never run.
"""

import math
from collections.abc import Iterable
from typing import NamedTuple

import jax
from jax.sharding import NamedSharding
from ml_collections import ConfigDict

from aigc_jax import methods
from aigc_jax.core.trees import format_key_path
from aigc_jax.data import load
from aigc_jax.data.dataset import Dataset
from aigc_jax.data.windows import make_placeholder_dataset
from aigc_jax.training import config as configs
from aigc_jax.training import costs
from aigc_jax.training.programs import Programs
from aigc_jax.utils.quantities import format_count, format_si, format_size
from aigc_jax.utils.text_table import Table

# Only the program's memory statistics are used; its machine code never runs.
QUICK = {"xla_backend_optimization_level": 0}


class Plan(NamedTuple):
    """Bytes and operations of one step, per device."""

    mesh: dict[str, int]
    parameters: int  # of the full model, as a count
    params: int
    opt: int  # moments
    rest: int  # averages, carried states, keys
    temporary: int  # gradients, activations, gathered parameters
    peak: int
    data: int | None  # None: the data set was not read
    flops: int
    collective_bytes: dict[str, float]
    precision: str

    def step_seconds(
        self, hardware: costs.Hardware
    ) -> tuple[float, float, float]:  # by products, memory, network
        """Return the seconds of a step by matrix products, by memory traffic (the state
        read and written, temporaries written and read, each once) and by communication.
        The longest is a lower bound of the step's duration, not attained in practice
        (roofline model, Williams et al. 2009); an unknown peak gives no bound.
        """
        peak = hardware.peak_flops(self.precision)
        memory_bytes = 2 * (self.params + self.opt + self.rest + self.temporary)
        return (
            self.flops / peak if peak else 0.0,
            memory_bytes / hardware.bandwidth,
            sum(self.collective_bytes.values()) / hardware.network,
        )


def load_one_row_data(
    config: ConfigDict,
) -> tuple[Dataset, int | None]:  # one row per array; bytes of the full data
    """Return the config's data set with one row per array, and the bytes of the full
    data set on a device: 0 where batches come from the host, None for text whose
    vocabulary size the config specifies, which is not read.
    """
    if config.method in ("lm", "mlm") and config.data.vocabulary:
        dataset, size = (
            make_placeholder_dataset(
                config.data.vocabulary, config.data.length, methods.examples_per_step(config)
            ),
            None,
        )
    else:
        dataset = load(config.data, config.run.data_dir)
        size = (
            sum(x.nbytes for x in dataset.arrays.values())
            if config.run.data_placement == "device"
            else 0
        )
    return dataset._replace(arrays={name: x[:1] for name, x in dataset.arrays.items()}), size


def resolve_for_plan(
    config: ConfigDict, dataset: Dataset
) -> ConfigDict:  # with 10^6 steps and without metrics
    """Return the config with enough steps for any schedule, and without metrics."""
    changes = {"steps": 10**6, "metrics": (), "best_metric": ""}
    return configs.resolve_durations(
        configs.override(config, changes),
        dataset.spec.n_train,
        methods.examples_per_step(config),
    )


def make_plan(config: ConfigDict) -> Plan:  # compiles the step and does not run it
    """Return the plan of a config's training step on JAX's devices, in the config's
    mesh.
    """
    configs.validate_config(config)
    dataset, size = load_one_row_data(config)
    config = resolve_for_plan(config, dataset)
    programs = Programs(config, dataset, 1, compiler=QUICK)
    memory = measure_memory(programs)
    compiled = programs.training.wait_for_executable()
    return Plan(
        mesh=dict(programs.mesh.shape),
        parameters=sum(x.size for x in jax.tree.leaves(programs.shapes.params)),
        **memory,
        data=size,
        flops=programs.step_flops // programs.mesh.size,
        collective_bytes=dict(costs.count_collective_bytes(compiled.as_text() or "")),
        precision=config.precision,
    )


def measure_memory(programs: Programs) -> dict[str, int]:  # the fields of Plan in bytes
    """Return the bytes of a device by kind, params, opt, rest and temporary, and the
    peak of a training step of programs, which is compiled.
    """
    programs.start_compiling_training()
    memory, mesh = programs.training.memory_stats(), programs.mesh
    bytes_ = dict.fromkeys(("params", "opt", "rest"), 0)
    leaves, specs = (
        jax.tree_util.tree_leaves_with_path(programs.shapes),
        jax.tree.leaves(programs.layout.partition_specs(programs.shapes)),
    )
    for (path, leaf), spec in zip(leaves, specs, strict=True):
        kind, shard = (
            format_key_path(path).partition("/")[0],
            NamedSharding(mesh, spec).shard_shape(leaf.shape),
        )
        bytes_[kind if kind in bytes_ else "rest"] += math.prod(shard) * leaf.dtype.itemsize
    peak = (
        memory.argument_size_in_bytes
        + memory.output_size_in_bytes
        - memory.alias_size_in_bytes
        + memory.temp_size_in_bytes
    )
    return bytes_ | dict(temporary=memory.temp_size_in_bytes, peak=peak)


def make_plan_tables(plan: Plan, hardware_keys: Iterable[str]) -> list[Table | str]:
    """Return the plan as two tables: needs per device, and bounds by hardware.

    Args:
      plan: the plan.
      hardware_keys: keys of `costs.HARDWARE`, one line of the second table each.
    """
    sizes = [
        ("parameters", plan.params),
        ("optimiser state", plan.opt),
        ("averages, carried states, keys", plan.rest),
        ("activations, gradients, other temporaries", plan.temporary),
        ("peak", plan.peak),
        *([] if plan.data is None else [("data set, not in the peak", plan.data)]),
        *((f"sent by {kind}", size) for kind, size in sorted(plan.collective_bytes.items())),
    ]
    needs: list[tuple] = [(name, format_size(size)) for name, size in sizes]
    needs.append(("floating-point operations", format_si(plan.flops, "")))
    mesh = " x ".join(f"{axis} {size}" for axis, size in plan.mesh.items())
    parameters = format_count(plan.parameters, "parameter")
    bounds = []
    for name in hardware_keys:
        device = costs.HARDWARE[name]
        times = plan.step_seconds(device)
        fits = "yes" if plan.peak + (plan.data or 0) <= device.memory else "no"
        bounds.append(
            (
                device.name,
                *(format_si(t, "s") for t in (*times, max(times))),
                f"{times[0] / max(times):.0%}",
                fits,
            )
        )
    header = ("not less than", "products", "memory", "network", "a step", "utilization", "fits")
    return [Table((f"{parameters} on {mesh}", "a device, a step"), needs), Table(header, bounds)]
