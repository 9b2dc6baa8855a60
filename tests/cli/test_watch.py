"""The command `sweep --watch`."""

from aigc_jax.cli.main import main
from aigc_jax.sweeps.sweep import Sweep


def test_watching_a_finished_sweep_returns_zero(tmp_path, capsys):
    Sweep(tmp_path).add_trials([], "test")
    assert main(["sweep", f"--workdir={tmp_path}", "--watch"]) == 0
    assert "route" in capsys.readouterr().out
