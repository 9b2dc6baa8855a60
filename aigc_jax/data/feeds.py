"""How a data set's examples come to a program: from arrays that lie on its devices, or from the host, batch by batch.

From the host (memory-mapped files, for example) come blocks of batches, the next of which is taken while the device works. A batch is the
same function of (key, step) either way, so that nothing is to be remembered between two of them: a resumed run, on any number of hosts, goes
on with what it would have seen.
"""

import functools
import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from aigc_jax.data import dataset as datasets
from aigc_jax.data.dataset import Dataset
from aigc_jax.errors import require
from aigc_jax.processes import put

BLOCK_BYTES = 2**26  # of batches that are sent to the devices at once; up to three times as much is there


class FromDevice:
    """All arrays lie whole on every device, and programs take batches of them by themselves.

    config: a config's `data`. examples: of a training step. batch_size: of an evaluation's or sampler's batch. lay, whole: `dataset.source`'s.
    """

    def __init__(self, dataset: Dataset, config, examples: int, batch_size: int, mesh, capacity: int, lay=None, whole=None):
        self.batch_size, self.capacity, self.take = batch_size, capacity, dataset.take
        self.sharding = NamedSharding(mesh, PartitionSpec())  # of what programs are given
        for name, x in dataset.arrays.items():
            require(len(x) < 2**31, f"config.run.data = 'device' has room for 2^31 {name}, and there are {len(x):,}; 'host' has no such limit")
        self.source = datasets.source(dataset, config, examples, *([lay, whole] if lay else []))
        arrays = {name: put(np.asarray(x), self.sharding) for name, x in dataset.arrays.items()}
        self.training = self.evaluating = self.drawing = arrays  # what each kind of program is given

    def steps(self, key, step: int):
        """What the program of training is given for the steps after `step`."""
        return self.training

    def most(self, step: int) -> int:
        """How many steps it may then do."""
        return self.capacity

    def split(self, start: int, count: int):
        """(first batch, the one after the last, what the program of evaluation is given) until a split is through."""
        yield 0, -(-count // self.batch_size), self.evaluating

    def rows(self, rows):
        """What the program of a sampler is given, for these rows [B]."""
        return self.drawing


class FromHost:
    """Likewise, of arrays of any kind that can be indexed by rows and stay where they are. Every process reads the examples of its own devices.

    Programs are given {"first": a step or row, "batches": {name: [K, B, ...]} from it on}.
    """

    def __init__(self, dataset: Dataset, config, examples: int, batch_size: int, mesh, capacity: int, lay=None, whole=None):
        parts = PartitionSpec(None, "data" if lay else None)
        self.sharding = dict(first=NamedSharding(mesh, PartitionSpec()), batches=NamedSharding(mesh, parts))
        places = datasets.places(dataset, config, examples)
        varied = dataset.vary is not None and config.order != "stream"  # the examples of a stream follow one another as they are
        self.trained = Reader(dataset, dataset.vary if varied else dataset.take, examples, self.sharding["batches"], capacity)
        self.looked = Reader(dataset, dataset.take, batch_size, self.sharding["batches"], capacity)
        self.capacity, self.batch_size = self.trained.batches, batch_size
        self.training, self.evaluating, self.drawing = self.trained.like(), self.looked.like(), self.looked.like(1)
        self._pool, self._coming = ThreadPoolExecutor(1), {}
        lay = lay or (lambda batch: batch)

        def source(arrays, key, step):
            rest = {name: x for name, x in places(key, step).items() if name not in ("rows", "words")}
            index = jnp.arange(examples, dtype=jnp.int32)
            return lay({name: x[step - arrays["first"]] for name, x in arrays["batches"].items()} | rest | dict(index=index))

        self.source = source
        self.take = lambda arrays, rows: {name: x[(rows[0] - arrays["first"]) // batch_size] for name, x in arrays["batches"].items()}
        chosen = lambda key, step: [x for name, x in places(key, step).items() if name in ("rows", "words")]
        self._places = jax.jit(jax.vmap(chosen, (None, 0)))

    def steps(self, key, step):
        asked, block = self._coming, step // self.capacity
        now, coming = ((number, key.tobytes()) for number in (block, block + 1))
        ask = lambda what: asked.get(what) or self._pool.submit(self._block, key, what[0])
        self._coming = {now: ask(now)}
        given = self._coming[now].result()
        self._coming[coming] = ask(coming)
        return given

    def most(self, step):
        return self.capacity - step % self.capacity

    def split(self, start, count):
        end, each = -(-count // self.batch_size), self.looked.batches
        for low in range(0, end, each):
            index = self.batch_size * low + np.arange(each * self.batch_size)
            rows = (start + np.minimum(index, count - 1)).astype(np.int32)
            yield low, min(low + each, end), dict(first=rows[0], batches=self.looked.read(rows.reshape(each, -1)))

    def rows(self, rows):
        return dict(first=rows[0], batches=self.looked.read(rows[None]))

    def _block(self, key, number):
        first = number * self.capacity
        with jax.default_device(jax.local_devices(backend="cpu")[0]):  # a device that trains would let it wait
            places = self._places(jax.random.wrap_key_data(key, impl="threefry2x32"), first + np.arange(self.capacity, dtype=np.int32))
        return dict(first=np.int32(first), batches=self.trained.read(*map(np.asarray, places)))


class Reader:
    """Batches [K, B, ...] as the networks see them, K of them at once, laid out as `sharding` says."""

    def __init__(self, dataset: Dataset, take: Callable, batch_size: int, sharding, most: int):
        self.arrays, self.take, self.batch_size, self.sharding = dataset.arrays, take, batch_size, sharding
        some = lambda shape: (min(shape[0], 2**30), *shape[1:])  # of a longer array a device could not number the rows
        arrays = {name: jax.ShapeDtypeStruct(some(x.shape), x.dtype) for name, x in dataset.arrays.items()}
        rows, words = (jax.ShapeDtypeStruct((batch_size,), dtype) for dtype in (jnp.int32, jnp.uint32))
        self.one = jax.eval_shape(take, arrays, rows, *([words] if take is dataset.vary else []))
        size = sum(math.prod(s.shape) * s.dtype.itemsize for s in self.one.values())
        self.batches = max(1, min(most, BLOCK_BYTES // max(size, 1)))

    def like(self, batches: int | None = None) -> dict:
        """What programs are given, of so many batches, in shape."""
        of = lambda s: jax.ShapeDtypeStruct((batches or self.batches, *s.shape), s.dtype, sharding=self.sharding)
        return dict(first=np.int32(0), batches=jax.tree.map(of, self.one))

    def read(self, *places) -> dict[str, jax.Array]:  # rows [K, B], and words [K, B] where the examples vary
        @functools.cache
        def part(low, high):
            mine = [x[:, low:high] for x in places]
            rows = mine[0].reshape(-1).astype(np.int64)  # where rows are far apart, 32 bits do not reach
            taken = self.take(self.arrays, rows, *(x.reshape(-1) for x in mine[1:]))
            return {name: x.reshape(*mine[0].shape, *x.shape[1:]) for name, x in taken.items()}

        def array(name, like):
            mine = lambda at: np.asarray(part(*at[1].indices(self.batch_size)[:2])[name], like.dtype)
            return jax.make_array_from_callback((len(places[0]), *like.shape), self.sharding, mine)

        return {name: array(name, like) for name, like in self.one.items()}


# config.run.data -> the class
FEEDS = {"device": FromDevice, "host": FromHost}
