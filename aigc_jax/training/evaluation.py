"""Metrics of trained states: the method's own, and metrics of samples and examples."""

import functools
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence

import jax
import numpy as np

from aigc_jax import metrics
from aigc_jax.core.method import TrainState
from aigc_jax.data.dataset import Dataset
from aigc_jax.media import images
from aigc_jax.metrics.inputs import MetricInputs, make_cached_extractor
from aigc_jax.training.programs import Programs
from aigc_jax.utils.errors import UserError, format_suggestion, mark_argument, require

BLOCK = 4096  # examples of a split that are read at once


def iterate_example_blocks(
    dataset: Dataset, split: str
) -> Iterator[dict[str, np.ndarray]]:  # of {name: [at most BLOCK, ...]}
    """Yield the examples of a split in order, in blocks of at most `BLOCK`, as arrays
    on the host; images as `media.images.quantize_as_saved` returns them.
    """
    start, count = dataset.splits[split]
    for first in range(0, count, BLOCK):
        rows = start + np.arange(first, min(first + BLOCK, count))
        block = dataset.take(dataset.arrays, rows)
        if "x" in block:
            block["x"] = images.quantize_as_saved(block["x"], dataset.spec)
        yield block


def read_examples(
    dataset: Dataset, split: str
) -> dict[str, np.ndarray]:  # {name: [all examples of the split, ...]}
    """Return all examples of a split, as `iterate_example_blocks` yields them."""
    count, first = dataset.splits[split][1], 0
    examples: dict[str, np.ndarray] = {}
    for block in iterate_example_blocks(dataset, split):
        for name, value in block.items():
            if name not in examples:
                examples[name] = np.empty((count, *value.shape[1:]), value.dtype)
            examples[name][first : first + len(value)] = value
        first += len(value)
    return examples


def check_best_metric(metric: str, row: Mapping[str, float]) -> None:
    """Raise a UserError unless config.best_metric is "" or names a value of a row of
    the split valid.
    """
    known = [f"valid/{name}" for name in row]
    require(
        metric in known or not metric,
        f"config.best_metric = {metric!r} is not a row metric; available: {', '.join(known)}"
        f"{format_suggestion(metric, known)}",
    )


class Evaluator:
    """Evaluation of the states of N trials by their compiled programs.

    Args:
      programs: the compiled programs of the trials.
      make_extractor: config -> feature extractor of images (`feature_extractors`),
        called once, when a metric first needs it; None: metrics of features raise a
        UserError.
    """

    def __init__(self, programs: Programs, make_extractor: Callable | None = None) -> None:
        self.programs, self._make_extractor = programs, make_extractor
        self._features: Callable | None = None
        # Per trial, of the last evaluation: {name: tokenization of a text metric}.
        self.metric_signatures: list[dict[str, str]] = [{} for _ in range(programs.num_trials)]

    def evaluate(
        self,
        states: TrainState,
        split: str,
        num_samples: int,
        sample_metrics: Sequence[str] | None = None,
    ) -> list[dict[str, float]]:  # [N] of {metric: value}
        """Return the metrics of every trial: the method's own over the complete split,
        then those of config.metrics.

        Args:
          states: the stacked states [N, ...].
          split: name of the split: train, valid or test.
          num_samples: number of samples that each sample metric uses.
          sample_metrics: names of the sample metrics; None: those of config.metrics.

        Returns:
          {name: value} per trial. Values that are not numbers (signatures of BLEU) are
          stored in `metric_signatures`.

        Raises:
          UserError: a metric does not exist, or needs a sampler that the method lacks.
        """
        method, config = self.programs.method, self.programs.config
        functions = (
            metrics.select_metrics(config.metrics, method.samplers, config.method)
            if sample_metrics is None
            else metrics.select_metrics(
                sample_metrics, method.samplers, config.method, error_key=mark_argument("metrics")
            )
        )
        sums = self.programs.evaluate_batches(states, split)
        rows = [
            method.summarize(jax.tree.map(lambda x, i=i: np.float64(x[i]), sums))
            for i in range(self.programs.num_trials)
        ]
        self.metric_signatures = [{} for _ in rows]
        inputs = self._metric_inputs(states, split, num_samples)
        for i, (row, signatures) in enumerate(zip(rows, self.metric_signatures, strict=True)):
            values = (metric(inputs(i)).items() for metric in functions)
            for name, value in itertools.chain.from_iterable(values):
                (signatures if isinstance(value, str) else row)[name] = value
        return rows

    def _metric_inputs(
        self, states: TrainState, split: str, num_samples: int
    ) -> Callable[[int], MetricInputs]:
        """Return (index of a trial) -> inputs of its metrics. Samples are drawn, and
        splits read, when a metric first uses them.
        """
        dataset, programs = self.programs.dataset, self.programs
        examples = functools.cache(functools.partial(read_examples, dataset))
        labels = functools.cache(lambda: programs.read_class_labels(split, num_samples))

        @functools.cache
        def samples(what):
            drawn = programs.draw(states, what, num_samples, split, labels=labels())
            saved = [images.quantize_as_saved(x, dataset.spec) for x in drawn]
            if dataset.tokenizer is None:
                return saved
            return [[dataset.tokenizer.decode_until_end(row) for row in rows] for rows in saved]

        return lambda i: MetricInputs(
            lambda what: samples(what)[i],
            split,
            examples,
            dataset.spec,
            self.extract_features,
            labels,
            functools.partial(iterate_example_blocks, dataset),
        )

    def extract_features(
        self, x: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:  # [n, H, W, C] -> features [n, D], probabilities [n, K]
        """Return features and class probabilities of images, by the extractor."""
        if self._make_extractor is None:
            raise UserError("a metric needs a feature extractor, but this evaluator has none")
        if self._features is None:
            self._features = make_cached_extractor(self._make_extractor(self.programs.config))
        return self._features(x)

    def discard_extractor(self) -> None:
        """Discard the extractor and its features; a new one is made on next use."""
        self._features = None
