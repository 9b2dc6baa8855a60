"""The compiled programs of a group of trials: one that trains, one that evaluates, one
for each kind of sample.

They are compiled once, ahead of their first call, and cannot compile again: a call with
other shapes raises.
"""

import functools
import itertools
from collections.abc import Callable, Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from ml_collections import ConfigDict

from aigc_jax import methods, metrics
from aigc_jax.core import distributed, sharding, transforms
from aigc_jax.core.config import check_together, hparam_values
from aigc_jax.core.gradients import mean_gradients
from aigc_jax.core.mesh import make_mesh
from aigc_jax.core.method import PyTree, TrainState
from aigc_jax.data import pipelines
from aigc_jax.data.dataset import Dataset
from aigc_jax.data.order import fixed_order
from aigc_jax.data.pipelines import Feed
from aigc_jax.media import images
from aigc_jax.methods import optimizers
from aigc_jax.metrics.inputs import Given, remembered
from aigc_jax.training import costs
from aigc_jax.training.compilation import COMPILER, ONCE, Program
from aigc_jax.utils.errors import UserError, argument, choose, require

BLOCK = 4096  # examples of a split that are taken at once


def without_opt(states: TrainState) -> TrainState:
    """What sampling and evaluation need of states."""
    return states.replace(opt={})


class Programs:
    """Everything that is done with the stacked states [N, ...] of N trials that share
    their static keys.

    route, chunk: how N trials are one program (`core.transforms.vectorize`); one trial
    takes "map", which is the plain loop to the last bit.

    compiler: further options, whatever the platform.

    extractor: config -> what metrics see pictures through (`feature_extractors`), asked
    for when a metric first needs it.

    Where N does not divide over the mesh's trial axis, copies of the last trial fill it
    up; they are not seen from outside but in the states, whose leaves are [width, ...].
    """

    def __init__(
        self,
        config: ConfigDict,
        dataset: Dataset,
        count: int,
        mesh: Mesh | None = None,
        route: str | None = None,
        chunk: int = 0,
        capacity: int = 1024,
        extractor: Callable | None = None,
        compiler: dict | None = None,
    ) -> None:
        self.route, self.chunk = route or ("map" if count == 1 else "vmap"), chunk
        self.config, self.dataset, self.count = config, dataset, count
        self.extractor = extractor
        self.look: Callable | None = None
        # of the last evaluation, of each trial
        self.signatures: list[dict[str, str]] = [{} for _ in range(count)]
        self.mesh = make_mesh(config.run.mesh) if mesh is None else mesh
        self.width = -(-count // self.mesh.shape["trial"]) * self.mesh.shape["trial"]
        fsdp = config.run.fsdp and self.mesh.shape["data"] > 1
        gradients = functools.partial(mean_gradients, accumulate=config.accumulate)
        if fsdp:
            gradients = functools.partial(gradients, lay=sharding.scattered(self.mesh))
        self.method = methods.make(config, dataset.spec, gradients)
        self._metrics = functools.partial(
            metrics.find_metrics, samplers=self.method.samplers, method=config.method
        )
        self._metrics(config.metrics)  # a mistake is named before anything starts
        self.batch_size = config.batch_size
        examples = methods.examples(config)
        # Whether each device runs the step by itself.
        alone = choose(dict(jit=False, pmap=True), config.run.parallel, "config.run.parallel")
        require(
            not alone
            or self.mesh.shape["trial"] == self.mesh.shape["model"] == jax.process_count() == 1
            and not fsdp,
            "config.run.parallel = 'pmap' divides examples alone, in one process: "
            f"config.run.mesh = {dict(self.mesh.shape)} and "
            f"config.run.fsdp = {config.run.fsdp} ask for more",
        )
        lay, whole = sharding.divided(self.mesh, self.batch_size)
        check_together(config, count)
        self.feed: Feed = choose(pipelines.FEEDS, config.run.data, "config.run.data")(
            dataset,
            config.data,
            examples,
            self.batch_size,
            self.mesh,
            capacity,
            *(() if alone else (lay, whole)),
        )
        feed = self.feed
        self.arrays, self.capacity = feed.training, feed.capacity
        self._key: np.ndarray | None = None
        step = (
            sharding.gathered(self.method.step, self.mesh, new=True) if fsdp else self.method.step
        )
        self.step = step = transforms.feed(step, feed.source)
        options = {
            platform: found | (compiler or {})
            for platform, found in (COMPILER | self.method.compiler).items()
        }
        self._start = Program(jax.jit(self._init), ONCE)
        # Shapes of states without padding, as those of a restored checkpoint.
        self.shapes = self._start.jitted.eval_shape(
            np.zeros(count, np.uint32), self._stacked([config] * count)
        )
        # The parameters of the networks that are trained.
        optimizers.check_frozen(
            config, {name: self.shapes.params[name] for name in self.shapes.opt}
        )

        def build(f, rest, donate=False):
            specs = self.specs(self.shapes if donate else without_opt(self.shapes))
            f = f if donate or not fsdp else sharding.gathered(f, self.mesh)
            each = alone and donate
            f = transforms.vectorize(
                f if each else sharding.aware(f, self.mesh, config.run.sequence),
                self.route,
                self.chunk,
            )
            return Program(
                transforms.shard(
                    transforms.on_each(f, self.mesh) if each else f,
                    self.mesh,
                    specs,
                    feed.sharding,
                    rest,
                    donate,
                ),
                options,
            )

        self.train = build(transforms.repeat(step, feed.capacity), 1, donate=True)
        self._evaluate = build(
            transforms.total(self.method.evaluate, feed.take, self.batch_size, lay), 4
        )
        self._draw = {
            what: build(transforms.draw(f, feed.take, lay), 4)
            for what, f in self.method.samplers.items()
        }

    def specs(self, states: TrainState) -> PyTree:
        """How states lie on the mesh."""
        return sharding.specs(states, self.mesh, self.config.run.fsdp)

    def _init(self, seeds, hp):
        return jax.vmap(lambda seed, hp: self.method.init(jax.random.key(seed), hp))(seeds, hp)

    def _stacked(self, trials):
        dtype = jnp.float64 if self.config.precision == "float64" else jnp.float32
        values = [hparam_values(c) for c in trials]
        return {name: np.array([v[name] for v in values], dtype) for name in values[0]}

    def init(self, configs: Sequence[ConfigDict]) -> TrainState:
        """The states of trials before their first step: one config a trial, which may
        differ in `seed` and `hp`.
        """
        seeds = np.array([c.seed for c in configs], np.uint32)
        return self.place(self._start(seeds, self._stacked(configs)))

    def start_as(self, other: "Programs") -> None:
        """Draw first weights with the other's program, for the same trials."""
        self._start = other._start

    def place(self, states: TrainState) -> TrainState:
        """The states [N, ...], with their optimisers' or without, filled up, on the
        devices as the rules lay them out.
        """
        if self.width > self.count:
            places = np.minimum(np.arange(self.width), self.count - 1)
            states = jax.tree.map(lambda x: x[places], states)
        self._key = None  # that of these states, when `data` asks for it
        return jax.tree.map(
            lambda x, spec: distributed.put(x, NamedSharding(self.mesh, spec)),
            states,
            self.specs(states),
        )

    def wanted(self, name: str, shape: Sequence[int]) -> list:
        """The bounds of the pieces of a state's leaf that this process's devices hold,
        of so many trials as there are.
        """
        if self.width > self.count or jax.process_count() == 1:
            return [tuple((0, n) for n in shape)]
        return distributed.wanted(
            shape,
            NamedSharding(self.mesh, sharding.spec(name, shape, self.mesh, self.config.run.fsdp)),
        )

    def trials(self, states: TrainState) -> TrainState:
        """The states [N, ...] of the trials, without what fills them up."""
        return (
            states if self.width == self.count else jax.tree.map(lambda x: x[: self.count], states)
        )

    def _filled(self):
        return jax.tree.map(
            lambda s: jax.ShapeDtypeStruct((self.width, *s.shape[1:]), s.dtype), self.shapes
        )

    @functools.cached_property
    def flops(self) -> int:
        """Floating-point operations of a training step of all trials."""
        one = jax.tree.map(lambda s: jax.ShapeDtypeStruct(s.shape[1:], s.dtype), self.shapes)
        return self.count * costs.flops(jax.make_jaxpr(self.step)(one, self.arrays).jaxpr)

    def begin_training(self) -> None:
        """Begin to compile the training program in a thread."""
        self.train.begin(self._filled(), self.arrays, np.int32(0))

    def begin(self) -> None:
        """Compile what training needs, all at once, beside what comes next."""
        self.begin_training()
        states_, rows = without_opt(self._filled()), np.zeros(self.batch_size, np.int32)
        self._evaluate.begin(states_, self.feed.evaluating, *(np.int32(0),) * 4)
        next(iter(self._draw.values())).begin(
            states_, self.feed.drawing, np.uint32(0), rows, rows, rows
        )

    def data(self, states: TrainState, step: int) -> dict:
        """What `train` is given beside states that have done so many steps; for
        `feed.most(step)` steps at most.
        """
        if self._key is None:
            self._key = distributed.host(jax.random.key_data(states.key))[0]
        return self.feed.steps(self._key, step)

    def draw(
        self,
        states: TrainState,
        what: str,
        num: int,
        split: str = "train",
        seed: int = 0,
        each: int = 1,
        first: int = 0,
        labels: np.ndarray | None = None,
    ) -> np.ndarray:  # -> [N, num, ...]
        """Samples of every trial. Sample i is the same however many are drawn. What
        they are conditioned on comes from the split, in `fixed_order`; classes are
        `labels` [num], by default in turn. Of all samples only each `each`-th from the
        one numbered `first` on.
        """
        program = choose(self._draw, what, "what")
        start, count = self.dataset.splits[split]
        parts = []
        for done in range(0, num, self.batch_size):
            place = np.arange(done, done + self.batch_size, dtype=np.int32)
            index = first + each * place
            label = index % max(self.classes, 1)
            if labels is not None:
                label = labels[np.minimum(place, num - 1)].astype(np.int32)
            rows = (start + fixed_order(index, count)).astype(np.int32)
            given = (self.feed.rows(rows), np.uint32(seed), rows, index, label)
            parts.append(distributed.host(program(without_opt(states), *given)))
        return np.concatenate(parts, axis=1)[: self.count, :num]

    def evaluate(
        self, states: TrainState, split: str, samples: int, names: Sequence[str] | None = None
    ) -> list[dict[str, float]]:
        """Of every trial: the method's own metrics over a whole split, then those of
        `config.metrics`, or of `names`, with `samples` samples. What they say beside
        numbers (signatures of BLEU) is left in `signatures`.
        """
        found = (
            self._metrics(self.config.metrics)
            if names is None
            else self._metrics(names, key=argument("metrics"))
        )
        start, count = self.dataset.splits[split]
        part = lambda low, high, arrays: distributed.host(
            self._evaluate(without_opt(states), arrays, *map(np.int32, (start, count, low, high)))
        )
        sums = functools.reduce(
            lambda a, b: jax.tree.map(np.add, a, b),
            itertools.starmap(part, self.feed.split(start, count)),
        )
        values = [
            self.method.summarize(jax.tree.map(lambda x, i=i: np.float64(x[i]), sums))
            for i in range(self.count)
        ]
        self.signatures = [{} for _ in values]
        if found:
            given = self._given(states, split, samples)
            for row, signed, one in zip(
                values, self.signatures, map(given, range(self.count)), strict=True
            ):
                for name, value in itertools.chain.from_iterable(
                    metric(one).items() for metric in found
                ):
                    (signed if isinstance(value, str) else row)[name] = value
        return values

    def _given(self, states, split, samples):
        """(number of a trial) -> what its metrics are given. Samples are drawn, and
        splits taken, when a metric first asks for them.
        """
        of = functools.cache(self.examples)
        labels = functools.cache(lambda: self.labels(split, samples))

        @functools.cache
        def drawn(what):
            found = self.draw(states, what, samples, split, labels=labels())
            return [images.as_saved(x, self.dataset.spec) for x in found]

        tokenizer = self.dataset.tokenizer
        readable = (
            (lambda x: x)
            if tokenizer is None
            else lambda rows: [tokenizer.text(row) for row in rows]
        )
        rest = (split, of, self.dataset.spec, self.extract, labels, self.blocks)
        return lambda i: Given(lambda what: readable(drawn(what)[i]), *rest)

    def examples(self, split: str) -> dict[str, np.ndarray]:
        """A whole split on the host, images by `media.images.as_saved`."""
        count, first = self.dataset.splits[split][1], 0
        whole: dict[str, np.ndarray] = {}
        for part in self.blocks(split):
            for name, value in part.items():
                if name not in whole:
                    whole[name] = np.empty((count, *value.shape[1:]), value.dtype)
                whole[name][first : first + len(value)] = value
            first += len(value)
        return whole

    def blocks(self, split: str) -> Iterator[dict[str, np.ndarray]]:
        """The examples of a split in order, `BLOCK` at a time."""
        start, count = self.dataset.splits[split]
        for first in range(0, count, BLOCK):
            rows = start + np.arange(first, min(first + BLOCK, count))
            part = self.dataset.take(self.dataset.arrays, rows)
            if "x" in part:
                part["x"] = images.as_saved(part["x"], self.dataset.spec)
            yield part

    @property
    def classes(self) -> int:
        """How many classes the sampler "prior" can draw; 0 where it knows none."""
        return self.method.sheets.get("prior", (0, 0))[1]

    def labels(self, split: str, num: int) -> np.ndarray | None:  # -> [num]
        """Classes as frequent as in the split: those of its examples in `fixed_order`.
        None where the sampler "prior" knows none.
        """
        if not self.classes:
            return None
        start, count = self.dataset.splits[split]
        rows = start + fixed_order(np.arange(num), count)
        return np.asarray(self.dataset.take(self.dataset.arrays, rows)["label"])

    def extract(
        self, pictures: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:  # [n, H, W, C] -> [n, D], [n, K]
        """Features and probabilities of classes, by the config's extractor."""
        if self.extractor is None:
            raise UserError(
                "a metric needs an extractor of features, and these programs were made without one"
            )
        if self.look is None:
            self.look = remembered(self.extractor(self.config))
        return self.look(pictures)
