"""Input pipelines: programs take their batches from arrays on the devices, or from
blocks of batches that the host sends.

The host reads its arrays (memory-mapped files, for example) in blocks, and prefetches
the next block while the devices compute. Both pipelines compute a batch as the same
function of (key, step) and have no other state: a resumed run, on any number of hosts,
continues with the batches of an uninterrupted run.
"""

import functools
import math
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from ml_collections import ConfigDict

from aigc_jax.core.distributed import to_devices
from aigc_jax.core.method import Array
from aigc_jax.data import order
from aigc_jax.data.dataset import Dataset
from aigc_jax.utils.errors import require
from aigc_jax.utils.memory import physical_bytes
from aigc_jax.utils.quantities import format_size

# Size of a block of batches sent to the devices; up to three blocks exist at once.
BLOCK_BYTES = 2**26


class FromDevice:
    """An input pipeline with all arrays replicated on every device, from which programs
    gather their batches.

    Args:
      dataset: the data set.
      config: the `data` section of a config.
      examples: the number of examples of a training step.
      batch_size: the number of examples of a batch in evaluation and sampling.
      mesh: the devices.
      capacity: the most steps that one call of the training program runs.
      constraints: `constrain` and `replicate` of `data.order.make_train_batch_reader`;
        None: batches are not sharded.
    """

    def __init__(
        self,
        dataset: Dataset,
        config: ConfigDict,
        examples: int,
        batch_size: int,
        mesh: Mesh,
        capacity: int,
        constraints: tuple[Callable, Callable] | None = None,
    ) -> None:
        self.batch_size, self.capacity, self.take_rows = batch_size, capacity, dataset.take
        self.sharding = NamedSharding(mesh, PartitionSpec())  # of the programs' `arrays`
        check_memory_of_arrays(dataset.arrays)
        for name, x in dataset.arrays.items():
            require(
                len(x) < 2**31,
                f"config.run.data_placement = 'device' supports fewer than 2^31 {name}, and "
                f"the data have {len(x):,}; 'host' has no such limit",
            )
        self.train_batch = order.make_train_batch_reader(
            dataset, config, examples, *(constraints or ())
        )
        arrays = {
            name: to_devices(np.asarray(x), self.sharding) for name, x in dataset.arrays.items()
        }
        # The `arrays` argument of each kind of program: the arrays of the data set.
        self.training = self.evaluating = self.drawing = arrays

    def train_arrays(self, _key: np.ndarray, _step: int) -> dict:  # all training arrays
        """Return the training program's `arrays`, the same for all steps."""
        return self.training

    def max_steps(self, _step: int) -> int:
        """Return how many steps one call of the training program may run."""
        return self.capacity

    def eval_arrays(
        self, _start: int, count: int
    ) -> Iterator[tuple[int, int, dict]]:  # first batch, last batch + 1, arrays
        """Yield (first batch, last batch + 1, the evaluation program's `arrays`) until
        the split is complete.
        """
        yield 0, -(-count // self.batch_size), self.evaluating

    def sample_arrays(self, _rows: np.ndarray) -> dict:  # all arrays
        """Return the sampling program's `arrays`, the same for all rows."""
        return self.drawing


def check_memory_of_arrays(arrays: dict[str, Any]) -> None:
    """Raise a UserError where arrays would not fit in the memory of a device, or of
    this machine, through which they are loaded.
    """
    needed = sum(x.nbytes for x in arrays.values())
    stats = jax.local_devices()[0].memory_stats() or {}
    available = min(physical_bytes(), stats.get("bytes_limit", physical_bytes()))
    require(
        needed < available,
        f"config.run.data_placement = 'device' would load {format_size(needed)} of data into "
        f"{format_size(available)} of memory; 'host' reads the data batch by batch",
    )


class FromHost:
    """An input pipeline whose arrays, of any kind that can be indexed by rows, remain
    on the host. Each process reads the examples of its own devices.

    Programs receive a block {"first": step or row, "batches": {name: [K, B, ...]}}, the
    K batches from that step or row on. The arguments are those of `FromDevice`.
    """

    def __init__(
        self,
        dataset: Dataset,
        config: ConfigDict,
        examples: int,
        batch_size: int,
        mesh: Mesh,
        capacity: int,
        constraints: tuple[Callable, Callable] | None = None,
    ) -> None:
        parts = PartitionSpec(None, "data" if constraints else None)
        self.sharding = dict(
            first=NamedSharding(mesh, PartitionSpec()), batches=NamedSharding(mesh, parts)
        )
        self.examples, self._at = examples, order.make_batch_order(dataset, config, examples)
        self._constrain = constraints[0] if constraints else lambda batch: batch
        # Streams are not augmented: each example must continue the previous one.
        take = dataset.vary if dataset.vary and config.order != "stream" else dataset.take
        blocks = self.sharding["batches"]
        self.train_reader = BlockReader(dataset, take, examples, blocks, capacity)
        self.eval_reader = BlockReader(dataset, dataset.take, batch_size, blocks, capacity)
        self.capacity, self.batch_size = self.train_reader.batches, batch_size
        self.training = self.train_reader.block_shapes()
        self.evaluating, self.drawing = (
            self.eval_reader.block_shapes(),
            self.eval_reader.block_shapes(1),
        )
        self._pool = ThreadPoolExecutor(1)
        self._pending: dict[tuple[int, bytes], Future] = {}
        rows_and_words = lambda key, step: [
            x for name, x in self._at(key, step).items() if name in ("rows", "words")
        ]
        self._places = jax.jit(jax.vmap(rows_and_words, (None, 0)))

    def train_batch(
        self, block: dict, key: Array, step: Array
    ) -> dict[str, Array]:  # {name: [K, B, ...]} -> {name: [B, ...]}
        """Return the training batch of a step, from a block.

        Args:
          block: the block that contains the step.
          key: of the trial.
          step: [].
        """
        places = self._at(key, step)
        rest = {name: x for name, x in places.items() if name not in ("rows", "words")}
        index = jnp.arange(self.examples, dtype=jnp.int32)
        return self._constrain(
            {name: x[step - block["first"]] for name, x in block["batches"].items()}
            | rest
            | dict(index=index)
        )

    def take_rows(
        self, block: dict, rows: Array
    ) -> dict[str, Array]:  # {name: [K, B, ...]}, [B] -> {name: [B, ...]}
        """Return the batch of these rows [B], from a block.

        Args:
          block: a block of `eval_arrays` or `sample_arrays`.
          rows: [B]; the first determines the batch of the block.
        """
        number = (rows[0] - block["first"]) // self.batch_size
        return {name: x[number] for name, x in block["batches"].items()}

    def train_arrays(
        self, key: np.ndarray, step: int
    ) -> dict:  # {"first": step, "batches": {name: [K, B, ...]}}
        """Return the block of batches that contains `step`, and start to read the next
        block in a thread. Waits for the block, which the previous call started to read.

        Args:
          key: data of the key of the order, uint32 [2].
          step: the next step.
        """
        pending, number = self._pending, step // self.capacity
        current, following = ((n, key.tobytes()) for n in (number, number + 1))
        submit = lambda what: pending.get(what) or self._pool.submit(self._block, key, what[0])
        self._pending = {current: submit(current)}
        block = self._pending[current].result()
        self._pending[following] = submit(following)
        return block

    def max_steps(self, step: int) -> int:
        """Return the number of steps from `step` to the end of its block."""
        return self.capacity - step % self.capacity

    def eval_arrays(
        self, start: int, count: int
    ) -> Iterator[tuple[int, int, dict]]:  # first batch, last batch + 1, block
        """Yield (first batch, last batch + 1, block of these batches) of `count` rows
        from `start` on; the last batch is padded with the last row.
        """
        end, each = -(-count // self.batch_size), self.eval_reader.batches
        for low in range(0, end, each):
            index = self.batch_size * low + np.arange(each * self.batch_size)
            rows = (start + np.minimum(index, count - 1)).astype(np.int32)
            yield (
                low,
                min(low + each, end),
                dict(first=rows[0], batches=self.eval_reader.read_block(rows.reshape(each, -1))),
            )

    def sample_arrays(
        self, rows: np.ndarray
    ) -> dict:  # [B] -> {"first": row, "batches": {name: [1, B, ...]}}
        """Return a block of one batch: the examples of these rows [B]."""
        return dict(first=rows[0], batches=self.eval_reader.read_block(rows[None]))

    def _block(self, key, number):
        first = number * self.capacity
        # On the CPU, because a device would queue this computation behind training.
        with jax.default_device(jax.local_devices(backend="cpu")[0]):
            places = self._places(
                jax.random.wrap_key_data(key, impl="threefry2x32"),
                first + np.arange(self.capacity, dtype=np.int32),
            )
        return dict(
            first=np.int32(first), batches=self.train_reader.read_block(*map(np.asarray, places))
        )


class BlockReader:
    """A reader of blocks of K batches [K, B, ...], sharded by `sharding`.

    Args:
      dataset: the data set.
      take: `Dataset.take` or `Dataset.vary`.
      batch_size: the number of examples of a batch, B.
      sharding: of the blocks.
      most: the most batches of a block; `BLOCK_BYTES` may allow fewer.
    """

    def __init__(
        self, dataset: Dataset, take: Callable, batch_size: int, sharding: NamedSharding, most: int
    ) -> None:
        self.arrays, self.take, self.batch_size, self.sharding = (
            dataset.arrays,
            take,
            batch_size,
            sharding,
        )
        # Shapes have at most 2^30 rows: int32 could not index more.
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

    def block_shapes(self, num_batches: int | None = None) -> dict:  # of jax.ShapeDtypeStruct
        """Return the shapes of a block of `num_batches` (default: a full block)."""
        of = lambda s: jax.ShapeDtypeStruct(
            (num_batches or self.batches, *s.shape), s.dtype, sharding=self.sharding
        )
        return dict(first=np.int32(0), batches=jax.tree.map(of, self.one))

    def read_block(
        self, *places: np.ndarray
    ) -> dict[str, jax.Array]:  # rows [K, B] (, words [K, B]) -> {name: [K, B, ...]}
        """Return a block {name: [K, B, ...]} of examples. Only the examples of this
        process's devices are read.

        Args:
          *places: the rows [K, B]; with `Dataset.vary` also the random words [K, B].
        """

        @functools.cache
        def part(low, high):
            local = [x[:, low:high] for x in places]
            # 64 bits, because byte offsets of rows may exceed 2^31.
            rows = local[0].reshape(-1).astype(np.int64)
            taken = self.take(self.arrays, rows, *(x.reshape(-1) for x in local[1:]))
            return {name: x.reshape(*local[0].shape, *x.shape[1:]) for name, x in taken.items()}

        def array(name, like):
            load = lambda at: np.asarray(
                part(*at[1].indices(self.batch_size)[:2])[name], like.dtype
            )
            return jax.make_array_from_callback((len(places[0]), *like.shape), self.sharding, load)

        return {name: array(name, like) for name, like in self.one.items()}


Feed = FromDevice | FromHost
# config.run.data_placement -> the class
FEEDS: dict[str, type[FromDevice] | type[FromHost]] = {"device": FromDevice, "host": FromHost}
