"""Data sets as arrays: `load(config.data)` returns a `Dataset`, by the function in
`DATASETS`; `data.schema` declares their names and keys.
"""

from typing import TYPE_CHECKING

from aigc_jax.utils.lazy import make_lazy_getattr

if TYPE_CHECKING:
    from aigc_jax.data.dataset import Dataset
    from aigc_jax.data.datasets import DATASETS, load

__all__ = ["DATASETS", "Dataset", "load"]

__getattr__ = make_lazy_getattr(
    __name__,
    dict.fromkeys(("DATASETS", "load"), "aigc_jax.data.datasets")
    | {"Dataset": "aigc_jax.data.dataset"},
)
