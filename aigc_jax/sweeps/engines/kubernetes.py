"""The engine Kubernetes: writes an Indexed Job with one index per program, runs nothing
and prints the command that starts the Job.
"""

import re
import shlex
from argparse import Namespace
from pathlib import Path

from aigc_jax.sweeps.engines.base import Job, OnPoll, require_integer, resources
from aigc_jax.utils.disk import disk_errors
from aigc_jax.utils.documents import write_atomically
from aigc_jax.utils.errors import argument, require
from aigc_jax.utils.terminal import print_text

# Retries of an index. Their delays, 10 s and doubled each time, outlast the 120 s after
# which a dead program's lock expires.
RETRIES = 5
SAVING = 120  # seconds that a program has to save
# Before the shift, $1 is the command line of index 0.
PICK = 'shift "$JOB_COMPLETION_INDEX" && eval "exec python $1"'


def yaml_literal(text: str) -> str:
    """Escape a word of `command` or `args` so that Kubernetes passes `text` unchanged:
    Kubernetes replaces $(NAME) by a variable and $$ by $ (Container.args in its
    reference).
    """
    return text.replace("$", "$$")


class Kubernetes:
    """The engine Kubernetes.

    The `python` of `image` must have aigc_jax installed, or requirements.txt with the
    repository as the working directory. `claim` is the volume that contains SWEEP.
    """

    def __init__(self, args: Namespace) -> None:
        require(
            args.image,
            f"{argument('engine')}=k8s needs {argument('image')}=IMAGE, whose `python` has "
            "aigc_jax installed",
        )
        claim, _, mounted = args.claim.partition(":")
        self.sweep = Path(args.workdir).absolute()
        require(
            not args.claim or (claim and self.sweep.is_relative_to(mounted or "-")),
            f"{argument('claim')}={args.claim} must be NAME:PATH, a volume claim and where it is "
            f"mounted, above {self.sweep}",
        )
        self.image, self.seconds, self.slots = args.image, 60 * args.time, args.slots
        self.claim, self.mounted = claim, mounted or str(self.sweep)
        cpus, gpus = resources(args)
        gpus = require_integer(gpus, "gpus", "k8s")
        self.resources = {"cpu": f"{cpus:g}"} | ({"nvidia.com/gpu": gpus} if gpus else {})

    def run(self, jobs: list[Job], on_poll: OnPoll = lambda: None) -> None:
        """Write SWEEP/k8s-job.yaml; return None, because nothing runs yet."""
        import yaml

        path = self.sweep / "k8s-job.yaml"
        with disk_errors(self.sweep):
            write_atomically(path, yaml.safe_dump(self.manifest(jobs), sort_keys=False, width=1000))
        print_text(
            f"{path}: {len(jobs)} programs; start them with\n  kubectl create -f "
            f"{shlex.quote(str(path))}"
        )
        print_text("after they finish, the same sweep command writes the table and the figure")

    def manifest(self, jobs: list[Job]) -> dict:
        """Return the Job, API version batch/v1:
        https://kubernetes.io/docs/reference/kubernetes-api/workload-resources/job-v1/
        """
        spec = dict(
            completionMode="Indexed",
            completions=len(jobs),
            parallelism=min(self.slots or len(jobs), len(jobs)),
            backoffLimitPerIndex=RETRIES,  # one program's failures are not another's
            # A retry starts after the previous pod has ended: both use one directory.
            podReplacementPolicy="Failed",
            # A preempted pod does not count as a retry.
            podFailurePolicy=dict(
                rules=[
                    dict(
                        action="Ignore",
                        onPodConditions=[dict(type="DisruptionTarget", status="True")],
                    )
                ]
            ),
            template=dict(spec=self.pod(jobs)),
        )
        name = re.sub(r"[^a-z0-9]+", "-", self.sweep.name.lower()).strip("-")[:30] or "sweep"
        return dict(
            apiVersion="batch/v1", kind="Job", metadata=dict(generateName=f"{name}-"), spec=spec
        )

    def pod(self, jobs: list[Job]) -> dict:
        """Return the pod, which runs the job of its completion index."""
        lines = [yaml_literal(shlex.join(job.words)) for job in jobs]
        volume = (
            dict(persistentVolumeClaim=dict(claimName=self.claim))
            if self.claim
            else dict(hostPath=dict(path=self.mounted, type="Directory"))
        )
        command = ["sh", "-c", yaml_literal(PICK), "sh"]
        container = dict(
            name="group",
            image=self.image,
            command=command,
            args=lines,
            resources=dict(requests=dict(self.resources), limits=dict(self.resources)),
            volumeMounts=[dict(name="sweep", mountPath=self.mounted)],
        )
        pod = dict(
            restartPolicy="Never",
            terminationGracePeriodSeconds=SAVING,
            containers=[container],
            volumes=[dict(name="sweep") | volume],
        )
        if self.seconds:
            # The pod's deadline limits one attempt; the Job's would limit all programs.
            pod |= dict(activeDeadlineSeconds=self.seconds)
        return pod
