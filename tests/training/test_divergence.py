"""Runs that diverge: the status and the error name the step, the value, the last finite
values, and the files and hyper-parameters to look at.
"""

import re

import numpy as np
import pytest
from runs import train
from tiny_configs import methods_of, tiny

from aigc_jax.inference.train import train_run
from aigc_jax.methods.schema import applicable_hparams
from aigc_jax.training import config as configs
from aigc_jax.training.divergence import SUSPECTS, describe_divergence, list_suspects
from aigc_jax.training.run_dir import RunDir
from aigc_jax.training.schema import allowed_keys
from aigc_jax.training.trial import Trial
from aigc_jax.utils.errors import UserError

HUGE = 1e30


def diverging(name):
    """The tiny config of a method with huge learning rates."""
    rates = [rate for rate in ("lr", "lr_g", "lr_d") if rate in tiny(name).hp]
    return tiny(name, **{f"hp__{rate}": HUGE for rate in rates})


@methods_of("gan", "vae")
def test_huge_learning_rate_names_step_metric_and_hyperparameters(name, tmp_path):
    config = diverging(name)
    status = train(config, tmp_path)[0]
    assert status["status"] == "failed: diverged"
    reason, step = status["reason"], status["step"]
    assert reason.startswith(f"{status['metric']} is not finite at step {step}; ")
    assert status["metric"] in RunDir(tmp_path).read_rows()[-1]
    if step > 1:
        before = status["before"]
        assert before.pop("step") == step - 1 and np.isfinite(list(before.values())).all()
        assert f"; the last finite values, of step {step - 1}: " in reason
        assert all(f"{metric} = " in reason for metric in list(before)[:8])
    named = set(re.findall(r"config\.hp\.(\w+) = ", reason))
    read = applicable_hparams(configs.flatten_config(config))
    assert named <= set(read) and named >= {key for key in read if key.startswith("lr")}
    assert "inspect rows.jsonl and config.hp.lr" in reason and f"= {HUGE:g}" in reason


def test_suspects_are_those_that_the_choices_read():
    assert (
        list_suspects(tiny("gan_menu"))[-1]
        == "config.optimizer = 'adam' ('adamw' has hp.grad_clip)"
    )
    names = [text.split(" = ")[0] for text in list_suspects(tiny("gan_menu"))]
    assert names[:2] == ["config.hp.lr_g", "config.hp.lr_d"]
    assert {"config.hp.r1", "config.hp.gradient_penalty", "config.hp.consistency"} <= set(names)
    clipped = tiny("vae", optimizer="adamw")
    assert "config.hp.grad_clip = 0 (above 0 clips gradients)" in list_suspects(clipped)
    assert {key.removeprefix("hp.") for key in allowed_keys("vae", "mlp")} >= {*SUSPECTS}


def test_last_finite_values_are_those_of_the_step_before(tmp_path):
    run = RunDir(tmp_path)
    trial = Trial(tiny("vae"), run)
    losses = np.array([3.0, 2.0, 1.0], np.float32)
    trial.write_train_rows(4, dict(loss=losses), lambda step: step == 6)
    assert trial.failed is None and trial.last_finite == dict(step=7, loss=1.0)
    trial.write_train_rows(7, dict(loss=np.array([np.nan, 1.0])), lambda step: False)
    assert trial.failed == dict(step=8, metric="loss", before=dict(step=7, loss=1.0))
    reason = run.read_status()["reason"]
    assert reason.startswith(
        "loss is not finite at step 8; the last finite values, of step 7: loss = 1; inspect "
    )


def test_first_call_after_resuming_reads_the_last_finite_row(tmp_path):
    first = Trial(tiny("vae"), RunDir(tmp_path))
    first.write_train_rows(0, dict(loss=np.array([3.0, 2.0, 1.0])), lambda step: step == 2)
    first.dir.close()
    resumed = Trial(tiny("vae"), RunDir(tmp_path))
    resumed.mark_diverged(4, "params/net/Dense_0/kernel")
    assert resumed.failed["before"] == dict(step=2, loss=2.0)
    assert "before" not in describe_divergence(dict(step=1, metric="loss"), tiny("vae"))


def test_error_of_a_diverged_run_names_curves_and_checkpoint(tmp_path, drawn_curves):
    config = diverging("vae")
    with pytest.raises(UserError) as error:
        train_run(config, tmp_path / "run")
    message = str(error.value)
    assert message.startswith(f"{tmp_path / 'run'} failed: diverged: ")
    assert f"; curves: {tmp_path / 'run' / 'curves.png'}; no checkpoint exists; restart" in message
    assert (tmp_path / "run" / "curves.png").stat().st_size > 1000
    with pytest.raises(UserError, match="a diverged run cannot resume: begin again with other"):
        train_run(config, tmp_path / "run")
    with pytest.raises(UserError, match="is not finite"):
        train_run(config, tmp_path / "run", restart=True)
