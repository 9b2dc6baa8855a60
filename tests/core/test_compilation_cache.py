"""The persistent cache of compiled programs."""

import json
import os
import subprocess
import sys
import threading

import pytest

from aigc_jax.core import compilation_cache
from aigc_jax.core.compilation_cache import (
    FILLED_AFTER_EVICTION,
    SUFFIX,
    ProgramCache,
    enable_compilation_cache,
    version_dir,
)
from aigc_jax.utils.errors import UserError

COMPILE = """
import collections, json, warnings
warnings.simplefilter("error")
from aigc_jax.core.compilation_cache import enable_compilation_cache
enabled = enable_compilation_cache()
import jax
events = collections.Counter()
jax.monitoring.register_event_listener(lambda name, **more: events.update([name]))
value = float(jax.jit(lambda x: x * 3 + 1)(2.0))
count = lambda name: events["/jax/compilation_cache/cache_" + name]
print(json.dumps(dict(enabled=enabled, value=value, hits=count("hits"), misses=count("misses"))))
"""


def compile_in_new_process(folder, **variables) -> dict:
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("JAX_", "AIGC_CACHE"))}
    out = subprocess.run(
        [sys.executable, "-c", COMPILE],
        env=kept | dict(JAX_PLATFORMS="cpu", XDG_CACHE_HOME=str(folder)) | variables,
        capture_output=True,
        text=True,
        check=False,
    )
    assert out.returncode == 0 and not out.stderr, out.stderr
    said = json.loads(out.stdout)
    assert said.pop("value") == 7.0
    return said


def test_second_process_compiles_nothing(tmp_path):
    first = compile_in_new_process(tmp_path)
    assert first == dict(enabled=True, hits=0, misses=first["misses"]) and first["misses"] > 0
    again = compile_in_new_process(tmp_path)
    assert again == dict(enabled=True, hits=first["misses"], misses=0)


@pytest.mark.parametrize("damage", ["cut off", "changed"])
def test_damaged_program_is_rebuilt_in_silence(tmp_path, damage):
    count = compile_in_new_process(tmp_path)["misses"]
    file = next(tmp_path.glob(f"aigc_jax/programs/*/*{SUFFIX}"))
    content = file.read_bytes()
    changed = content[:-1] + bytes([content[-1] ^ 1])
    file.write_bytes({"cut off": content[:-100], "changed": changed}[damage])
    assert compile_in_new_process(tmp_path) == dict(enabled=True, hits=count - 1, misses=1)
    assert len(file.read_bytes()) == pytest.approx(len(content), rel=0.01)
    assert compile_in_new_process(tmp_path) == dict(enabled=True, hits=count, misses=0)


@pytest.mark.parametrize(
    "variables", [dict(AIGC_CACHE="off"), dict(JAX_ENABLE_COMPILATION_CACHE="0")]
)
def test_switch_disables_the_cache(tmp_path, variables):
    said = compile_in_new_process(tmp_path, **variables)
    assert said == dict(enabled=False, hits=0, misses=0) and not list(tmp_path.iterdir())


def test_cache_directory_of_jax_takes_precedence(tmp_path):
    said = compile_in_new_process(tmp_path / "ours", JAX_COMPILATION_CACHE_DIR=str(tmp_path))
    assert not said["enabled"] and not (tmp_path / "ours").exists()


def test_directory_that_cannot_be_written_is_no_failure(tmp_path):
    (tmp_path / "aigc_jax").touch()
    assert compile_in_new_process(tmp_path)["hits"] == 0


@pytest.mark.unit
def test_other_values_of_the_switch_are_a_user_error(monkeypatch):
    monkeypatch.setenv("AIGC_CACHE", "no")
    with pytest.raises(UserError, match="AIGC_CACHE = 'no' in the environment must be on or off"):
        enable_compilation_cache()


@pytest.mark.unit
def test_unknown_internals_of_jax_are_no_failure(monkeypatch, tmp_path):
    monkeypatch.setattr(compilation_cache, "ATTRIBUTES", ("absent",))
    assert not compilation_cache._install(ProgramCache(tmp_path))


@pytest.mark.unit
def test_versions_and_processors_have_their_own_directories(monkeypatch):
    first = version_dir()
    monkeypatch.setattr("jaxlib.__version__", "0.0.1")
    second = version_dir()
    monkeypatch.setattr(compilation_cache, "describe_processor", lambda: "x86_64 without AVX")
    assert len({first, second, version_dir()}) == 3
    assert len({p.parent for p in (first, second, version_dir())}) == 1


@pytest.mark.unit
def test_least_recently_used_programs_are_removed(tmp_path):
    cache, old = ProgramCache(tmp_path / "new", 10_000), ProgramCache(tmp_path / "old", 10_000)
    old.put("a", b"x" * 2900)
    for i, key in enumerate("bc"):
        cache.put(key, b"x" * 2900)
        os.utime(cache.path / (key + SUFFIX), (i + 2, i + 2))
    os.utime(old.path / f"a{SUFFIX}", (1, 1))
    assert cache.get("b") == b"x" * 2900  # now c is older
    cache.put("d", b"x" * 2900)
    assert old.get("a") is None and cache.get("c") == cache.get("b") == cache.get("d")
    cache.put("e", b"x" * 2900)
    sizes = [p.stat().st_size for p in tmp_path.rglob("*") if p.is_file()]
    assert sum(sizes) <= FILLED_AFTER_EVICTION * 10_000 and cache.get("e") is not None
    assert not list(tmp_path.rglob("*.part"))


@pytest.mark.unit
def test_concurrent_writers_leave_complete_programs(tmp_path):
    values = [bytes([i]) * 200_000 for i in range(8)]
    caches = [ProgramCache(tmp_path / "v") for _ in values]
    read = []

    def write(cache, value):
        for _ in range(20):
            cache.put("key", value)
            read.append(cache.get("key"))

    threads = [
        threading.Thread(target=write, args=pair) for pair in zip(caches, values, strict=True)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(read) == 160 and set(read) <= set(values)
    assert [p.name for p in (tmp_path / "v").iterdir()] == [f"key{SUFFIX}"]
