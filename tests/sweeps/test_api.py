"""Training and sweeps from Python: aigc_jax.train, sweep and load."""

import doctest
import signal
import subprocess
import sys
import threading

import jax
import matplotlib.pyplot
import pytest
from helpers import ROOT, environment
from option_runs import one_program
from tiny_configs import tiny

import aigc_jax
from aigc_jax import UserError
from aigc_jax.inference import train as training
from aigc_jax.sweeps import api, request
from aigc_jax.sweeps.compare import compare_runs
from aigc_jax.sweeps.engines.local import Local
from aigc_jax.training.programs import Programs


@pytest.fixture(scope="module")
def examples(tmp_path_factory):
    """Where the examples of the docstrings ran, and their results."""
    folder, patch = tmp_path_factory.mktemp("examples"), pytest.MonkeyPatch()
    patch.chdir(folder)
    one = jax.devices()[:1]  # as a job has
    patch.setattr(jax, "devices", lambda *_: one)
    patch.setenv("XLA_FLAGS", environment()["XLA_FLAGS"])
    names = dict(aigc_jax=aigc_jax)
    report, runner = [], doctest.DocTestRunner(verbose=False)
    with one_program():
        for function in (aigc_jax.train, aigc_jax.sweep, aigc_jax.load):
            (test,) = doctest.DocTestFinder().find(function, globs=names)
            runner.run(test, out=report.append)
    patch.undo()
    return folder / "runs", runner.summarize(verbose=False), report


@pytest.fixture(scope="module")
def sweep(examples):
    return aigc_jax.load(examples[0] / "lr")


def test_docstring_examples_pass(examples):
    _, results, report = examples
    assert results.failed == 0, "".join(report)
    assert results.attempted > 12


def test_importing_the_package_does_not_import_jax():
    code = (
        "import sys, aigc_jax\n"
        "assert 'numpy' not in sys.modules and 'aigc_jax.core' not in sys.modules\n"
        "aigc_jax.sweep, aigc_jax.load, aigc_jax.Sweep, aigc_jax.__version__\n"
        "assert 'jax' not in sys.modules\n"
        "assert set(aigc_jax.__all__) <= set(dir(aigc_jax))\n"
        "from aigc_jax import *\n"
        "assert train.__name__ == 'train' and Run.__name__ == 'Run'\n"
    )
    words = [sys.executable, "-c", code]
    subprocess.run(words, cwd=ROOT, env=environment(), check=True)
    with pytest.raises(AttributeError, match="has no attribute 'tain'"):
        _ = aigc_jax.tain


def test_finished_run_is_returned_unchanged(examples, monkeypatch):
    monkeypatch.setattr(
        Programs, "start_compiling_training", lambda _: None
    )  # what is not called is not compiled
    run = aigc_jax.train(None, examples[0] / "gan")
    assert run.step == 20 and run.config.latent_dim == 8
    assert aigc_jax.train(run.config, run.dir.path).step == 20
    with pytest.raises(
        UserError, match="holds another run: .*20 in the stored run and 21 in this run"
    ):
        aigc_jax.train(run.config, run.dir.path, {"steps": 21})


def test_errors_of_runs_and_sweeps_name_arguments(examples):
    run = aigc_jax.load(examples[0] / "gan")
    assert repr(run) == f"Run({str(examples[0] / 'gan')!r}, step 20)"
    for call, words in (
        (lambda: run.sample(split="foo"), "^split = 'foo' is none of train, valid, test"),
        (lambda: run.evaluate("foo"), "^split = 'foo' is none of train, valid, test"),
        (lambda: run.evaluate(samples=1), r"^samples=1 must be an integer in \[2, "),
        (lambda: run.evaluate(samples=0), "^samples=0 must be"),
        (lambda: run.evaluate(metrics="prdc"), "^metrics='prdc' must be a list of names"),
        (
            lambda: compare_runs([examples[0] / "gan", examples[0] / "lr"], None),
            "lr is a sweep: compare its trials, .*lr/trials/",
        ),
        (lambda: aigc_jax.load(""), "^path='' must name the directory of a run or of a sweep"),
        (lambda: aigc_jax.load(None), "^path=None must be the directory of a run or of a sweep"),
        (
            lambda: aigc_jax.load(examples[0] / "lr", "best"),
            "lr is a sweep: checkpoint=best is for one of its runs, such as sweep.run",
        ),
    ):
        with pytest.raises(UserError, match=words):
            call()


def test_sweep_runs_are_selected_by_overrides(sweep):
    every = [trial["trial"] for trial in sweep.trials()]
    assert sweep.trial_names() == every and len(every) == 4
    assert sweep.trial_names({"hp.lr": 1e-3}) == sweep.trial_names(lr="0.001") == every[:2]
    assert sweep.trial_names({"hp.lr": 1e-2}, seed=1) == every[3:]
    assert sweep.trial_names(lr=0.5) == [] and sweep.trial_names(steps="12 steps") == every
    assert sweep.run(lr=1e-2, seed=1).dir.path.name == every[3]
    assert [run.config.seed for run in sweep.runs(lr=1e-2)] == [0, 1]
    for keys, words in {
        "lr": "2 of the 4 trials of .* have lr = 0.01: ",
        "momentum": "no key of the sweep's configs ends in momentum",
        "name": "name is ambiguous: use a dict with one of the keys .*data.name",
        "latent_dims": "none of the 4 trials of .* has latent_dims = 0.01: they vary hp.lr|"
        "config.latent_dims = 0.01",
    }.items():
        with pytest.raises(UserError, match=words):
            sweep.run(**{keys: 1e-2})


def test_sweep_rows_form_a_table(sweep):
    rows = sweep.rows("valid")
    assert {row["split"] for row in rows} == {"valid"} and len(rows) < len(sweep.rows())
    assert {(row["hp.lr"], row["seed"]) for row in rows} == {
        (lr, seed) for lr in (1e-3, 1e-2) for seed in (0, 1)
    }
    assert sweep.table().startswith((sweep.path / "table.md").read_text().splitlines()[0])
    with pytest.raises(UserError, match="^metric=test/elbow is not in any row"):
        sweep.table("test/elbow")


def test_sweep_figure_displays_in_a_notebook_without_changing_its_backend(sweep):
    before = matplotlib.get_backend(), matplotlib.pyplot.get_fignums()
    figure = sweep.figure()
    assert figure._repr_png_().startswith(b"\x89PNG")
    assert (matplotlib.get_backend(), matplotlib.pyplot.get_fignums()) == before


def test_finished_sweep_starts_no_job(examples, monkeypatch):
    monkeypatch.setattr(Local, "run", lambda *_: pytest.fail("a job was started"))
    small = {"steps": 12, "nll_samples": 10, "latent_dims": (2,)}
    listed = [{"hp.lr": 1e-3, "seed": 1}, {"hp.lr": 1e-2, "seed": 0}]
    again = aigc_jax.sweep("vae_digits", listed, 0, examples[0] / "lr", small)
    assert len(again.trials()) == 4


def test_config_dict_and_grid_make_the_same_trials_as_the_command_line():
    grids = api._as_grids({"hp.lr": [1e-3, 1e-2], "latent_dims": [(2,), (3,)]})
    made = request.make_request(tiny("vae"), None, grids, 2, {"steps": 8})
    assert made.source == "ConfigDict" and len(made.trials) == 8 and made.base.steps == "8"
    assert made.trials[-1].overrides == {"hp.lr": 1e-2, "latent_dims": (3,), "seed": 1}
    assert len(request.make_request(None, ROOT / "experiments/vae_beta.py").trials) > 1


@pytest.mark.parametrize(
    "given, words",
    [
        (dict(config="vae_digits", workdir=""), "^workdir='' must name a directory"),
        (dict(config="vae_digits", workdir=None), "^workdir=None must be a directory"),
        (dict(config=3, seeds=2), "^config=3 must be a name, a path or a ConfigDict"),
        (dict(experiment=3), "^experiment=3 must be a name or a path"),
        (dict(config="vae_digits"), "^a sweep of a config needs grid or seeds"),
        (dict(config="vae_digits", seeds="2"), "^seeds='2' must be a number of seeds"),
        (dict(config="vae_digits", seeds=True), "^seeds=True must be a number of seeds"),
        (dict(config="vae_digits", seeds=-2), "^seeds=-2 must be a number of seeds, 1 to"),
        (dict(config="vae_digits", seeds=2, slots="2"), "^slots='2' must be a number of slots"),
        (dict(config="vae_digits", seeds=2, overrides=[1]), r"^overrides=\[1\] must be a dict"),
        (dict(config="vae_digits", grid="hp.lr"), "^grid='hp.lr' must be a dict such as"),
        (dict(config="vae_digits", seeds=2, metric="loss"), "^metric=loss must be SPLIT/NAME"),
        (dict(config="vae_digits", seeds=2, metric="vaild/loss"), "such as valid/loss, with a spl"),
        (
            dict(config="vae_digit", seeds=1),
            "^config=vae_digit: no such file; did you mean 'vae_digits'",
        ),
        (dict(), "^a sweep needs experiment=FILE, or config=FILE with grid and seeds=N"),
        (dict(config="a", experiment="b"), "^experiment and config cannot be combined"),
        (dict(experiment="vae_beta", seeds=2), "^grid and seeds need config; an experiment"),
        (dict(config="vae_digits", grid={"hp.lr": "1,2"}), r"^grid\['hp.lr'\] = '1,2' must be a"),
        (dict(config="vae_digits", grid=["hp.lr"]), "^grid has 'hp.lr': it must be a dict"),
        (dict(config="vae_digits", grid={"seed": [1]}, seeds=2), "^grid varies seed twice"),
        (
            dict(config="vae_digits", grid={"hp.lr": [1, 2]}, overrides={"hp.lr": 3}),
            "^config.hp.lr=3 changes no trial",
        ),
        (dict(config="vae_digits", seeds=2, engine="slrum"), "^engine = 'slrum' is none of local"),
        (dict(config="vae_digits", seeds=2, route="vmpa"), "^route = 'vmpa' .*did you mean 'vmap'"),
        (dict(config="vae_digits", seeds=2, slots=-1), "^slots=-1 must be 1 to"),
        (
            dict(config="vae_digits", seeds=2, engine_settings=dict(cpus=2)),
            "^cpus=2 is not used by engine=local, only by slurm, ray, k8s",
        ),
        (
            dict(config="vae_digits", seeds=2, engine="k8s", engine_settings=dict(address="a")),
            "^address=a is not used by engine=k8s, only by ray",
        ),
        (
            dict(config="vae_digits", engine_settings=dict(cpu=2)),
            r"^engine_settings\['cpu'\] is none of cpus, .*; did you mean 'cpus'",
        ),
    ],
)
def test_errors_name_arguments_and_create_no_files(tmp_path, given, words):
    with pytest.raises(UserError, match=words):
        aigc_jax.sweep(**dict(workdir=tmp_path / "sweep") | given)
    assert not (tmp_path / "sweep").exists()


def test_training_errors_name_arguments(tmp_path):
    for given, words in (
        ((None, tmp_path / "x"), "is not a run yet: set a config, such as config=gan_digits"),
        (("gan_digit", tmp_path / "x"), "^config=gan_digit: no such file"),
        ((3, tmp_path / "x"), "^config=3 must be a name, a path or a ConfigDict"),
        (("gan_digits", None), "^workdir=None must be a directory"),
        (("gan_digits", ""), "^workdir='' must name a directory"),
    ):
        with pytest.raises(UserError, match=words):
            aigc_jax.train(*given)
    for more, words in (
        (
            dict(restart=True, extend=9),
            "^restart discards the run, extend continues it: use only one",
        ),
        (dict(profile=(5, 2)), r"^profile=\(5, 2\) must be the first and the last of the steps"),
        (dict(profile=3), "^profile=3 must be the first and the last step"),
        (dict(profile=("a", 3)), r"^profile=\('a', 3\) must be the first and the last of the"),
        (dict(extend="9"), "^extend='9' must be a number of steps"),
        (dict(overrides=["steps=3"]), r"^overrides=\['steps=3'\] must be a dict such as"),
    ):
        with pytest.raises(UserError, match=words):
            aigc_jax.train(tiny(), tmp_path / "x", **more)
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("name, raised", [("SIGINT", KeyboardInterrupt), ("SIGTERM", SystemExit)])
def test_interrupted_training_saves_and_raises(tmp_path, monkeypatch, name, raised, capsys):
    stop = lambda *_, **__: [dict(status="preempted", step=7, signal=name)]
    monkeypatch.setattr(training.training, "train", stop)
    with pytest.raises(raised) as e:
        aigc_jax.train(tiny(), tmp_path)
    assert raised is KeyboardInterrupt or e.value.code == 128 + signal.SIGTERM
    assert capsys.readouterr().err == "preempted at step 7 and saved; the same call resumes\n"


def test_interrupted_sweep_raises_and_works_in_any_thread(tmp_path, monkeypatch, capsys):
    handlers = []

    def interrupt(*_):
        handlers.append(signal.getsignal(signal.SIGTERM))
        raise KeyboardInterrupt

    monkeypatch.setattr(Local, "run", interrupt)
    before, raised = signal.getsignal(signal.SIGTERM), []

    def start():
        with pytest.raises(KeyboardInterrupt):
            aigc_jax.sweep(tiny("vae"), seeds=2, workdir=tmp_path)
        raised.append(True)

    start()
    thread = threading.Thread(target=start)
    thread.start()
    thread.join()
    assert raised == [True, True] and handlers == [signal.default_int_handler, before]
    assert signal.getsignal(signal.SIGTERM) == before
    assert capsys.readouterr().err.count("trials save a checkpoint; the same call resumes\n") == 2
