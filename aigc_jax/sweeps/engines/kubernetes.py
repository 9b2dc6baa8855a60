"""The engine Kubernetes: writes an Indexed Job with one index per program, runs nothing
and prints the command that starts the Job.
"""

import re
import shlex
from argparse import Namespace
from pathlib import Path

from aigc_jax.sweeps.engines.base import Job, OnPoll, check_resources, require_integer
from aigc_jax.utils.disk import convert_disk_errors
from aigc_jax.utils.documents import write_atomically
from aigc_jax.utils.errors import mark_argument, require
from aigc_jax.utils.quantities import format_count
from aigc_jax.utils.terminal import print_text

# Retries of an index. Their delays, 10 s and doubled each time, outlast the 120 s after
# which a dead program's lock expires.
RETRIES = 5
SAVING = 120  # seconds that a program has to save
# Before the shift, $1 is the command line of index 0.
PICK = 'shift "$JOB_COMPLETION_INDEX" && eval "exec python $1"'


def escape_dollars(text: str) -> str:  # "$" -> "$$"
    """Escape a word of `command` or `args` so that Kubernetes passes `text` unchanged:
    Kubernetes replaces $(NAME) by a variable and $$ by $ (Container.args in its
    reference).
    """
    return text.replace("$", "$$")


class Kubernetes:
    """The engine Kubernetes.

    The `python` of `image` must have aigc_jax installed, or requirements.txt with the
    repository as the working directory. `claim` is the volume that contains SWEEP.

    Args:
      args: workdir and the settings that Kubernetes reads (`engines.SETTINGS`).

    Raises:
      UserError: a setting is missing or invalid.
    """

    def __init__(self, settings: Namespace) -> None:
        require(
            settings.image,
            f"{mark_argument('engine')}=k8s needs {mark_argument('image')}=IMAGE, whose `python` "
            "has aigc_jax installed",
        )
        claim, _, mounted = settings.claim.partition(":")
        self.sweep = Path(settings.workdir).absolute()
        require(
            not settings.claim or (claim and self.sweep.is_relative_to(mounted or "-")),
            f"{mark_argument('claim')}={settings.claim} must be NAME:PATH, a volume claim and "
            f"where it is mounted, above {self.sweep}",
        )
        self.image, self.seconds, self.slots = settings.image, 60 * settings.time, settings.slots
        self.claim, self.mounted = claim, mounted or str(self.sweep)
        cpus, gpus = check_resources(settings)
        gpus = require_integer(gpus, "gpus", "k8s")
        self.resources = {"cpu": f"{cpus:g}"} | ({"nvidia.com/gpu": gpus} if gpus else {})

    def run(
        self, jobs: list[Job], on_poll: OnPoll = lambda: None
    ) -> None:  # writes k8s-job.yaml, runs nothing
        """Write SWEEP/k8s-job.yaml; return None, because nothing runs yet."""
        import yaml

        path = self.sweep / "k8s-job.yaml"
        with convert_disk_errors(self.sweep):
            write_atomically(
                path, yaml.safe_dump(self.build_manifest(jobs), sort_keys=False, width=1000)
            )
        print_text(
            f"{path}: {format_count(len(jobs), 'program')}; start with\n  kubectl create -f "
            f"{shlex.quote(str(path))}"
        )
        print_text("after they finish, the same sweep command writes the table and the figure")

    def build_manifest(self, jobs: list[Job]) -> dict:  # of one Indexed Job
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
            template=dict(spec=self.build_pod_spec(jobs)),
        )
        name = re.sub(r"[^a-z0-9]+", "-", self.sweep.name.lower()).strip("-")[:30] or "sweep"
        return dict(
            apiVersion="batch/v1", kind="Job", metadata=dict(generateName=f"{name}-"), spec=spec
        )

    def build_pod_spec(self, jobs: list[Job]) -> dict:
        """Return the pod, which runs the job of its completion index."""
        lines = [escape_dollars(shlex.join(job.words)) for job in jobs]
        volume = (
            dict(persistentVolumeClaim=dict(claimName=self.claim))
            if self.claim
            else dict(hostPath=dict(path=self.mounted, type="Directory"))
        )
        command = ["sh", "-c", escape_dollars(PICK), "sh"]
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
