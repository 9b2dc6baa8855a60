"""How a data set's examples come to a program: from arrays that lie on its devices, or
from the host, batch by batch.

From the host (memory-mapped files, for example) come blocks of batches, the next of
which is taken while the device works. A batch is the same function of (key, step)
either way, so that nothing is to be remembered between two of them: a resumed run, on
any number of hosts, goes on with what it would have seen.
"""

import functools
import math
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from ml_collections import ConfigDict

from aigc_jax.core.distributed import put
from aigc_jax.data import order
from aigc_jax.data.dataset import Dataset
from aigc_jax.utils.errors import require

# Of the batches that are sent to the devices at once; up to three such blocks exist.
BLOCK_BYTES = 2**26


class FromDevice:
    """All arrays lie whole on every device, and programs take batches of them by
    themselves.

    config: a config's `data`. examples: of a training step. batch_size: of an
    evaluation's or sampler's batch. lay, whole: `data.order.source`'s.
    """

    def __init__(
        self,
        dataset: Dataset,
        config: ConfigDict,
        examples: int,
        batch_size: int,
        mesh: Mesh,
        capacity: int,
        lay: Callable | None = None,
        whole: Callable | None = None,
    ) -> None:
        self.batch_size, self.capacity, self.take = batch_size, capacity, dataset.take
        self.sharding = NamedSharding(mesh, PartitionSpec())  # of what programs are given
        for name, x in dataset.arrays.items():
            require(
                len(x) < 2**31,
                f"config.run.data = 'device' has room for 2^31 {name}, and there are "
                f"{len(x):,}; 'host' has no such limit",
            )
        self.source = order.source(
            dataset, config, examples, *([lay, whole] if lay and whole else [])
        )
        arrays = {name: put(np.asarray(x), self.sharding) for name, x in dataset.arrays.items()}
        # What each kind of program is given: the arrays themselves.
        self.training = self.evaluating = self.drawing = arrays

    def steps(self, key: np.ndarray, step: int) -> dict:
        """What the program of training is given for the steps after `step`."""
        return self.training

    def most(self, step: int) -> int:
        """How many steps it may then do."""
        return self.capacity

    def split(self, start: int, count: int) -> Iterator[tuple[int, int, dict]]:
        """(first batch, the one after the last, what the program of evaluation is
        given) until a split is through.
        """
        yield 0, -(-count // self.batch_size), self.evaluating

    def rows(self, rows: np.ndarray) -> dict:
        """What the program of a sampler is given, for these rows [B]."""
        return self.drawing


class FromHost:
    """Likewise, of arrays of any kind that can be indexed by rows and stay where they
    are. Every process reads the examples of its own devices.

    Programs are given {"first": a step or row, "batches": {name: [K, B, ...]} from it
    on}.
    """

    def __init__(
        self,
        dataset: Dataset,
        config: ConfigDict,
        examples: int,
        batch_size: int,
        mesh: Mesh,
        capacity: int,
        lay: Callable | None = None,
        whole: Callable | None = None,
    ) -> None:
        parts = PartitionSpec(None, "data" if lay else None)
        self.sharding = dict(
            first=NamedSharding(mesh, PartitionSpec()), batches=NamedSharding(mesh, parts)
        )
        places = order.places(dataset, config, examples)
        # Examples of a stream are not varied, for each follows on the one before.
        take = dataset.vary if dataset.vary and config.order != "stream" else dataset.take
        self.trained = Reader(
            dataset,
            take,
            examples,
            self.sharding["batches"],
            capacity,
        )
        self.looked = Reader(dataset, dataset.take, batch_size, self.sharding["batches"], capacity)
        self.capacity, self.batch_size = self.trained.batches, batch_size
        self.training, self.evaluating, self.drawing = (
            self.trained.like(),
            self.looked.like(),
            self.looked.like(1),
        )
        self._pool = ThreadPoolExecutor(1)
        self._coming: dict[tuple[int, bytes], Future] = {}
        lay = lay or (lambda batch: batch)

        def source(arrays, key, step):
            rest = {
                name: x for name, x in places(key, step).items() if name not in ("rows", "words")
            }
            index = jnp.arange(examples, dtype=jnp.int32)
            return lay(
                {name: x[step - arrays["first"]] for name, x in arrays["batches"].items()}
                | rest
                | dict(index=index)
            )

        self.source = source
        self.take = lambda arrays, rows: {
            name: x[(rows[0] - arrays["first"]) // batch_size]
            for name, x in arrays["batches"].items()
        }
        chosen = lambda key, step: [
            x for name, x in places(key, step).items() if name in ("rows", "words")
        ]
        self._places = jax.jit(jax.vmap(chosen, (None, 0)))

    def steps(self, key: np.ndarray, step: int) -> dict:
        """Return the block of batches that holds `step`, and begin to read the next one
        in a thread. Waits for the block itself, which the call before has begun.
        """
        asked, block = self._coming, step // self.capacity
        now, coming = ((number, key.tobytes()) for number in (block, block + 1))
        ask = lambda what: asked.get(what) or self._pool.submit(self._block, key, what[0])
        self._coming = {now: ask(now)}
        given = self._coming[now].result()
        self._coming[coming] = ask(coming)
        return given

    def most(self, step: int) -> int:
        """Return how many steps are left in the block that holds `step`."""
        return self.capacity - step % self.capacity

    def split(self, start: int, count: int) -> Iterator[tuple[int, int, dict]]:
        """Yield (first batch, the one after the last, a block of them) until `count`
        rows from `start` on are through; the last row fills up the last batch.
        """
        end, each = -(-count // self.batch_size), self.looked.batches
        for low in range(0, end, each):
            index = self.batch_size * low + np.arange(each * self.batch_size)
            rows = (start + np.minimum(index, count - 1)).astype(np.int32)
            yield (
                low,
                min(low + each, end),
                dict(first=rows[0], batches=self.looked.read(rows.reshape(each, -1))),
            )

    def rows(self, rows: np.ndarray) -> dict:
        """Return a block of one batch: the examples of these rows [B]."""
        return dict(first=rows[0], batches=self.looked.read(rows[None]))

    def _block(self, key, number):
        first = number * self.capacity
        # On the CPU: a device that trains would let it wait.
        with jax.default_device(jax.local_devices(backend="cpu")[0]):
            places = self._places(
                jax.random.wrap_key_data(key, impl="threefry2x32"),
                first + np.arange(self.capacity, dtype=np.int32),
            )
        return dict(first=np.int32(first), batches=self.trained.read(*map(np.asarray, places)))


class Reader:
    """Blocks of K batches [K, B, ...] as the networks see them, by `sharding`."""

    def __init__(
        self, dataset: Dataset, take: Callable, batch_size: int, sharding: NamedSharding, most: int
    ) -> None:
        self.arrays, self.take, self.batch_size, self.sharding = (
            dataset.arrays,
            take,
            batch_size,
            sharding,
        )
        # 2^30 rows at most: more could not be numbered on a device.
        some = lambda shape: (min(shape[0], 2**30), *shape[1:])
        arrays = {
            name: jax.ShapeDtypeStruct(some(x.shape), x.dtype) for name, x in dataset.arrays.items()
        }
        rows, words = (
            jax.ShapeDtypeStruct((batch_size,), dtype) for dtype in (jnp.int32, jnp.uint32)
        )
        self.one = jax.eval_shape(take, arrays, rows, *([words] if take is dataset.vary else []))
        size = sum(math.prod(s.shape) * s.dtype.itemsize for s in self.one.values())
        self.batches = max(1, min(most, BLOCK_BYTES // max(size, 1)))

    def like(self, batches: int | None = None) -> dict:
        """What programs are given, of so many batches, in shape."""
        of = lambda s: jax.ShapeDtypeStruct(
            (batches or self.batches, *s.shape), s.dtype, sharding=self.sharding
        )
        return dict(first=np.int32(0), batches=jax.tree.map(of, self.one))

    def read(self, *places: np.ndarray) -> dict[str, jax.Array]:
        """Return a block {name: [K, B, ...]} of the examples of rows [K, B]; where
        examples vary, `places` are the rows and their random words [K, B]. Reads those
        of this process's devices alone.
        """

        @functools.cache
        def part(low, high):
            mine = [x[:, low:high] for x in places]
            # 64 bits, for the bytes of rows that are far apart are more than 2^31.
            rows = mine[0].reshape(-1).astype(np.int64)
            taken = self.take(self.arrays, rows, *(x.reshape(-1) for x in mine[1:]))
            return {name: x.reshape(*mine[0].shape, *x.shape[1:]) for name, x in taken.items()}

        def array(name, like):
            mine = lambda at: np.asarray(
                part(*at[1].indices(self.batch_size)[:2])[name], like.dtype
            )
            return jax.make_array_from_callback((len(places[0]), *like.shape), self.sharding, mine)

        return {name: array(name, like) for name, like in self.one.items()}


Feed = FromDevice | FromHost
# config.run.data -> the class
FEEDS: dict[str, type[FromDevice] | type[FromHost]] = {"device": FromDevice, "host": FromHost}
