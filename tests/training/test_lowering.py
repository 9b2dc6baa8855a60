"""What runs here on CPUs also lowers for CUDA and for TPUs, which need not be there:
nothing that a step does is of one platform.
"""

import jax
import numpy as np
import pytest
from jax import export
from tiny_configs import dataset, methods_of, resolved, tiny

from aigc_jax.core import config as configs
from aigc_jax.core.mesh import make_mesh
from aigc_jax.training.programs import Programs

PLATFORMS = ("cuda", "tpu")
# name -> trials, mesh, fully sharded
LAYOUTS = {
    "single": (1, dict(data=1), False),
    "fsdp": (1, dict(data=4, model=2), True),
    "group": (4, dict(trial=2, data=2), False),
}


def lowered(config, count=1, mesh=None, platforms=PLATFORMS):
    programs = Programs(resolved(config), dataset(config), count, make_mesh(mesh or {}))
    states = jax.tree.map(
        lambda s: jax.ShapeDtypeStruct((programs.width, *s.shape[1:]), s.dtype), programs.shapes
    )
    return export.export(programs.train.jitted, platforms=platforms)(
        states, programs.arrays, np.int32(0)
    )


@pytest.mark.parametrize("way", LAYOUTS)
@methods_of("gan")
def test_every_methods_step_lowers_for_gpus_and_tpus(name, way):
    count, mesh, fsdp = LAYOUTS[way]
    exported = lowered(configs.override(tiny(name), {"run.fsdp": fsdp}), count, mesh)
    assert exported.platforms == PLATFORMS and exported.nr_devices == np.prod(list(mesh.values()))


def test_attention_in_bfloat16_lowers_for_cuda():
    exported = lowered(tiny("lm", precision="bfloat16", model__dropout=0.0), platforms=("cuda",))
    assert "bf16" in exported.mlir_module()
