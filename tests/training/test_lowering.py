"""Training steps also lower for CUDA and TPU: no operation is specific to a platform.
Lowering requires no such device.
"""

import numpy as np
import pytest
from jax import export
from tiny_configs import dataset, methods_of, resolved, tiny

from aigc_jax.core.mesh import make_mesh
from aigc_jax.training import config as configs
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
    states = programs.layout.padded_shapes(programs.shapes)
    return export.export(programs.training.jitted, platforms=platforms)(
        states, programs.feed.training, np.int32(0)
    )


@pytest.mark.parametrize("way", LAYOUTS)
@methods_of("gan")
def test_training_step_lowers_for_cuda_and_tpu(name, way):
    count, mesh, fsdp = LAYOUTS[way]
    exported = lowered(configs.override(tiny(name), {"run.fsdp": fsdp}), count, mesh)
    assert exported.platforms == PLATFORMS and exported.nr_devices == np.prod(list(mesh.values()))


def test_bfloat16_attention_lowers_for_cuda():
    exported = lowered(tiny("lm", precision="bfloat16", model__dropout=0.0), platforms=("cuda",))
    assert "bf16" in exported.mlir_module()
