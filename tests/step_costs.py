"""What a training step of the cases of benchmarks/ costs, as XLA counts it without
running it, and how many programs a method compiles: no clock. `test_step_costs.py`
compares the counts with those that

    python tests/step_costs.py [CASE ...]

writes into fixtures/step_costs.json, all or those of the cases named, with the version
of jaxlib that they belong to.
"""

import json
import os
import re
import sys
from pathlib import Path

if __name__ == "__main__":  # the flags of tests/conftest.py
    from helpers import QUICK

    os.environ["XLA_FLAGS"] = f"--xla_force_host_platform_device_count=8 {QUICK}"

import jax
import jaxlib
import numpy as np
from tiny_configs import METHODS, dataset, resolved, tiny

from aigc_jax import methods
from aigc_jax.data import dataset as datasets
from aigc_jax.data import windows
from aigc_jax.training import config as configs
from aigc_jax.training import config_files
from aigc_jax.training.compilation import COMPILER
from aigc_jax.training.programs import Programs

TESTS = Path(__file__).resolve().parent
RECORDED = TESTS / "fixtures" / "step_costs.json"
CONFIGS = TESTS.parent / "configs"
ROWS = 512  # examples of a data set of noise: their number does not change a step

DCGAN = {"model.d.channels": (64, 128), "model.g.dense": (), "model.d.dense": ()}
DCGAN_64 = {
    "model.g.channels": (256, 128, 64),
    "model.g.width": None,
    "model.d.channels": (64, 128, 256),
    "batch_size": 64,
}
PLAIN = {"model.g.norm": "none", "model.d.norm": "none"}
BATCH = {"model.g.norm": "batch", "model.d.norm": "batch"}
ONE = {"metrics": (), "best_metric": "", "steps": 1000, "run.mesh.data": 1}
# name -> config, what is set in it, and the shape of an image or the size of the
# vocabulary
CASES = {
    "dcgan_28": ("dcgan_mnist", DCGAN | PLAIN, (28, 28, 1)),
    "dcgan_28_batch_norm": ("dcgan_mnist", DCGAN | BATCH, (28, 28, 1)),
    "dcgan_64": ("dcgan_mnist", DCGAN | DCGAN_64 | PLAIN, (64, 64, 3)),
    "dcgan_64_batch_norm": ("dcgan_mnist", DCGAN | DCGAN_64 | BATCH, (64, 64, 3)),
    "dcgan_128": ("dcgan_folder", PLAIN, (128, 128, 3)),
    "dcgan_128_batch_norm": ("dcgan_folder", BATCH, (128, 128, 3)),
    "gan_mlp": ("gan_mlp_mnist", {}, (28, 28, 1)),
    "gan_resnet": ("sngan_hinge_cifar10", {"critic_steps": 1}, (32, 32, 3)),
    "vae": ("vae_mnist", {}, (28, 28, 1)),
    "vae_conv": ("vae_conv_fashion", {}, (28, 28, 1)),
    "vqvae": ("vqvae_mnist", {}, (28, 28, 1)),
    "gpt": ("gpt_shakespeare_cpu", {}, 65),
    "lstm": ("lstm_text", {}, 10_000),
}


def noise(config, size):
    """A data set without content: images of this shape, or text of this vocabulary."""
    if isinstance(size, int):
        length = config.data.length
        return windows.make_placeholder_dataset(size, length, ROWS)
    levels = 1 if config.data.name == "binarized_mnist" else 255
    images = lambda n: dict(x=np.zeros((n, *size), np.uint8))
    return datasets.make_image_dataset(
        dict(train=images(ROWS), valid=images(ROWS), test=images(ROWS)), levels, {}
    )


def programs_of(case):
    """The programs of one trial of a case."""
    name, overrides, size = CASES[case]
    config = configs.override(config_files.load(CONFIGS / f"{name}.py"), overrides)
    config = configs.override(config, ONE)
    data = noise(config, size)
    config = configs.resolve_durations(config, data.spec.n_train, methods.examples_per_step(config))
    return Programs(config, data, 1)


def count_costs(compiled):
    """{name: count} of an executable; a loop counts once."""
    costs, text = compiled.cost_analysis(), compiled.as_text()
    operations = {
        f"{name}s": len(re.findall(rf" {name}\(", text)) for name in ("fusion", "convolution")
    }
    return dict(flops=int(costs["flops"]), bytes=int(costs["bytes accessed"])) | operations


def compile_loop(programs):
    """The executable of the training loop."""
    programs.start_compiling_training()
    return programs.training.wait_for_executable()


def compile_step(programs):
    """The executable of one step of all trials, without the loop."""
    states, feed = programs.shapes, programs.feed.training
    if programs.num_trials == 1:
        one = jax.tree.map(lambda s: jax.ShapeDtypeStruct(s.shape[1:], s.dtype), states)
        step = jax.jit(programs.step_trial, donate_argnums=0).lower(one, feed)
    else:
        every = jax.vmap(programs.step_trial, in_axes=(0, None))
        step = jax.jit(every, donate_argnums=0).lower(states, feed)
    return step.compile(compiler_options=COMPILER["cpu"])


def count_compilations(method):
    """The number of programs that XLA compiles to initialize a tiny trial of a method,
    to train it by calls of two lengths, to evaluate it and to draw samples.
    """
    config, count = resolved(tiny(method)), 0

    def listen(event, _, **details):
        nonlocal count
        count += event == "/jax/core/compile/backend_compile_duration"

    jax.clear_caches()
    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        programs = Programs(config, dataset(config), 1)
        states, _ = programs.train(programs.init([config]), 0, 1)
        states, _ = programs.train(states, 1, 3)
        programs.evaluate_batches(states, "valid")
        programs.draw(states, next(iter(programs.method.samplers)), 4)
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
    return count


def recorded():
    """The contents of fixtures/step_costs.json."""
    return json.loads(RECORDED.read_text())


def main(names):
    old = recorded() if names else dict(cases={}, compilations={})
    cases, compilations = old["cases"], old["compilations"]
    for name in names or CASES:
        cases[name] = count_costs(compile_loop(programs_of(name)))
        print(name, cases[name], flush=True)
    for name in () if names else METHODS:
        compilations[name] = count_compilations(name)
        print(name, compilations[name], flush=True)
    cases = {name: cases[name] for name in CASES}
    both = dict(jaxlib=jaxlib.__version__, cases=cases, compilations=compilations)
    RECORDED.write_text(json.dumps(both, indent=1) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
