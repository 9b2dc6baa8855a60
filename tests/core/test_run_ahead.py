"""The order of programs and of copies to the host."""

import pytest

from aigc_jax.core.distributed import run_ahead

pytestmark = pytest.mark.unit


def test_a_program_starts_before_the_output_of_the_last_one_is_copied():
    events = []

    def run_programs():
        for i in range(3):
            events.append(f"run {i}")
            yield i

    for output in run_ahead(run_programs()):
        events.append(f"copy {output}")
    assert events == ["run 0", "run 1", "copy 0", "run 2", "copy 1", "copy 2"]
    assert list(run_ahead([])) == []
