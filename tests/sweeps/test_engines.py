"""Engines: processes here, tasks that are sent away, a manifest for Kubernetes, and
what is said of clusters that are not there.

Real clusters: tests/integration.
"""

import math
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from types import SimpleNamespace

import pytest
import yaml
from helpers import ROOT

from aigc_jax.sweeps import engines
from aigc_jax.sweeps.engines import base, slurm
from aigc_jax.sweeps.engines.base import EXIT_PREEMPTED, ExitStatus, Job, Task
from aigc_jax.sweeps.engines.kubernetes import Kubernetes
from aigc_jax.sweeps.engines.local import Local
from aigc_jax.utils.errors import UserError
from aigc_jax.utils.subprocesses import MODULE

# It says that it runs, and saves when it is told to stop.
PATIENT = """
import signal, sys, time
def save(*_):
    print("saved", flush=True)
    sys.exit(143)
signal.signal(signal.SIGTERM, save)
print("runs", flush=True)
time.sleep(60)
"""


def python(tmp_path, name, code):
    return Job(name, ["-c", code], tmp_path / f"{name}.txt")


def wait_for(path, text):
    end = time.monotonic() + 20
    while not (path.exists() and text in path.read_text()):
        assert time.monotonic() < end, f"{path} never said {text!r}"
        time.sleep(0.01)


def words(tmp_path, **more):
    """The words of `launch.py sweep` that engines read."""
    given = dict(
        workdir=str(tmp_path / "My sweep"),
        slots=0,
        cpus=1.0,
        gpus=0.0,
        time=0,
        partition="",
        slurm=[],
        address="",
        image="lab/aigc:1",
        claim="",
    )
    return SimpleNamespace(**(given | more))


# -- here


def test_concurrent_jobs_equal_the_number_of_slots(tmp_path):
    meet = (
        "import pathlib, time\nfolder = pathlib.Path({0!r})\n(folder / '{1}').touch()\nend "
        "= time.time() + 5\n"
        "while len(list(folder.glob('[ab]'))) < 2 and time.time() < end: "
        "time.sleep(0.01)\nassert len(list(folder.glob('[ab]'))) == 2"
    )
    met = Local(slots=2).run(
        [python(tmp_path, name, meet.format(str(tmp_path), name)) for name in "ab"]
    )
    assert met == {"a": ExitStatus(0, ""), "b": ExitStatus(0, "")}
    alone = (
        "import os, pathlib, time\nflag = pathlib.Path({0!r}) / "
        "'flag'\nflag.touch(exist_ok=False)\ntime.sleep(0.1)\nflag.unlink()"
    )
    assert all(
        end.code == 0
        for end in Local(slots=1)
        .run([python(tmp_path, name, alone.format(str(tmp_path))) for name in "cde"])
        .values()
    )


def test_exit_reasons_of_jobs(tmp_path):
    failing = "import sys\nprint('step 3')\nsys.exit('error: the disk is full')"
    given = dict(
        fine="print('done')",
        failing=failing,
        silent="raise SystemExit(3)",
        killed="import os\nos.kill(os.getpid(), 9)",
        crashed="import os\nos.kill(os.getpid(), 6)",
    )
    looks = []
    ended = Local(slots=5).run(
        [python(tmp_path, name, code) for name, code in given.items()], lambda: looks.append(1)
    )
    assert (
        ended["fine"] == (0, "")
        and ended["failing"] == (1, "the disk is full")
        and ended["silent"] == (3, "exit code 3")
    )
    assert (
        ended["killed"] == (-9, "ended by SIGKILL (probably out of memory)")
        and ended["crashed"] == (-6, "ended by SIGABRT")
        and looks
    )
    assert (tmp_path / "failing.txt").read_text().startswith("step 3\n")


def test_each_slot_gets_one_gpu(tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,6")
    assert Local().slot_gpus == ["4", "6"] and Local(3).slot_gpus == ["4", "6", "4"]
    Local().run(
        [
            python(tmp_path, name, "import os\nprint(os.environ['CUDA_VISIBLE_DEVICES'])")
            for name in "ab"
        ]
    )
    assert {(tmp_path / f"{name}.txt").read_text() for name in "ab"} == {"4\n", "6\n"}
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert Local().slot_gpus == [None] and Local(2).slot_gpus == [None, None]


def test_interrupt_reaches_jobs_and_waits_until_they_saved(tmp_path):
    def stop_once_all_run():
        if all(
            (tmp_path / f"{name}.txt").exists() and "runs" in (tmp_path / f"{name}.txt").read_text()
            for name in "ab"
        ):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Local(slots=2).run([python(tmp_path, name, PATIENT) for name in "abc"], stop_once_all_run)
    assert [(tmp_path / f"{name}.txt").read_text() for name in "ab"] == [
        "runs\nsaved\n"
    ] * 2 and not (tmp_path / "c.txt").exists()


# -- tasks that are sent away


@pytest.fixture
def handlers():
    """Tasks set signal handlers, for they are alone in their processes."""
    kept = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in kept.items():
        signal.signal(number, handler)


@pytest.fixture(params=["soon", "late"])
def started(request, monkeypatch):
    """A program is known to its task before it runs, or only when it has been told."""
    popen = subprocess.Popen
    late = lambda *words, **more: (popen(*words, **more), time.sleep(0.5))[0]
    if request.param == "late":
        monkeypatch.setattr(base.subprocess, "Popen", late)


def test_task_returns_the_exit_code(tmp_path, handlers):
    assert Task(python(tmp_path, "a", "raise SystemExit(7)"))() == (7, "")
    assert Task(python(tmp_path, "b", "import os\nos.kill(os.getpid(), 15)"))() == (
        EXIT_PREEMPTED,
        "stopped before it started",
    )
    assert Task(python(tmp_path, "c", "import os\nos.kill(os.getpid(), 9)"))() == (-9, "")
    code, why = Task(python(tmp_path / "elsewhere", "d", ""))()
    assert code == 1 and why.startswith("its machine cannot access the sweep: ")
    seen = python(
        tmp_path, "e", "import os\nprint(os.environ['CUDA_VISIBLE_DEVICES'], os.getcwd())"
    )
    assert (
        Task(seen, dict(CUDA_VISIBLE_DEVICES="none"))() == (0, "")
        and seen.log.read_text() == f"none {os.getcwd()}\n"
    )


def test_interrupted_task_lets_its_program_save(tmp_path, handlers, started):
    """How Ray cancels a task."""
    job = python(tmp_path, "a", PATIENT)
    threading.Thread(
        target=lambda: (wait_for(job.log, "runs"), os.kill(os.getpid(), signal.SIGINT))
    ).start()
    with pytest.raises(KeyboardInterrupt):
        Task(job)()
    assert job.log.read_text() == "runs\nsaved\n"


@pytest.fixture
def submitit(monkeypatch):
    """As much of it as tasks need, where it is not installed."""
    made = {
        name: type(sys)(name)
        for name in (
            "submitit",
            "submitit.core",
            "submitit.core.utils",
            "submitit.helpers",
            "cloudpickle",
        )
    }
    made["submitit.core.utils"].UncompletedJobError = type(
        "UncompletedJobError", (RuntimeError,), {}
    )
    made["submitit.helpers"].DelayedSubmission = lambda task: task
    for name, module in made.items():
        monkeypatch.setitem(sys.modules, name, module)


def test_slurm_signals_a_task_to_stop(tmp_path, handlers, submitit, monkeypatch):
    """TERM reaches the program by Slurm and by its task: it saves once, and is not
    ended by the second. USR2 is not for the program.
    """
    monkeypatch.setattr(slurm, "LINGER", 0.0)
    twice = PATIENT.replace(
        "def save(*_):",
        "def save(*_):\n    signal.signal(signal.SIGTERM, signal.SIG_DFL)\n    time.sleep(0.5)",
    ).replace('print("runs"', 'signal.signal(signal.SIGINT, lambda *_: None)\nprint("runs"')
    task = slurm.SlurmTask(python(tmp_path, "a", twice))

    def scancel():
        wait_for(tmp_path / "a.txt", "runs")
        os.kill(task.process.pid, signal.SIGUSR2)
        os.kill(task.process.pid, signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=scancel).start()
    assert (
        task() == (EXIT_PREEMPTED, "")
        and task.received_term
        and (tmp_path / "a.txt").read_text() == "runs\nsaved\n"
    )


def test_requeued_task_has_saved_and_repeats_its_command(tmp_path, handlers, submitit, started):
    """submitit calls `checkpoint` from its signal handler while the task waits."""
    task, again = slurm.SlurmTask(python(tmp_path, "a", PATIENT)), []
    before = signal.signal(signal.SIGUSR1, lambda *_: again.append(task.checkpoint()))
    threading.Thread(
        target=lambda: (wait_for(tmp_path / "a.txt", "runs"), os.kill(os.getpid(), signal.SIGUSR1))
    ).start()
    assert task() == (EXIT_PREEMPTED, "")
    signal.signal(signal.SIGUSR1, before)
    assert (tmp_path / "a.txt").read_text() == "runs\nsaved\n"
    assert (
        again[0] is not task
        and again[0].process is None
        and (again[0].words, again[0].log) == (task.words, task.log)
    )


def test_slurm_job_without_a_result_has_a_reason(tmp_path, monkeypatch):
    monkeypatch.setattr(slurm, "ASK", 0.0)
    monkeypatch.setattr(slurm, "LOST", 0.3)
    states = {
        "cancelled": "CANCELLED",
        "failed": "FAILED",
        "purged": None,
        "requeued": "PREEMPTED",
        "fine": "COMPLETED",
    }
    sent = {
        name: (
            python(tmp_path, name, ""),
            SimpleNamespace(
                job_id=f"7_{i}",
                result=lambda: (0, ""),
                paths=SimpleNamespace(
                    result_pickle=tmp_path / f"{name}.pkl", stdout=tmp_path / f"{name}.log"
                ),
            ),
        )
        for i, name in enumerate(states)
    }
    (tmp_path / "fine.pkl").touch()
    (tmp_path / "failed.log").write_text("slurmstepd: error: out of disk\n")
    looks = []

    def squeue(number):
        looks.append(number)
        if len(looks) == 2:
            return None  # the controller does not answer
        if len(looks) > 2:
            states["requeued"] = "PENDING" if len(looks) < 8 else "COMPLETED"
        if len(looks) == 8:
            (tmp_path / "requeued.pkl").touch()
        return {f"7_{i}": state for i, state in enumerate(states.values()) if state}

    monkeypatch.setattr(slurm, "query_job_states", squeue)
    ended = slurm.Slurm._wait(SimpleNamespace(folder=tmp_path), dict(sent), "7", lambda: None)
    assert ended["fine"] == ended["requeued"] == (0, "") and ended["cancelled"] == (
        EXIT_PREEMPTED,
        "Slurm's job 7_0 ended as CANCELLED",
    )
    assert ended["failed"] == (1, "Slurm's job 7_1 ended as FAILED: slurmstepd: error: out of disk")
    assert ended["purged"] == (1, "Slurm's job 7_2 ended: exit code 1") and set(looks) == {"7"}


def test_job_states_are_read_from_squeue(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    squeue = tmp_path / "squeue"
    for script, states in {
        "echo '7_0|RUNNING'; echo '7_1|PENDING'": {"7_0": "RUNNING", "7_1": "PENDING"},
        "echo slurm_load_jobs error: Invalid job id specified >&2; exit 1": {},
        "echo slurm_load_jobs error: Unable to contact slurm controller >&2; exit 1": None,
    }.items():
        squeue.write_text(f"#!/bin/sh\n{script}\n")
        squeue.chmod(0o755)
        assert slurm.query_job_states("7") == states


# -- clusters that are not there


def one_sentence(caught):
    text = str(caught.value)
    assert "\n" not in text and ". " not in text
    return text


@pytest.mark.parametrize("name, package", [("slurm", "submitit"), ("ray", "ray")])
def test_missing_package_is_a_user_error(tmp_path, monkeypatch, name, package):
    monkeypatch.setitem(sys.modules, package, None)  # as where it is not installed
    with pytest.raises(UserError) as caught:
        engines.ENGINES[name](words(tmp_path))
    assert (
        one_sentence(caught)
        == f"engine={name} needs the package {package}: pip install {package} (extra engines)"
    )


def test_missing_slurm_is_a_user_error(tmp_path, monkeypatch, submitit):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError) as caught:
        engines.ENGINES["slurm"](words(tmp_path))
    assert one_sentence(caught).startswith(
        "engine=slurm cannot be reached: sbatch is not on the PATH; no job was started"
    )


def test_missing_ray_is_a_user_error(monkeypatch):
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{nobody.getsockname()[1]}"
        for given in (address, f"ray://{address}"):
            with pytest.raises(UserError) as caught:
                base.check_ray_reachable(given)
            assert one_sentence(caught).startswith(
                f"engine=ray cannot be reached: {given}: Connection refused; no job was started"
            )
        nobody.listen()
        base.check_ray_reachable(address)
    with pytest.raises(UserError, match="^address=head is neither HOST:PORT nor"):
        base.check_ray_reachable("head")


def test_fractional_resources_require_ray(tmp_path):
    assert base.require_integer(2.0, "gpus", "slurm") == 2
    with pytest.raises(UserError, match="^gpus=0.5 must be an integer with engine=slurm"):
        base.require_integer(0.5, "gpus", "slurm")
    for flag, value in dict(cpus=0.0, gpus=-1.0, time=-5).items():
        with pytest.raises(UserError, match=f"^{flag}={value} must be"):
            Kubernetes(words(tmp_path, **{flag: value}))


# -- Kubernetes: the fields of batch/v1 that are used, as its reference publishes them
# (name -> type, or a table of the same; [x] a list)

RESOURCES = {"cpu": str, "nvidia.com/gpu": int}
POD = {
    "restartPolicy": str,
    "terminationGracePeriodSeconds": int,
    "activeDeadlineSeconds": int,
    "containers": [
        {
            "name": str,
            "image": str,
            "command": [str],
            "args": [str],
            "resources": {"requests": RESOURCES, "limits": RESOURCES},
            "volumeMounts": [{"name": str, "mountPath": str}],
        }
    ],
    "volumes": [
        {
            "name": str,
            "hostPath": {"path": str, "type": str},
            "persistentVolumeClaim": {"claimName": str},
        }
    ],
}
JOB = {
    "apiVersion": str,
    "kind": str,
    "metadata": {"generateName": str},
    "spec": {
        "completionMode": str,
        "completions": int,
        "parallelism": int,
        "backoffLimitPerIndex": int,
        "podReplacementPolicy": str,
        "podFailurePolicy": {
            "rules": [{"action": str, "onPodConditions": [{"type": str, "status": str}]}]
        },
        "template": {"spec": POD},
    },
}


def check(value, schema, where="job"):
    if isinstance(schema, dict):
        assert isinstance(value, dict) and value.keys() <= schema.keys(), f"{where}: {value}"
        for key in value:
            check(value[key], schema[key], f"{where}.{key}")
    elif isinstance(schema, list):
        assert isinstance(value, list) and value, f"{where}: {value}"
        for item in value:
            check(item, schema[0], f"{where}[]")
    else:
        assert type(value) is schema, f"{where}: {value!r}"


def group_jobs(tmp_path, n):
    return [
        Job(
            f"g{i}",
            [*MODULE, "group", f"--workdir={tmp_path}/My sweep/groups/g{i}", "--route=auto"],
            tmp_path / "log",
        )
        for i in range(n)
    ]


@pytest.mark.parametrize("more", [{}, dict(gpus=2.0, cpus=0.5, time=90, slots=2), "claim"])
def test_manifest_is_an_indexed_job(tmp_path, more):
    more = dict(claim=f"shared:{tmp_path}") if more == "claim" else more
    made = Kubernetes(words(tmp_path, **more)).build_manifest(group_jobs(tmp_path, 3))
    check(made, JOB)
    spec, pod = made["spec"], made["spec"]["template"]["spec"]
    (container,), (volume,) = pod["containers"], pod["volumes"]
    assert (made["apiVersion"], made["kind"]) == ("batch/v1", "Job") and made["metadata"][
        "generateName"
    ] == "my-sweep-"
    # which backoffLimitPerIndex asks for
    assert spec["completionMode"] == "Indexed" and spec["completions"] == 3
    assert (
        spec["parallelism"] == (2 if "slots" in more else 3)
        and spec["backoffLimitPerIndex"] >= 1
        and "backoffLimit" not in spec
    )
    # the only ones that go with podFailurePolicy
    assert pod["restartPolicy"] == "Never" and spec["podReplacementPolicy"] == "Failed"
    assert spec["podFailurePolicy"]["rules"][0]["action"] in (
        "Ignore",
        "FailIndex",
        "FailJob",
        "Count",
    )
    assert pod.get("activeDeadlineSeconds") == (5400 if "time" in more else None)
    assert (
        container["image"] == "lab/aigc:1"
        and container["resources"]["limits"] == container["resources"]["requests"]
    )
    assert container["resources"]["limits"] == (
        {"cpu": "0.5", "nvidia.com/gpu": 2} if "gpus" in more else {"cpu": "1"}
    )
    assert container["volumeMounts"] == [
        dict(
            name=volume["name"],
            mountPath=str(tmp_path) if "claim" in more else str(tmp_path / "My sweep"),
        )
    ]
    assert volume.keys() == {"name", "persistentVolumeClaim" if "claim" in more else "hostPath"}


def expanded(word, variables):
    """What Kubernetes makes of a word of command and args, after
    k8s.io/kubernetes/third_party/forked/golang/expansion: $$ is $, $(NAME) a variable
    where there is one, and stays where there is none.
    """
    import re

    def replaced(match):
        return "$" if match[0] == "$$" else variables.get(match[1], match[0])

    return re.sub(r"\$\$|\$\(([^)]*)\)", replaced, word)


@pytest.mark.parametrize(
    "folder",
    ["My sweep", "a$$b", "cost $(JOB_COMPLETION_INDEX) $", "$HOME 'it' \"$1\"", "$$$(PATH)"],
)
def test_kubernetes_runs_group_commands_literally(tmp_path, folder):
    path = tmp_path / folder
    path.mkdir()
    given = [
        job._replace(words=[w.replace("My sweep", folder) for w in job.words])
        for job in group_jobs(tmp_path, 3)
    ]
    Kubernetes(words(tmp_path, workdir=str(path))).run(given)
    (container,) = yaml.safe_load((path / "k8s-job.yaml").read_text())["spec"]["template"]["spec"][
        "containers"
    ]
    (tmp_path / "python").write_text('#!/bin/sh\nfor word; do echo "$word"; done\n')
    (tmp_path / "python").chmod(0o755)
    for index in range(3):
        variables = dict(PATH=f"{tmp_path}:{os.environ['PATH']}", JOB_COMPLETION_INDEX=str(index))
        line = [expanded(word, variables) for word in container["command"] + container["args"]]
        said = subprocess.run(
            line, env=variables, capture_output=True, text=True, check=True
        ).stdout
        assert said.splitlines() == [
            *MODULE,
            "group",
            f"--workdir={tmp_path}/{folder}/groups/g{index}",
            "--route=auto",
        ]


@pytest.mark.parametrize(
    "more",
    [
        dict(cpus=math.nan),
        dict(gpus=math.inf),
        dict(cpus=1e30),
        dict(time=10**400),
        dict(slots=-1),
        dict(slots=10**30),
    ],
)
def test_job_resources_have_bounds(tmp_path, more):
    with pytest.raises(UserError, match=f"^{next(iter(more))}=.* must be"):
        Kubernetes(words(tmp_path, **more))
    if "slots" in more:
        with pytest.raises(UserError, match="^slots=.* must be"):
            Local(**more)


def test_kubernetes_sweep_writes_a_manifest_and_starts_no_job(tmp_path, monkeypatch, capsys):
    from aigc_jax.cli import main as cli

    monkeypatch.chdir(ROOT)
    sweep = [
        "sweep",
        "--config=configs/gan_digits.py",
        f"--workdir={tmp_path / 's'}",
        "--grid",
        "latent_dim=8,16",
        "--seeds=2",
        "--engine=k8s",
    ]
    assert cli.main([*sweep, "--image=lab/aigc:1"]) == 0
    said, path = capsys.readouterr().out, tmp_path / "s" / "k8s-job.yaml"
    assert (
        said.startswith(f"{path}: 2 programs")
        and f"kubectl create -f {path}" in said
        and not (tmp_path / "s" / "rows.csv").exists()
    )
    made = yaml.safe_load(path.read_text())
    check(made, JOB)
    groups = sorted(p.name for p in (tmp_path / "s" / "groups").iterdir())
    assert (
        sorted(
            line.partition(" --workdir=")[2].split()[0].rpartition("/")[2]
            for line in made["spec"]["template"]["spec"]["containers"][0]["args"]
        )
        == groups
    )
    for more, sentence in {
        (): "needs --image=IMAGE",
        ("--image=x", "--claim=disk:/nowhere"): "must be NAME:PATH",
        ("--image=x", "--gpus=0.5"): "must be an integer",
    }.items():
        assert cli.main([*sweep, *more]) == 1
        assert sentence in capsys.readouterr().err
