"""Python files of the user, configs and experiments: found by path or name, imported with errors as sentences."""

import contextlib
import importlib.util
import os.path
import traceback
from pathlib import Path

from aigc_jax.errors import UserError, nearest, require

REPOSITORY = Path(__file__).resolve().parent.parent


def find_file(path, flag: str) -> Path:
    """The Python file that --config or --experiment names: a path, or a name in configs/ or
    experiments/, with or without .py. Raises a UserError with the nearest name."""
    folder = f"{flag}s"
    bases = [Path(path), *(Path(root, folder, path) for root in ("", REPOSITORY)), REPOSITORY / path]
    tried = [p for base in bases if base.name for p in (base, base.with_name(f"{base.name}.py"))]
    found = next(filter(os.path.isfile, tried), None)
    if found is None:
        shipped = sorted((REPOSITORY / folder).glob("*.py"))
        beside = sorted(Path(path).parent.glob("*.py")) if os.path.isdir(Path(path).parent) else []
        known = [*map(str, beside), *(p.stem for p in shipped), *(f"{folder}/{p.name}" for p in shipped)]
        raise UserError(f"--{flag}={path}: no such file{nearest(str(path), known)}")
    require(found.suffix == ".py", f"--{flag}={path} is no Python file")
    return found


def import_file(path: Path, flag: str):
    """The module of a user's Python file; what it raises becomes a UserError."""
    spec = importlib.util.spec_from_file_location(f"{flag}_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    with user_code(path, flag):
        spec.loader.exec_module(module)
    return module


@contextlib.contextmanager
def user_code(path: Path, flag: str):
    """Exceptions of the code in a user's file as a UserError that names the line."""
    try:
        yield
    except UserError:
        raise
    except SyntaxError as e:
        raise UserError(f"--{flag}={path} is no valid Python: line {e.lineno}: {e.msg}") from None
    except Exception as e:
        lines = [frame.lineno for frame in traceback.extract_tb(e.__traceback__) if frame.filename == str(path)]
        where = f" in line {lines[-1]}" if lines else ""
        said = " ".join(str(e).split())
        raise UserError(f"--{flag}={path} raises {type(e).__name__}{where}: {said}") from None
