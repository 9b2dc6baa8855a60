"""Unpickling of data only: numbers, strings and containers, and the globals that the
caller allows. Code of a file is never executed.
"""

import pickle
from collections.abc import Callable
from typing import IO, Any

from aigc_jax.utils.errors import UserError


def read_pickle(
    file: IO[bytes],
    allowed: dict[tuple[str, str], Any],
    load_persistent: Callable[[Any], Any] | None = None,
    path: str = "",
) -> Any:  # the next object of the file
    """Return the next object of an open binary file.

    Args:
      file: a binary file, at the beginning of a pickle.
      allowed: {(module, name): the object that replaces this global}.
      load_persistent: a function from a persistent id to its object; by default
        persistent ids are errors.
      path: the file's name, for error messages.

    Raises:
      UserError: the pickle is damaged, or refers to a global that is not in `allowed`.
    """

    class Reader(pickle.Unpickler):
        def find_class(self, module, name):
            if (module, name) not in allowed:
                raise UserError(
                    f"{path} refers to {module}.{name}, which is not data, and was not read"
                )
            return allowed[module, name]

        def persistent_load(self, pid):
            if load_persistent is None:
                raise UserError(f"{path} refers to an object outside the file, and was not read")
            return load_persistent(pid)

    try:
        return Reader(file, encoding="bytes").load()
    except UserError:
        raise
    except Exception as e:  # a damaged pickle can raise almost any exception
        reason = f"{type(e).__name__}: {e}".splitlines()[0]
        raise UserError(f"{path} is not a readable pickle: {reason}") from None
