"""Costs of a program: floating-point operations counted in its jaxpr, and bytes sent
between devices read from the compiled HLO; and data-sheet figures of hardware.
"""

import math
import re
from collections import Counter
from typing import Any, NamedTuple

from jax.extend.core import Jaxpr, jaxprs_in_params


def count_flops(jaxpr: Jaxpr) -> int:  # of matrix products and convolutions alone
    """Return the floating-point operations of a jaxpr's matrix products and
    convolutions: 2 m n k, where a multiplication and an addition count as two.

    A loop counts its body once per iteration (XLA's own count includes the body once),
    or once if its length is unknown; a conditional counts its most expensive branch.
    """
    return sum(map(_flops, jaxpr.eqns))


def _flops(eqn: Any) -> int:
    name, params = eqn.primitive.name, eqn.params
    if name == "dot_general":
        (contracted, _), _ = params["dimension_numbers"]
        return (
            2
            * math.prod(eqn.outvars[0].aval.shape)
            * math.prod(eqn.invars[0].aval.shape[i] for i in contracted)
        )
    if name == "conv_general_dilated":
        kernel = eqn.invars[1].aval.shape
        each = math.prod(kernel[i] for i in params["dimension_numbers"].rhs_spec[1:])
        # In a dilated input, as in gradients of strided convolutions, one value in
        # prod(lhs_dilation) is not a zero of the dilation.
        return 2 * math.prod(eqn.outvars[0].aval.shape) * each // math.prod(params["lhs_dilation"])
    inside = [count_flops(inner) for inner in jaxprs_in_params(params)]
    if name == "cond":
        return max(inside)
    return sum(inside) * (params["length"] if name == "scan" else 1)


BYTES = dict(
    pred=1, s8=1, u8=1, bf16=2, f16=2, s16=2, u16=2, f32=4, s32=4, u32=4, f64=8, s64=8, u64=8
)
# Bytes that each device sends by the ring algorithm in a group of n devices: kind ->
# (bytes of the result, n) -> bytes.
KINDS = {
    "all-reduce": lambda size, n: 2 * size * (n - 1) / n,
    "all-gather": lambda size, n: size * (n - 1) / n,
    "reduce-scatter": lambda size, n: size * (n - 1),
    "all-to-all": lambda size, n: size * (n - 1) / n,
    "collective-permute": lambda size, n: size,
}
OPERATION = re.compile(rf"= (.*?) ({'|'.join(KINDS)})(?:-start)?\(")
CALLED = re.compile(r"(?:to_apply|calls|body|true_computation|false_computation)=%?([\w.\-]+)")


def count_collective_bytes(hlo_text: str) -> Counter[str]:  # {kind: bytes sent per device}
    """Return {kind: bytes that each device sends} of a compiled program's HLO text. A
    loop counts its body once per iteration if XLA knows the trip count, else once: of
    `core.transforms.repeat_steps`, one step.

    Args:
      hlo_text: the text of `jax.stages.Compiled.as_text`.
    """
    computations: dict[str, list[str]] = {}
    entry: str | None = None
    lines: list[str] = []
    for line in hlo_text.splitlines():
        begins = line.endswith("{") and not line.startswith((" ", "HloModule"))
        if begins and (found := re.match(r"(ENTRY )?%?([\w.\-]+)", line)):
            lines = computations[found[2]] = []
            entry = found[2] if found[1] else entry
        else:
            lines.append(line)
    done: dict[str | None, Counter] = {}

    def total(name: str | None) -> Counter:
        if name not in done:
            done[name] = Counter()
            for line in computations.get(name or "", ()):
                if operation := OPERATION.search(line):
                    done[name][operation[2]] += KINDS[operation[2]](
                        _size(operation[1]), _group(line)
                    )
                trips = re.search(r"known_trip_count[^\d]*(\d+)", line)
                times = int(trips[1]) if trips else 1
                called = [total(other) for other in CALLED.findall(line)]
                for kind, size in (item for counter in called for item in counter.items()):
                    done[name][kind] += size * times
        return done[name]

    return total(entry)


def _size(shapes: str) -> int:
    """Return the bytes of a shape 'f32[8,1024]{1,0}' or of a tuple of shapes."""
    return sum(
        BYTES.get(kind, 4) * math.prod(map(int, filter(None, shape.split(","))))
        for kind, shape in re.findall(r"(\w+)\[([\d,]*)\]", shapes)
    )


def _group(line: str) -> int:
    """Return the group size of replica_groups={{0,1},{2,3}} or [2,4]<=[8]."""
    if match := re.search(r"replica_groups=\[\d+,(\d+)\]", line):
        return int(match[1])
    match = re.search(r"replica_groups=\{\{([\d,]*)\}", line)
    return len(match[1].split(",")) if match else 2


class Hardware(NamedTuple):
    """One device: operations per second in matrix products (0: unknown), bytes of
    memory, bytes per second from memory and to other devices (one way).
    """

    name: str
    bfloat16: float
    float32: float
    float64: float
    memory: float
    bandwidth: float
    network: float

    def peak_flops(self, precision: str) -> float:
        """Return the operations per second in matrix products for config.precision."""
        return getattr(self, precision.removesuffix("_all"))


# NVIDIA's data sheets (dense, SXM; float32 as TF32, which is JAX's default; NVLink one
# way); Google's pages of Cloud TPU versions (float32 in passes of bfloat16, which is
# JAX's default; interconnect as stated per chip). TPUs emulate float64.
HARDWARE = {
    "h100": Hardware("NVIDIA H100 SXM", 989.4e12, 494.7e12, 66.9e12, 80e9, 3.35e12, 450e9),
    "h200": Hardware("NVIDIA H200 SXM", 989.4e12, 494.7e12, 66.9e12, 141e9, 4.8e12, 450e9),
    "tpu_v5e": Hardware("TPU v5e", 197e12, 197e12, 0.0, 16e9, 0.8e12, 200e9),
    "tpu_v5p": Hardware("TPU v5p", 459e12, 459e12, 0.0, 95e9, 2.765e12, 600e9),
    "tpu_v6e": Hardware("TPU v6e", 918e12, 918e12, 0.0, 32e9, 1.6e12, 400e9),
}
# The device_kind of JAX devices -> their key in HARDWARE.
_KNOWN = {
    "NVIDIA H100 80GB HBM3": "h100",
    "NVIDIA H200": "h200",
    "TPU v5 lite": "tpu_v5e",
    "TPU v5": "tpu_v5p",
    "TPU v6 lite": "tpu_v6e",
}


def peak_flops(device_kind: str, precision: str) -> float:  # a second; 0: unknown
    """Return the peak operations per second in matrix products; 0 where unknown.

    Args:
      device_kind: as in `jax.Device.device_kind`.
      precision: config.precision.
    """
    device = HARDWARE.get(_KNOWN.get(device_kind, ""))
    return 0.0 if device is None else device.peak_flops(precision)
