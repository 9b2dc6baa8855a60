"""The logger `tensorboard`: events in WORKDIR/tensorboard, without TensorFlow."""

import contextlib
import itertools
import struct
import sys
import wave
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from aigc_jax.training.config import flatten_config
from aigc_jax.training.loggers.base import RunInfo, Samples, metrics_of
from aigc_jax.utils.disk import hide_paths
from aigc_jax.utils.python_files import REPOSITORY

# Colour type of a PNG -> number of channels, Summary.Image.colorspace.
CHANNELS = {0: 1, 2: 3, 3: 3, 4: 2, 6: 4}
SUCCESS, FAILURE = 1, 2  # api.Status of the HParams plugin


class TensorBoard:
    """Scalars `split/name`; `samples` as images, text or audio; and the config as the
    hyper-parameters of the run, whose metrics the HParams plugin reads from the
    scalars.

    A resumed run writes a further event file, which tells readers to discard the
    events from its first step on of earlier files.
    """

    def __init__(self, run: RunInfo) -> None:
        with _hide_torch():
            from tensorboardX import SummaryWriter

        folder = run.path / "tensorboard"
        before = set(folder.glob("*"))
        self._writer = SummaryWriter(str(folder), purge_step=run.first_step if before else None)
        for file in set(folder.glob("*")) - before:
            _rename_without_host(file)
        self._write_session("session_start_info", **self._describe_hparams(run))

    def write_row(self, row: dict[str, Any]) -> None:
        """Write every finite value at the row's step."""
        for name, value in metrics_of(row).items():
            self._writer.add_scalar(name, value, row["step"])

    def write_samples(self, samples: Samples) -> None:
        """Write the file of the samples, or the texts, preformatted and numbered."""
        from tensorboardX.proto.summary_pb2 import Summary

        if samples.texts:
            lines = (
                f"**{i}**\n\n" + "\n".join(f"    {line}" for line in text.splitlines())
                for i, text in enumerate(samples.texts, 1)
            )
            self._writer.add_text("samples", "\n\n".join(lines), samples.step)
            return
        read = {".png": _read_image, ".wav": _read_audio}.get(samples.path.suffix)
        if read is not None:
            value = Summary.Value(tag="samples", **read(samples.path))
            self._writer.file_writer.add_summary(Summary(value=[value]), samples.step)

    def close(self, status: str) -> None:
        """Write how the session ended, unless it may resume, and close the file."""
        from tensorboardX.proto.plugin_hparams_pb2 import SessionEndInfo

        final = status in ("done", "stopped") or status.startswith("failed")
        if final:
            code = FAILURE if status.startswith("failed") else SUCCESS
            self._write_session("session_end_info", session_end_info=SessionEndInfo(status=code))
        self._writer.close()

    def _describe_hparams(self, run: RunInfo) -> dict[str, Any]:
        """Return the record of the values of the config, except `run.*`."""
        from tensorboardX.proto.plugin_hparams_pb2 import SessionStartInfo

        start = SessionStartInfo(group_name=run.hash)
        for name, value in flatten_config(run.config).items():
            if name.startswith("run.") or value is None:
                continue
            if isinstance(value, bool):
                start.hparams[name].bool_value = value
            elif isinstance(value, int | float):
                start.hparams[name].number_value = value
            else:
                start.hparams[name].string_value = hide_paths(str(value), REPOSITORY)
        return dict(session_start_info=start)

    def _write_session(self, tag: str, **record: Any) -> None:
        """Write a record of the HParams plugin, which reads it from the metadata of a
        summary without a value.
        """
        from tensorboardX.proto.plugin_hparams_pb2 import HParamsPluginData
        from tensorboardX.proto.summary_pb2 import Summary, SummaryMetadata

        content = HParamsPluginData(version=0, **record).SerializeToString()
        plugin = SummaryMetadata.PluginData(plugin_name="hparams", content=content)
        value = Summary.Value(tag=f"_hparams_/{tag}", metadata=SummaryMetadata(plugin_data=plugin))
        self._writer.file_writer.add_summary(Summary(value=[value]))


def _read_image(path: Path) -> dict[str, Any]:
    """Return the fields of a summary with a PNG, as it is stored."""
    from tensorboardX.proto.summary_pb2 import Summary

    data = path.read_bytes()
    width, height, _, colour = struct.unpack(">IIBB", data[16:26])
    image = Summary.Image(
        height=height, width=width, colorspace=CHANNELS[colour], encoded_image_string=data
    )
    return dict(image=image)


def _read_audio(path: Path) -> dict[str, Any]:
    """Return the fields of a summary with a WAV file, as it is stored."""
    from tensorboardX.proto.summary_pb2 import Summary

    with wave.open(str(path)) as sound:
        audio = Summary.Audio(
            sample_rate=sound.getframerate(),
            num_channels=sound.getnchannels(),
            length_frames=sound.getnframes(),
            encoded_audio_string=path.read_bytes(),
            content_type="audio/wav",
        )
    return dict(audio=audio)


@contextlib.contextmanager
def _hide_torch() -> Iterator[None]:
    """Let `import torch` fail: tensorboardX imports PyTorch wherever it is installed,
    which takes seconds, and needs it only for tensors of PyTorch.
    """
    if "torch" in sys.modules:
        yield
        return
    sys.modules["torch"] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules["torch"]


def _rename_without_host(file: Path) -> None:
    """Rename events.out.tfevents.TIME.HOST to events.out.tfevents.TIME.COUNT; the open
    file stays open.
    """
    stem = ".".join(file.name.split(".")[:4])
    names = (file.with_name(f"{stem}.{count}") for count in itertools.count())
    file.rename(next(name for name in names if not name.exists()))
