"""Python files of the user (configs and experiments): lookup by path or name, import
with user-facing errors.
"""

import contextlib
import importlib.util
import os.path
import re
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

from aigc_jax.utils.errors import (
    UserError,
    format_command,
    format_suggestion,
    mark_argument,
    require,
)

PACKAGE = Path(__file__).resolve().parent.parent
REPOSITORY = PACKAGE.parent
# Files that ship with the package's code: configs/ and experiments/ with their
# committed rows. A wheel stores them below the package, where nothing is written.
SHIPPED = PACKAGE / "_share"
IS_CHECKOUT = not SHIPPED.is_dir()
SHARE = REPOSITORY if IS_CHECKOUT else SHIPPED


def find_python_file(name_or_path: str | Path, kind: str) -> Path:
    """Return the path of the Python file of a config or an experiment.

    Args:
      name_or_path: the path of a file, or the name of a shipped file, with or without
        .py.
      kind: "config" or "experiment".

    Raises:
      UserError: the file does not exist, and the message suggests the nearest name; or
        the file is not a Python file.
    """
    folder = f"{kind}s"
    bases = [
        Path(name_or_path),
        *(Path(root, folder, name_or_path) for root in ("", SHARE)),
        SHARE / name_or_path,
    ]
    paths = [p for base in bases if base.name for p in (base, base.with_name(f"{base.name}.py"))]
    existing = list(filter(os.path.isfile, paths))
    # A file without .py is not a Python file, and must not hide NAME.py.
    found = next((p for p in existing if p.suffix == ".py"), existing[0] if existing else None)
    if found is None:
        require(
            not os.path.isdir(name_or_path),
            f"{mark_argument(kind)}={name_or_path} is a directory, not the file of a {kind}",
        )
        shipped = sorted((SHARE / folder).glob("*.py"))
        beside = (
            sorted(Path(name_or_path).parent.glob("*.py"))
            if os.path.isdir(Path(name_or_path).parent)
            else []
        )
        shown = {p.stem: str(p) for p in beside} | {p.stem: p.stem for p in shipped}
        near = format_suggestion(Path(name_or_path).stem, shown, least_similarity=0.6)
        near = re.sub("'(.*)'", lambda found: repr(shown[found[1]]), near)
        raise UserError(
            f"{mark_argument(kind)}={name_or_path}: no such file{near} "
            f"({format_command('list')} shows the {folder})"
        )
    require(found.suffix == ".py", f"{mark_argument(kind)}={name_or_path} is not a Python file")
    return found


def import_python_file(path: Path, kind: str) -> ModuleType:
    """Import a user's Python file and return the module. Like a script, the file may
    import modules of its own directory.

    Args:
      path: a file that ends in .py.
      kind: "config" or "experiment", the argument that named the file.

    Raises:
      UserError: the file is not valid Python, or raises an exception.
    """
    spec = importlib.util.spec_from_file_location(f"{kind}_{path.stem}", path)
    assert spec is not None and spec.loader is not None  # holds for every name that ends in .py
    module = importlib.util.module_from_spec(spec)
    folder = str(path.resolve().parent)
    sys.path.insert(0, folder)
    try:
        with convert_user_code_errors(path, kind):
            spec.loader.exec_module(module)
    finally:
        sys.path.remove(folder)
    return module


@contextlib.contextmanager
def convert_user_code_errors(
    path: str | Path, kind: str
) -> Iterator[None]:  # Exception -> UserError
    """Convert exceptions of a user's code in this context to UserErrors that name the
    line.

    Args:
      path: the user's file.
      kind: "config" or "experiment", the argument that named the file.
    """
    try:
        yield
    except UserError:
        raise
    except SyntaxError as e:
        raise UserError(
            f"{mark_argument(kind)}={path} is not valid Python: line {e.lineno}: {e.msg}"
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
            f"{mark_argument(kind)}={path} raises {type(e).__name__}{where}: {message}"
        ) from None
