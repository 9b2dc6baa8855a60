"""Metrics over data sets: pure functions of arrays, in `METRICS`; `metrics.schema`
declares their names and keys.
"""

from typing import TYPE_CHECKING

from aigc_jax.utils.lazy import make_lazy_getattr

if TYPE_CHECKING:
    from aigc_jax.metrics.definitions import (
        EXTRACTED,
        METRICS,
        describe_metric,
        metric_definition,
        select_metrics,
    )

__all__ = ["EXTRACTED", "METRICS", "describe_metric", "metric_definition", "select_metrics"]

__getattr__ = make_lazy_getattr(__name__, dict.fromkeys(__all__, "aigc_jax.metrics.definitions"))
