"""The compiled programs of a group of trials: one for training, one for evaluation, and
one per sampler.

Each program is compiled once, ahead of its first call, and never again: a call with
other shapes raises.
"""

import functools
import itertools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from aigc_jax import methods, metrics
from aigc_jax.core import distributed, sharding, transforms
from aigc_jax.core.config import check_trials, hparam_values
from aigc_jax.core.gradients import mean_gradients
from aigc_jax.core.mesh import make_mesh
from aigc_jax.core.method import Array, Method, PyTree, TrainState
from aigc_jax.data import pipelines
from aigc_jax.data.dataset import Dataset
from aigc_jax.data.order import fixed_order
from aigc_jax.data.pipelines import Feed
from aigc_jax.methods import optimizers
from aigc_jax.training import costs
from aigc_jax.training.compilation import COMPILER, ONCE, Program, with_options
from aigc_jax.training.state_layout import StateLayout
from aigc_jax.utils.errors import choose, require

# config.run.parallel -> whether each device runs the step on its part of the examples
PARALLEL = {"jit": False, "pmap": True}


def without_opt(states: TrainState) -> TrainState:
    """Return states without optimiser states, for sampling and evaluation."""
    return states.replace(opt={})


def validate(config: ConfigDict, method: Method, mesh: Mesh, num_trials: int) -> None:
    """Raise a UserError where a method's programs cannot be built for a mesh."""
    metrics.find_metrics(config.metrics, method.samplers, config.method)
    pmap = choose(PARALLEL, config.run.parallel, "config.run.parallel")
    fsdp = config.run.fsdp and mesh.shape["data"] > 1
    require(
        not pmap
        or mesh.shape["trial"] == mesh.shape["model"] == jax.process_count() == 1
        and not fsdp,
        "config.run.parallel = 'pmap' supports only data parallelism in one process, not "
        f"config.run.mesh = {dict(mesh.shape)} with config.run.fsdp = {config.run.fsdp}",
    )
    check_trials(config, num_trials)


class Programs:
    """The compiled functions of N trials that share their static keys, on their stacked
    states [N, ...].

    Args:
      config: the config of any of the trials.
      dataset: the data set of all trials.
      num_trials: N.
      mesh: the devices, by default those of config.run.mesh.
      route: vectorization over trials, as in `core.transforms.vectorize`; by default
        "map" for one trial, which is bitwise identical to the plain loop, else "vmap".
      chunk: the number of trials at once, as in `core.transforms.vectorize`.
      capacity: maximum number of steps of a call.
      compiler: further compiler options, on every platform.
    """

    def __init__(
        self,
        config: ConfigDict,
        dataset: Dataset,
        num_trials: int,
        mesh: Mesh | None = None,
        *,
        route: str | None = None,
        chunk: int = 0,
        capacity: int = 1024,
        compiler: dict | None = None,
    ) -> None:
        self.config, self.dataset, self.num_trials = config, dataset, num_trials
        self.route, self.chunk = route or ("map" if num_trials == 1 else "vmap"), chunk
        self.mesh = make_mesh(config.run.mesh) if mesh is None else mesh
        self.layout = StateLayout(self.mesh, num_trials, config.run.fsdp)
        self._fsdp = config.run.fsdp and self.mesh.shape["data"] > 1
        self._pmap = PARALLEL.get(config.run.parallel, False)
        self.method = methods.make_method(config, dataset.spec, self._gradients())
        validate(config, self.method, self.mesh, num_trials)
        self.batch_size = config.batch_size
        self._constraints = sharding.batch_constraints(self.mesh, self.batch_size)
        self.feed = self._make_feed(capacity)
        self._options = with_options(COMPILER | self.method.compiler, compiler or {})
        self._key: np.ndarray | None = None
        self._init_program = Program(jax.jit(self._init), ONCE)
        # Shapes of states without padding, as in a checkpoint.
        self.shapes = self._init_program.jitted.eval_shape(
            np.zeros(num_trials, np.uint32), self._stack_hparams([config] * num_trials)
        )
        # Checked on the parameters of the trained networks alone.
        optimizers.check_frozen(config, {n: self.shapes.params[n] for n in self.shapes.opt})
        self.training = self._build_training()
        self._evaluation = self._build_evaluation()
        self._sampling = {
            what: self._build(
                transforms.sample_batch(sampler, self.feed.take, self._constraints[0])
            )
            for what, sampler in self.method.samplers.items()
        }

    def _make_feed(self, capacity: int) -> Feed:
        """Return the feed that supplies the programs with batches."""
        config = self.config
        return choose(pipelines.FEEDS, config.run.data_placement, "config.run.data_placement")(
            self.dataset,
            config.data,
            methods.examples_per_step(config),
            self.batch_size,
            self.mesh,
            capacity,
            None if self._pmap else self._constraints,
        )

    def _gradients(self) -> Callable:
        """Return the function that computes gradients of the method's losses."""
        gradients = functools.partial(
            mean_gradients, grad_accumulation_steps=self.config.grad_accumulation_steps
        )
        if self._fsdp:
            gradients = functools.partial(
                gradients, constrain=sharding.reduce_scatter_grads(self.mesh)
            )
        return gradients

    def step(self, state: TrainState, arrays: PyTree) -> tuple[TrainState, dict[str, Array]]:
        """Run one step of one trial, on a batch from the feed's arrays."""
        step = self.method.step
        if self._fsdp:
            step = sharding.all_gather_params(step, self.mesh, new=True)
        return transforms.feed_batches(step, self.feed.source)(state, arrays)

    def _build_training(self) -> Program:
        """Return the program of n steps of all trials; the states are donated."""
        f = transforms.repeat_steps(self.step, self.feed.capacity)
        if not self._pmap:
            f = sharding.with_axis_rules(f, self.mesh, self.config.run.sequence_parallel)
        f = transforms.vectorize(f, self.route, self.chunk)
        if self._pmap:
            f = transforms.per_device(f, self.mesh)
        specs = self.layout.specs(self.shapes)
        jitted = transforms.shard(f, self.mesh, specs, self.feed.sharding, 1, donate=True)
        return Program(jitted, self._options)

    def _build_evaluation(self) -> Program:
        """Return the program of the evaluation's sums over batches of a split."""
        return self._build(
            transforms.evaluate_batches(
                self.method.evaluate, self.feed.take, self.batch_size, self._constraints[0]
            )
        )

    def _build(self, f: Callable) -> Program:
        """Return the program of f(state, arrays, ...) for all trials, where f has four
        further arguments.
        """
        if self._fsdp:
            f = sharding.all_gather_params(f, self.mesh)
        f = transforms.vectorize(
            sharding.with_axis_rules(f, self.mesh, self.config.run.sequence_parallel),
            self.route,
            self.chunk,
        )
        specs = self.layout.specs(without_opt(self.shapes))
        return Program(transforms.shard(f, self.mesh, specs, self.feed.sharding, 4), self._options)

    def _init(self, seeds: Array, hp: dict[str, Array]) -> TrainState:
        return jax.vmap(lambda seed, hp: self.method.init(jax.random.key(seed), hp))(seeds, hp)

    def _stack_hparams(self, configs: Sequence[ConfigDict]) -> dict[str, np.ndarray]:
        dtype = jnp.float64 if self.config.precision == "float64" else jnp.float32
        values = [hparam_values(c) for c in configs]
        return {name: np.array([v[name] for v in values], dtype) for name in values[0]}

    # -- states

    def init(self, configs: Sequence[ConfigDict]) -> TrainState:
        """Return the states of trials before their first step, of one config per trial;
        configs may differ in `seed` and `hp`.
        """
        seeds = np.array([c.seed for c in configs], np.uint32)
        return self.to_mesh(self._init_program(seeds, self._stack_hparams(configs)))

    def share_init(self, other: "Programs") -> None:
        """Share the initialization program of other Programs of the same trials."""
        self._init_program = other._init_program

    def to_mesh(self, states: TrainState) -> TrainState:
        """Pad states [N, ...], with optimiser states or without, and store them on the
        mesh.
        """
        self._key = None  # `train` reads the key of these states once
        return self.layout.to_mesh(states)

    # -- compilation

    def compile_training(self) -> None:
        """Begin to compile the training program in a thread."""
        states = self.layout.padded_shapes(self.shapes)
        self.training.begin(states, self.feed.training, np.int32(0))

    def compile(self) -> None:
        """Begin to compile the programs that training needs, in concurrent threads."""
        self.compile_training()
        states = without_opt(self.layout.padded_shapes(self.shapes))
        self._evaluation.begin(states, self.feed.evaluating, *(np.int32(0),) * 4)
        rows = np.zeros(self.batch_size, np.int32)
        next(iter(self._sampling.values())).begin(
            states, self.feed.drawing, np.uint32(0), rows, rows, rows
        )

    @functools.cached_property
    def flops(self) -> int:
        """Floating-point operations of a training step of all trials."""
        one = jax.tree.map(lambda s: jax.ShapeDtypeStruct(s.shape[1:], s.dtype), self.shapes)
        return self.num_trials * costs.count_flops(
            jax.make_jaxpr(self.step)(one, self.feed.training).jaxpr
        )

    # -- calls

    def most_steps(self, step: int) -> int:
        """Return the maximum number of steps of one call of `train` after `step`."""
        return self.feed.most(step)

    def train(
        self, states: TrainState, step: int, n: int
    ) -> tuple[TrainState, dict]:  # -> states, {name: [N, capacity]}
        """Train states that have done `step` steps for n more, at most
        `most_steps(step)`. The states are donated; row i of the metrics is that of the
        i-th of these steps.
        """
        if self._key is None:  # read once: later states are results of running programs
            self._key = distributed.to_host(jax.random.key_data(states.key))[0]
        return self.training(states, self.feed.steps(self._key, step), np.int32(n))

    def evaluate_batches(self, states: TrainState, split: str) -> PyTree:  # -> [N, ...]
        """Return the sums of the method's `evaluate` over a split, on the host."""
        start, count = self.dataset.splits[split]
        part = lambda first, last, arrays: distributed.to_host(
            self._evaluation(
                without_opt(states), arrays, *map(np.int32, (start, count, first, last))
            )
        )
        return functools.reduce(
            lambda a, b: jax.tree.map(np.add, a, b),
            itertools.starmap(part, self.feed.split(start, count)),
        )

    def draw(
        self,
        states: TrainState,
        what: str,
        num: int,
        split: str = "train",
        seed: int = 0,
        *,
        each: int = 1,
        first: int = 0,
        labels: np.ndarray | None = None,
    ) -> np.ndarray:  # -> [N, num, ...]
        """Return samples of every trial. Sample i does not depend on the number drawn.

        Args:
          states: the stacked states.
          what: name of the sampler.
          num: number of samples.
          split: split of the examples that condition the samples, in `fixed_order`.
          seed: the user's seed.
          each: stride of the indices of the samples that are drawn.
          first: index of the first of them.
          labels: [num] classes, by default the index modulo the number of classes.
        """
        program = choose(self._sampling, what, "what")
        start, count = self.dataset.splits[split]
        parts = []
        for done in range(0, num, self.batch_size):
            place = np.arange(done, done + self.batch_size, dtype=np.int32)
            index = first + each * place
            label = index % max(self.num_classes, 1)
            if labels is not None:
                label = labels[np.minimum(place, num - 1)].astype(np.int32)
            rows = (start + fixed_order(index, count)).astype(np.int32)
            inputs = (self.feed.rows(rows), np.uint32(seed), rows, index, label)
            parts.append(distributed.to_host(program(without_opt(states), *inputs)))
        return np.concatenate(parts, axis=1)[: self.num_trials, :num]

    @property
    def num_classes(self) -> int:
        """Number of classes of the sampler "prior"; 0 where it is not conditional."""
        prior = self.method.samplers.get("prior")
        return prior.classes if prior else 0

    def class_labels(self, split: str, num: int) -> np.ndarray | None:  # -> [num]
        """Return the classes of the split's examples in `fixed_order`, which have the
        class frequencies of the split. None where the sampler "prior" has no classes.
        """
        if not self.num_classes:
            return None
        start, count = self.dataset.splits[split]
        rows = start + fixed_order(np.arange(num), count)
        return np.asarray(self.dataset.take(self.dataset.arrays, rows)["label"])
