"""The compiled programs of a group of trials: one for training, one for evaluation, and
one per sampler.

Each program is compiled once, ahead of its first call, and never again: a call with
other shapes raises.
"""

import functools
import itertools
import time
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from aigc_jax import methods, metrics
from aigc_jax.core import distributed, sharding, transforms
from aigc_jax.core.gradients import mean_gradients
from aigc_jax.core.mesh import make_mesh
from aigc_jax.core.method import Array, Method, PyTree, Sampler, TrainState
from aigc_jax.data import pipelines
from aigc_jax.data.dataset import Dataset
from aigc_jax.data.order import permute_fixed
from aigc_jax.data.pipelines import Feed
from aigc_jax.methods import optimizers
from aigc_jax.training import costs
from aigc_jax.training.compilation import COMPILER, ONCE, Program, with_extra_options
from aigc_jax.training.config import check_trials_per_program, resolve_hparams
from aigc_jax.training.state_layout import StateLayout
from aigc_jax.utils.errors import choose, require

# config.run.parallel -> whether each device runs the step on its part of the examples
PARALLEL = {"jit": False, "pmap": True}


def drop_opt_states(states: TrainState) -> TrainState:  # opt={}
    """Return states without optimiser states, for sampling and evaluation."""
    return states.replace(opt={})


def copy_states(states: TrainState) -> TrainState:
    """Return a copy on the same devices, which remains when the states are donated."""
    shardings = jax.tree.map(lambda x: x.sharding, states)
    return jax.jit(lambda tree: jax.tree.map(jnp.copy, tree), out_shardings=shardings)(states)


def validate_programs(config: ConfigDict, method: Method, mesh: Mesh, num_trials: int) -> None:
    """Raise a UserError where a method's programs cannot be built for a mesh.

    Args:
      config: the config of any of the trials.
      method: its method, whose samplers the metrics need.
      mesh: mesh with the axes trial, data and model.
      num_trials: number of trials of the programs.
    """
    metrics.select_metrics(config.metrics, method.samplers, config.method)
    pmap = choose(PARALLEL, config.run.parallel, "config.run.parallel")
    fsdp = config.run.fsdp and mesh.shape["data"] > 1
    require(
        not pmap
        or mesh.shape["trial"] == mesh.shape["model"] == jax.process_count() == 1
        and not fsdp,
        "config.run.parallel = 'pmap' supports only data parallelism in one process, not "
        f"config.run.mesh = {dict(mesh.shape)} with config.run.fsdp = {config.run.fsdp}",
    )
    check_trials_per_program(config, num_trials)


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
        validate_programs(config, self.method, self.mesh, num_trials)
        self.batch_size = config.batch_size
        self._constraints = sharding.make_batch_constraints(self.mesh, self.batch_size)
        self.feed = self._make_feed(capacity)
        self._options = with_extra_options(COMPILER | self.method.compiler, compiler or {})
        self._key: np.ndarray | None = None
        self._newest_metrics: dict[str, Array] = {}  # of the call that may still run
        self.data_wait_seconds = 0.0  # in which no step ran, since its batches were not ready
        self._init_program = Program(jax.jit(self._init), ONCE)
        self.shapes = self._init_program.jitted.eval_shape(  # without padding, as in checkpoints
            np.zeros(num_trials, np.uint32), self._stack_hparams([config] * num_trials)
        )
        # Checked on the parameters of the trained networks alone.
        optimizers.check_frozen_pattern(config, {n: self.shapes.params[n] for n in self.shapes.opt})
        self.training = self._build_training()
        self._evaluation = self._build_evaluation()
        self._sampling = {what: self._build_sampling(s) for what, s in self.method.samplers.items()}
        # Samplers whose batches set latents, which have more inputs.
        self._sampling_of_latents = {
            what: self._build_sampling(s) for what, s in self.method.samplers.items() if s.latents
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
                gradients, constrain_grads=sharding.reduce_scatter_grads(self.mesh)
            )
        return gradients

    def step_trial(
        self, state: TrainState, feed_arrays: PyTree
    ) -> tuple[TrainState, dict[str, Array]]:  # -> state, metrics of one trial
        """Run one step of one trial, on a batch from the feed's arrays."""
        step = self.method.step
        if self._fsdp:
            step = sharding.all_gather_params(step, self.mesh, returns_state=True)
        return transforms.feed_batches(step, self.feed.train_batch)(state, feed_arrays)

    def _build_training(self) -> Program:
        """Return the program of n steps of all trials; the states are donated."""
        f = transforms.repeat_steps(self.step_trial, self.feed.capacity)
        if not self._pmap:
            f = sharding.with_axis_rules(f, self.mesh, self.config.run.sequence_parallel)
        f = transforms.vectorize(f, self.route, self.chunk)
        if self._pmap:
            f = transforms.per_device(f, self.mesh)
        specs = self.layout.partition_specs(self.shapes)
        jitted = transforms.jit_sharded(
            f, self.mesh, specs, self.feed.sharding, 1, donate_states=True
        )
        return Program(jitted, self._options)

    def _build_evaluation(self) -> Program:
        """Return the program of the evaluation's sums over batches of a split."""
        f = transforms.evaluate_batches(
            self.method.evaluate, self.feed.take_rows, self.batch_size, self._constraints[0]
        )
        return self._vectorize_program(f, 4)

    def _build_sampling(self, sampler: Sampler) -> Program:
        """Return the program of a sampler's batches."""
        f = transforms.sample_batch(sampler, self.feed.take_rows, self._constraints[0])
        return self._vectorize_program(f, 3)

    def _vectorize_program(self, f: Callable, num_rest: int) -> Program:
        """Return the program of f(state, arrays, *rest) for all trials, where f has
        `num_rest` further arguments.
        """
        if self._fsdp:
            f = sharding.all_gather_params(f, self.mesh)
        f = transforms.vectorize(
            sharding.with_axis_rules(f, self.mesh, self.config.run.sequence_parallel),
            self.route,
            self.chunk,
        )
        specs = self.layout.partition_specs(drop_opt_states(self.shapes))
        return Program(
            transforms.jit_sharded(f, self.mesh, specs, self.feed.sharding, num_rest), self._options
        )

    def _init(self, seeds: Array, hp: dict[str, Array]) -> TrainState:
        return jax.vmap(lambda seed, hp: self.method.init(jax.random.key(seed), hp))(seeds, hp)

    def _stack_hparams(self, configs: Sequence[ConfigDict]) -> dict[str, np.ndarray]:  # {name: [N]}
        """Return {name: [N]} of the hyper-parameters of N configs."""
        dtype = jnp.float64 if self.config.precision == "float64" else jnp.float32
        values = [resolve_hparams(c) for c in configs]
        return {name: np.array([v[name] for v in values], dtype) for name in values[0]}

    # -- states

    def init(self, configs: Sequence[ConfigDict]) -> TrainState:  # N configs -> [num_padded, ...]
        """Return the states of trials before their first step, of one config per trial;
        configs may differ in `seed` and `hp`.
        """
        seeds = np.array([c.seed for c in configs], np.uint32)
        return self.to_mesh(self._init_program(seeds, self._stack_hparams(configs)))

    def reuse_init_program(self, other: "Programs") -> None:
        """Use the initialization program of other Programs of the same trials."""
        self._init_program = other._init_program

    def to_mesh(self, states: TrainState) -> TrainState:  # [N, ...] -> [num_padded, ...]
        """Pad states [N, ...], with optimiser states or without, and store them on the
        mesh.
        """
        self._key = None  # `train` reads the key of these states once
        return self.layout.to_mesh(states)

    # -- compilation

    def start_compiling_training(self) -> None:  # in a thread
        """Begin to compile the training program in a thread."""
        states = self.layout.padded_shapes(self.shapes)
        self.training.start_compiling(states, self.feed.training, np.int32(0))

    def start_compiling(self) -> None:  # in threads
        """Begin to compile the other programs that training needs, in threads."""
        states = drop_opt_states(self.layout.padded_shapes(self.shapes))
        self._evaluation.start_compiling(states, self.feed.evaluating, *(np.int32(0),) * 4)
        rows = np.zeros(self.batch_size, np.int32)
        next(iter(self._sampling.values())).start_compiling(
            states, self.feed.drawing, np.uint32(0), rows, {"index": rows, "class": rows}
        )

    @functools.cached_property
    def step_flops(self) -> int:
        """Floating-point operations of a training step of all trials."""
        one = jax.tree.map(lambda s: jax.ShapeDtypeStruct(s.shape[1:], s.dtype), self.shapes)
        return self.num_trials * costs.count_flops(
            jax.make_jaxpr(self.step_trial)(one, self.feed.training).jaxpr
        )

    # -- calls

    def max_call_steps(self, step: int) -> int:
        """Return the maximum number of steps of one call of `train` after `step`."""
        return self.feed.max_steps(step)

    def train(
        self, states: TrainState, step: int, num_steps: int
    ) -> tuple[TrainState, dict[str, Array]]:  # -> states, {metric: [num_padded, capacity]}
        """Train states for `num_steps` more steps. The states are donated.

        Args:
          states: stacked states, as `to_mesh` returns them.
          step: number of steps that they have done.
          num_steps: number of further steps, at most `max_call_steps(step)`.

        Returns:
          The new states, and {metric: [num_padded, capacity]} with the values of these
          steps, followed by zeros.
        """
        if self._key is None:  # read once: later states are results of running programs
            self._key = distributed.gather_to_host(jax.random.key_data(states.key))[0]
        start = time.perf_counter()
        arrays = self.feed.train_arrays(self._key, step)
        running = self._newest_metrics
        if running and all(x.is_ready() for x in running.values()):  # type: ignore[attr-defined]
            self.data_wait_seconds += time.perf_counter() - start
        states, self._newest_metrics = self.training(states, arrays, np.int32(num_steps))
        return states, self._newest_metrics

    def evaluate_batches(
        self, states: TrainState, split: str
    ) -> PyTree:  # -> sums over the split [num_padded, ...]
        """Return the sums of the method's `evaluate` over a split, on the host."""
        start, count = self.dataset.splits[split]
        part = lambda first, last, arrays: distributed.gather_to_host(
            self._evaluation(
                drop_opt_states(states), arrays, *map(np.int32, (start, count, first, last))
            )
        )
        return functools.reduce(
            lambda a, b: jax.tree.map(np.add, a, b),
            itertools.starmap(part, self.feed.eval_arrays(start, count)),
        )

    def draw(
        self,
        states: TrainState,
        what: str,
        num_samples: int,
        split: str = "train",
        seed: int = 0,
        *,
        stride: int = 1,
        first: int = 0,
        labels: np.ndarray | None = None,
        latents: np.ndarray | None = None,
    ) -> np.ndarray:  # -> [N, num_samples, ...], the samples first + stride i
        """Return samples of every trial. Sample i does not depend on the number drawn.

        Args:
          states: the stacked states.
          what: name of the sampler.
          num_samples: number of samples of each trial.
          split: split of the examples that condition the samples, in the order of
            `permute_fixed`.
          seed: the user's seed, below 2^32.
          stride: stride of the indices of the samples that are drawn.
          first: index of the first of them.
          labels: [num_samples] classes; None: the index modulo the number of classes.
          latents: [Z] latents of all samples, NaN for those that are drawn, of a
            sampler with latents; None: all are drawn.

        Raises:
          UserError: the method has no sampler `what`, or none with latents.
        """
        programs = self._sampling if latents is None else self._sampling_of_latents
        program = choose(programs, what, "what")
        start, count = self.dataset.splits[split]

        def run_batch(done: int) -> Array:  # -> [num_padded, batch_size, ...]
            place = np.arange(done, done + self.batch_size, dtype=np.int32)
            index = first + stride * place
            label = index % (self.method.samplers[what].classes or self.num_prior_classes or 1)
            if labels is not None:
                label = labels[np.minimum(place, num_samples - 1)].astype(np.int32)
            rows = (start + permute_fixed(index, count)).astype(np.int32)
            places = {"index": index, "class": label}
            if latents is not None:
                places["latents"] = np.tile(latents, (self.batch_size, 1))
            inputs = (self.feed.sample_arrays(rows), np.uint32(seed), rows, places)
            return program(drop_opt_states(states), *inputs)

        batches = map(run_batch, range(0, num_samples, self.batch_size))
        parts = list(map(distributed.gather_to_host, distributed.run_ahead(batches)))
        return np.concatenate(parts, axis=1)[: self.num_trials, :num_samples]

    @property
    def num_prior_classes(self) -> int:
        """Number of classes of the sampler "prior"; 0 where it is not conditional."""
        prior = self.method.samplers.get("prior")
        return prior.classes if prior else 0

    def read_class_labels(
        self, split: str, num_labels: int
    ) -> np.ndarray | None:  # -> [num_labels]; None: the prior has no classes
        """Return the classes of the split's examples in the order of `permute_fixed`,
        which have the class frequencies of the split. None where the sampler "prior"
        has no classes.
        """
        if not self.num_prior_classes:
            return None
        start, count = self.dataset.splits[split]
        rows = start + permute_fixed(np.arange(num_labels), count)
        return np.asarray(self.dataset.take(self.dataset.arrays, rows)["label"])
