"""Pickles read as data: numbers, texts and containers, and beside them only what the
reader names. No code of a file ever runs.
"""

import pickle

from aigc_jax.utils.errors import UserError


def read(file, allowed: dict, persistent=None, path=""):
    """The next object of an open binary file.

    allowed      (module, name) -> what stands for it here; a pickle that asks for
                 anything else raises a UserError
    persistent   what a persistent id stands for: a function of it
    path         the file's name, for messages
    """

    class Reader(pickle.Unpickler):
        def find_class(self, module, name):
            if (module, name) not in allowed:
                raise UserError(
                    f"{path} asks for {module}.{name}, which is not data: it was not read"
                )
            return allowed[module, name]

        def persistent_load(self, pid):
            if persistent is None:
                raise UserError(f"{path} refers to something outside of itself: it was not read")
            return persistent(pid)

    try:
        return Reader(file, encoding="bytes").load()
    except UserError:
        raise
    except Exception as e:  # a damaged pickle can raise nearly anything
        reason = f"{type(e).__name__}: {e}".splitlines()[0]
        raise UserError(f"{path} is no readable pickle: {reason}") from None
