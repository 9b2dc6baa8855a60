"""Python files of the user (configs and experiments): lookup by path or name, import
with user-facing errors.
"""

import contextlib
import importlib.util
import os.path
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

from aigc_jax.utils.errors import UserError, argument, nearest, require

PACKAGE = Path(__file__).resolve().parent.parent
REPOSITORY = PACKAGE.parent
# Files that ship with the package's code: configs/ and experiments/ with their
# committed rows. A wheel stores them below the package, where nothing is written.
SHIPPED = PACKAGE / "_share"
IS_CHECKOUT = not SHIPPED.is_dir()
SHARE = REPOSITORY if IS_CHECKOUT else SHIPPED


def find_file(path: str | Path, kind: str) -> Path:
    """Return the path of the Python file of a config or an experiment.

    Args:
      path: the path of a file, or the name of a shipped file, with or without .py.
      kind: "config" or "experiment".

    Raises:
      UserError: the file does not exist, and the message suggests the nearest name; or
        the file is not a Python file.
    """
    folder = f"{kind}s"
    bases = [Path(path), *(Path(root, folder, path) for root in ("", SHARE)), SHARE / path]
    paths = [p for base in bases if base.name for p in (base, base.with_name(f"{base.name}.py"))]
    existing = list(filter(os.path.isfile, paths))
    # A file without .py is not a Python file, and must not hide NAME.py.
    found = next((p for p in existing if p.suffix == ".py"), existing[0] if existing else None)
    if found is None:
        shipped = sorted((SHARE / folder).glob("*.py"))
        beside = sorted(Path(path).parent.glob("*.py")) if os.path.isdir(Path(path).parent) else []
        known = [
            *map(str, beside),
            *(p.stem for p in shipped),
            *(f"{folder}/{p.name}" for p in shipped),
        ]
        raise UserError(f"{argument(kind)}={path}: no such file{nearest(str(path), known)}")
    require(found.suffix == ".py", f"{argument(kind)}={path} is not a Python file")
    return found


def import_file(path: Path, kind: str) -> ModuleType:
    """Import a user's Python file and return the module. Like a script, the file may
    import modules of its own directory. Its exceptions become UserErrors.
    """
    spec = importlib.util.spec_from_file_location(f"{kind}_{path.stem}", path)
    assert spec is not None and spec.loader is not None  # holds for every name that ends in .py
    module = importlib.util.module_from_spec(spec)
    folder = str(path.resolve().parent)
    sys.path.insert(0, folder)
    try:
        with user_code(path, kind):
            spec.loader.exec_module(module)
    finally:
        sys.path.remove(folder)
    return module


@contextlib.contextmanager
def user_code(path: str | Path, kind: str) -> Iterator[None]:
    """Convert exceptions of a user's code to UserErrors that name the line."""
    try:
        yield
    except UserError:
        raise
    except SyntaxError as e:
        raise UserError(
            f"{argument(kind)}={path} is not valid Python: line {e.lineno}: {e.msg}"
        ) from None
    except Exception as e:
        lines = [
            frame.lineno
            for frame in traceback.extract_tb(e.__traceback__)
            if os.path.abspath(frame.filename) == os.path.abspath(path)
        ]
        where = f" in line {lines[-1]}" if lines else ""
        message = " ".join(str(e).split())
        raise UserError(
            f"{argument(kind)}={path} raises {type(e).__name__}{where}: {message}"
        ) from None
