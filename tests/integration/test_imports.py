"""What a run imports, and when."""

import subprocess
import sys

from helpers import ROOT, environment


def test_run_imports_no_heavy_package_before_its_end(tmp_path):
    """A run reads the digits, logs to TensorBoard and writes a sheet of images without
    scikit-learn, PyTorch and Matplotlib, and imports Orbax when it first saves.
    """
    code = (
        "import sys; from aigc_jax.cli.main import main; from aigc_jax.training import trial\n"
        "from aigc_jax.training.checkpoints import Checkpoints\n"
        "heavy = lambda: [n for n in NAMES if n in sys.modules]\n"
        "NAMES = ('sklearn', 'torch', 'matplotlib', 'orbax.checkpoint')\n"
        "save = Checkpoints.save\n"
        "Checkpoints.save = lambda *words: (print('save', heavy()), save(*words))\n"
        "trial.Trial.draw_curves = lambda *words: print('curves', heavy())\n"
        "main(sys.argv[1:])"
    )
    sizes = ["model.g.widths=(8,)", "model.d.widths=(8,)", "latent_dim=4", "num_metric_samples=8"]
    more = ["steps=4", "run.eval_every=2", "run.sample_every=2", "run.save_every=4"]
    words = [f"--config.{word}" for word in [*sizes, *more]]
    done = subprocess.run(
        [sys.executable, "-c", code, "train", "--config=gan_digits", f"--workdir={tmp_path}/run"]
        + words,
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
        env=environment(),
    )
    assert done.returncode == 0, done.stderr
    assert "save []\n" in done.stdout and "curves ['orbax.checkpoint']\n" in done.stdout
