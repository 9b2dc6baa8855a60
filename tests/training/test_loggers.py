"""Loggers: what each writes, how each resumes, and that none can stop a run."""

import csv
import importlib.util
import json
import struct
import sys
import time
import types
import wave

import numpy as np
import pytest
import runs
from runs import make_sweep, train, trials
from tiny_configs import tiny

from aigc_jax.sweeps import group
from aigc_jax.sweeps.trials import make_trials
from aigc_jax.training import config as configs
from aigc_jax.training import config_identity, loggers
from aigc_jax.training import train as training
from aigc_jax.training.loggers.base import FailureReport, GuardedLogger, RunInfo, Samples
from aigc_jax.training.run_dir import RunDir
from aigc_jax.utils.errors import UserError

HOSTILE = [
    "<script>alert(1)</script>",
    "\x1b[2J\r\n# 2\n**x**",
    "a,\"b'\n=1+1\u202e",
    "```\n</code>",
]


def with_loggers(*names, **more):
    return tiny("gan", run__log=names, run__sample_every="8 steps", **more)


def info(path, config=None, sweep="", first_step=0):
    config = config or tiny("gan", steps=8)
    return RunInfo(path, config, config_identity.hash_identity(config), sweep, first_step)


def table(path):
    with open(path / "metrics.csv", newline="") as file:
        return list(csv.DictReader(file))


def assert_table_has_rows(path):
    rows, columns = RunDir(path).read_rows(), []
    for row in rows:
        columns += [name for name in row if name not in columns]
    lines = table(path)
    assert list(lines[0]) == columns and len(lines) == len(rows)
    for line, row in zip(lines, rows, strict=True):
        values = {k: "" if row.get(k) is None else str(row[k]) for k in columns}
        assert line == values


# -- csv


def test_csv_has_the_union_of_columns_and_resumes_exactly(tmp_path):
    config = with_loggers("csv")
    train(config, tmp_path / "whole")
    assert_table_has_rows(tmp_path / "whole")
    train(config, tmp_path / "part", until="16 steps")
    path = tmp_path / "part" / "metrics.csv"
    path.write_text(path.read_text() + "20,train,1.0\n24,tr")  # of a process that was killed
    train(config, tmp_path / "part")
    assert path.read_bytes() == (tmp_path / "whole" / "metrics.csv").read_bytes()


def test_csv_that_is_enabled_later_has_all_rows(tmp_path):
    train(with_loggers(), tmp_path, until="16 steps")
    assert not (tmp_path / "metrics.csv").exists()
    train(with_loggers("csv"), tmp_path)
    assert_table_has_rows(tmp_path)


def test_csv_quotes_names_and_leaves_missing_values_empty(tmp_path):
    logger = loggers.make_csv(info(tmp_path))
    rows = [{"step": 1, "split": "train", name: 0.5} for name in HOSTILE]
    for row in [*rows, {"step": 2, "split": "train", HOSTILE[0]: None}]:
        logger.write_row(row)
    logger.close("done")
    lines = table(tmp_path)
    assert list(lines[0]) == ["step", "split", *HOSTILE] and len(lines) == 5
    assert [lines[i][name] for i, name in enumerate(HOSTILE)] == ["0.5"] * 4
    assert set(lines[4].values()) == {"2", "train", ""}


# -- tensorboard


def read_events(path):
    """The events of a run as a reader keeps them: a session that begins at a step
    replaces the events from this step on.
    """
    from tensorboardX.proto.event_pb2 import Event, SessionLog

    events = []
    for file in sorted((path / "tensorboard").iterdir()):
        raw = file.read_bytes()
        while raw:  # TFRecord: length (8), its checksum (4), the event, its checksum (4)
            size = int.from_bytes(raw[:8], "little")
            event = Event.FromString(raw[12 : 12 + size])
            if event.session_log.status == SessionLog.START:
                events = [e for e in events if e.step < event.step]
            events.append(event)
            raw = raw[16 + size :]
    return events


def values_in(events):
    return [(e.step, v) for e in events for v in e.summary.value]


def scalars(events):
    return [((e, v.tag), v.simple_value) for e, v in values_in(events) if "/" in v.tag[:6]]


def assert_scalars_are_the_rows(path):
    rows = RunDir(path).read_rows()
    expected = {
        (row["step"], f"{row['split']}/{name}"): value
        for row in rows
        for name, value in row.items()
        if name not in ("step", "split")
    }
    found = scalars(read_events(path))
    assert len(found) == len(expected)
    assert dict(found) == pytest.approx(expected, rel=1e-6)


def hparams(events, kind):
    from tensorboardX.proto.plugin_hparams_pb2 import HParamsPluginData

    return [
        getattr(HParamsPluginData.FromString(v.metadata.plugin_data.content), kind)
        for _, v in values_in(events)
        if v.tag == f"_hparams_/{kind}"
    ]


def test_tensorboard_has_scalars_images_and_hyper_parameters(tmp_path):
    config = with_loggers("tensorboard", steps=16)
    train(config, tmp_path)
    assert_scalars_are_the_rows(tmp_path)
    events = read_events(tmp_path)
    images = [(step, v.image) for step, v in values_in(events) if v.tag == "samples"]
    files = sorted((tmp_path / "samples").iterdir())
    assert [step for step, _ in images] == [8, 16] and len(files) == 2
    for (_, image), file in zip(images, files, strict=True):
        assert image.encoded_image_string == file.read_bytes()
        assert (image.width, image.height, image.colorspace) == (*png_size(file), 1)
    (start,), (end,) = hparams(events, "session_start_info"), hparams(events, "session_end_info")
    assert start.hparams["hp.lr_g"].number_value == config.hp.lr_g
    assert start.hparams["loss"].string_value == config.loss
    assert start.hparams["seed"].number_value == 0 and end.status == 1
    assert not [name for name in start.hparams if name.startswith("run.")]


def png_size(path):
    from PIL import Image

    return Image.open(path).size


def test_resumed_tensorboard_has_no_step_twice(tmp_path):
    """Events after the checkpoint that a killed run resumes from are discarded."""
    config = with_loggers("tensorboard")
    train(config, tmp_path, until="24 steps")
    newest = tmp_path / "checkpoints" / "24"
    assert newest.exists()
    newest.rename(tmp_path / "away")
    train(config, tmp_path)
    assert len(list((tmp_path / "tensorboard").iterdir())) == 2
    assert_scalars_are_the_rows(tmp_path)


def test_tensorboard_restarted_before_a_checkpoint_has_no_step_twice(tmp_path):
    config = with_loggers("tensorboard", run__save_every="never")
    for first_step in (0, 0):
        logger = loggers.make_tensorboard(info(tmp_path, config, first_step=first_step))
        for step in (0, 1, 2):
            logger.write_row({"step": step, "split": "valid", "loss": 0.5, "nan": None})
        logger.close("running")
    assert [e for e, _ in scalars(read_events(tmp_path))] == [(i, "valid/loss") for i in range(3)]
    assert not hparams(read_events(tmp_path), "session_end_info")


def write_sound(path):
    with wave.open(str(path), "wb") as sound:
        sound.setparams((1, 2, 8000, 0, "NONE", ""))
        sound.writeframes(np.arange(400, dtype=np.int16).tobytes())


def log_media(logger, path):
    """Texts of a model of text, and a sound."""
    (path / "a.txt").write_text("texts")
    logger.write_samples(Samples(3, path / "a.txt", HOSTILE))
    write_sound(path / "b.wav")
    logger.write_samples(Samples(4, path / "b.wav", []))
    logger.write_samples(Samples(5, path / "c.npy", []))  # no logger shows it


def test_tensorboard_has_texts_and_sounds(tmp_path):
    logger = loggers.make_tensorboard(info(tmp_path))
    log_media(logger, tmp_path)
    logger.close("failed: diverged")
    found = {v.tag: (step, v) for step, v in values_in(read_events(tmp_path))}
    step, text = found["samples/text_summary"]
    shown = text.tensor.string_val[0].decode()
    lines = [line for line in shown.splitlines() if line and not line.startswith("    ")]
    assert step == 3 and lines == [f"**{i}**" for i in range(1, 5)], "the rest is preformatted"
    assert text.metadata.plugin_data.plugin_name == "text" and "    <script>" in shown
    step, sound = found["samples"]
    assert step == 4 and sound.audio.sample_rate == 8000 and sound.audio.length_frames == 400
    assert sound.audio.encoded_audio_string == (tmp_path / "b.wav").read_bytes()
    assert hparams(read_events(tmp_path), "session_end_info")[0].status == 2


@pytest.mark.skipif(importlib.util.find_spec("tensorboard") is None, reason="needs tensorboard")
def test_readers_of_tensorboard_find_everything(tmp_path):
    """Two trials, by TensorBoard's own event reader and HParams plugin."""
    from tensorboard.backend.event_processing import data_provider, plugin_event_multiplexer
    from tensorboard.context import RequestContext
    from tensorboard.plugins.hparams import api_pb2, backend_context, list_session_groups

    config = with_loggers("tensorboard", steps=16)
    pair, paths = trials(config, 2), [tmp_path / name for name in "ab"]
    train(pair, paths, tmp_path / "group")
    logger = loggers.make_tensorboard(info(paths[0], pair[0], first_step=17))
    log_media(logger, tmp_path)
    logger.close("done")
    reader = plugin_event_multiplexer.EventMultiplexer().AddRunsFromDirectory(str(tmp_path))
    reader.Reload()
    assert set(reader.Runs()) == {"a/tensorboard", "b/tensorboard"}
    images = reader.Tensors("b/tensorboard", "samples")
    assert [event.step for event in images] == [8, 16]
    assert reader.Tensors("b/tensorboard", "test/d_loss")
    (text,) = reader.Tensors("a/tensorboard", "samples/text_summary")
    assert HOSTILE[0] in text.tensor_proto.string_val[0].decode()
    provider = data_provider.MultiplexerDataProvider(reader, str(tmp_path))
    within = types.SimpleNamespace(data_provider=provider)
    context, request = backend_context.Context(within), RequestContext()
    experiment = context.experiment_from_metadata(
        request, "", True, context.hparams_metadata(request, ""), []
    )
    assert {"hp.lr_d", "seed"} <= {info.name for info in experiment.hparam_infos}
    query = api_pb2.ListSessionGroupsRequest(
        start_index=0,
        slice_size=9,
        allowed_statuses=[api_pb2.STATUS_SUCCESS, api_pb2.STATUS_RUNNING],
        col_params=[{"metric": {"tag": "test/d_loss"}}, {"hparam": "hp.lr_d"}],
        include_metrics=True,
    )
    handler = list_session_groups.Handler(request, context, "", query)
    groups = handler.run().session_groups
    assert {g.hparams["hp.lr_d"].number_value for g in groups} == {c.hp.lr_d for c in pair}
    assert all(any(m.name.tag == "test/d_loss" for m in g.metric_values) for g in groups)


# -- wandb


class FakeWandb(types.ModuleType):
    """Records the calls that the logger makes."""

    def __init__(self):
        super().__init__("wandb")
        self.runs, self.__spec__ = [], object()

    def Settings(self, **values):  # noqa: N802
        return values

    Image = staticmethod(lambda path: ("image", path))
    Audio = staticmethod(lambda path: ("audio", path))
    Table = staticmethod(lambda columns, data: ("table", columns, data))

    def init(self, **values):
        run = types.SimpleNamespace(init=values, logged=[], code=None)
        run.log = lambda values, step: run.logged.append((step, values))
        run.finish = lambda exit_code: setattr(run, "code", exit_code)
        self.runs.append(run)
        return run


@pytest.fixture
def fake_wandb(monkeypatch):
    fake = FakeWandb()
    monkeypatch.setitem(sys.modules, "wandb", fake)
    return fake


def test_wandb_has_id_config_and_every_row(tmp_path, fake_wandb):
    config = with_loggers("wandb", steps=16)
    train(config, tmp_path)
    (run,) = fake_wandb.runs
    stored = json.loads((tmp_path / "config.json").read_text())
    assert run.init["id"] == stored["hash"] and run.init["group"] is None
    assert run.init["resume"] == "allow" and run.init["config"] == stored["config"]
    assert run.init["config"]["hp"]["lr_g"] == config.hp.lr_g and run.code == 0
    steps = [step for step, _ in run.logged]
    assert steps == sorted(steps), "W&B ignores steps before the last one"
    merged = {}
    for step, values in run.logged:
        merged.setdefault(step, {}).update(values)
    for row in RunDir(tmp_path).read_rows():
        for name, value in row.items():
            if name not in ("step", "split"):
                assert merged[row["step"]][f"{row['split']}/{name}"] == value
    assert merged[8]["samples"] == ("image", str(tmp_path / "samples" / "step_00000008.png"))


def test_resumed_wandb_appends_to_the_same_run(tmp_path, fake_wandb):
    config = with_loggers("wandb", steps=16)
    train(config, tmp_path, until="8 steps")
    train(config, tmp_path)
    first, second = fake_wandb.runs
    assert first.init["id"] == second.init["id"]
    assert min(step for step, _ in second.logged) > 8


def test_wandb_groups_the_trials_of_a_sweep_by_its_hash(tmp_path, fake_wandb):
    """Also after trials were added to the sweep."""
    rates = [{"hp.lr": 1e-3}, {"hp.lr": 2e-3}]
    sweep = make_sweep(tmp_path, rates, steps="8 steps", **{"run.log": ("wandb",)})
    assert group.train_group(sweep.groups()[0].path, route="vmap") == 0
    before = sweep.read_hash()
    base = configs.override(sweep.groups()[0].configs()[0], {"hp.lr": 3e-3})
    sweep.add_trials(make_trials(base, [{"hp.lr": 3e-3}]), "test")
    assert sweep.read_hash() == before and len(before) == 12
    assert {run.init["group"] for run in fake_wandb.runs} == {before}
    assert [run.init["name"] for run in fake_wandb.runs] == sweep.groups()[0].members
    hashes = [config_identity.hash_identity(c) for c in sweep.groups()[0].configs()]
    assert [run.init["id"] for run in fake_wandb.runs] == hashes


def test_wandb_has_tables_of_texts_and_sounds(tmp_path, fake_wandb):
    logger = loggers.make_wandb(info(tmp_path, sweep="0123456789ab"))
    log_media(logger, tmp_path)
    logger.close("failed: diverged")
    (run,) = fake_wandb.runs
    table = [[3, i, text] for i, text in enumerate(HOSTILE, 1)]
    assert run.logged == [
        (3, {"samples": ("table", ["step", "number", "text"], table)}),
        (4, {"samples": ("audio", str(tmp_path / "b.wav"))}),
    ]
    assert run.init["group"] == "0123456789ab" and run.code == 1


def read_offline_records(path):
    """The records of a .wandb file, a log of LevelDB: blocks of 32 KiB, in which each
    part has a checksum (4), a length (2) and a type (1): 1, 4 end a record.
    """
    from wandb.proto import wandb_internal_pb2

    raw, place, record = path.read_bytes(), 7, b""
    while place + 7 <= len(raw):
        if 32768 - place % 32768 < 7:
            place += 32768 - place % 32768
            continue
        size, kind = struct.unpack("<HB", raw[place + 4 : place + 7])
        record += raw[place + 7 : place + 7 + size]
        place += 7 + size
        if kind in (1, 4):
            yield wandb_internal_pb2.Record.FromString(record)
            record = b""


def wait_for_records(path):
    """The records of a finished run, whose file W&B's own process completes."""
    for _ in range(100):
        records = list(read_offline_records(path))
        if records and records[-1].HasField("exit"):
            return records
        time.sleep(0.2)
    raise AssertionError(f"{path} is not complete")


@pytest.mark.skipif(importlib.util.find_spec("wandb") is None, reason="needs wandb")
def test_offline_files_of_wandb_hold_rows_config_and_image(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    config = with_loggers("wandb", steps=16)
    pair, paths = trials(config, 2), [tmp_path / name for name in "ab"]
    messages = []
    train(pair, paths, tmp_path / "group", report=messages.append)
    assert messages == []
    for one, path in zip(pair, paths, strict=True):
        (file,) = path.glob("wandb/offline-run-*/*.wandb")
        records, found, wanted = wait_for_records(file), {}, {}
        run = next(r.run for r in records if r.HasField("run"))
        assert run.run_id == config_identity.hash_identity(one)
        stored = {item.key: json.loads(item.value_json) for item in run.config.update}
        assert stored["hp"]["lr_d"] == one.hp.lr_d
        for record in (r.history for r in records if r.HasField("history")):
            items = {"/".join(i.nested_key) or i.key: json.loads(i.value_json) for i in record.item}
            found |= {(items["_step"], name): value for name, value in items.items()}
        for row in RunDir(path).read_rows():
            metrics = {k: v for k, v in row.items() if k not in ("step", "split")}
            wanted |= {(row["step"], f"{row['split']}/{k}"): v for k, v in metrics.items()}
        assert wanted.items() <= found.items()
        assert found[8, "samples/_type"] == "image-file"


# -- a logger that fails, and one that is missing


class Raising:
    """A logger that raises at one of its calls, and counts them."""

    def __init__(self, place):
        self.place, self.calls = place, []
        self.call("make")

    def call(self, name):
        self.calls.append(name)
        if name == self.place:
            raise OSError(f"no network \x1b[2J\nin {name}")

    def write_row(self, row):
        self.call("write_row")

    def write_samples(self, samples):
        self.call("write_samples")

    def close(self, status):
        self.call("close")


@pytest.mark.parametrize("place", ["make", "write_row", "write_samples", "close"])
def test_failing_logger_is_reported_once_and_the_run_continues(
    place, tmp_path, monkeypatch, capsys
):
    made = []

    def make(run):
        made.append(Raising.__new__(Raising))
        made[-1].__init__(place)
        return made[-1]

    monkeypatch.setitem(loggers.LOGGERS, "tensorboard", loggers.LoggerKind(make))
    config = with_loggers("tensorboard", "csv", steps=16)
    pair, paths = trials(config, 2), [tmp_path / name for name in "ab"]
    statuses = train(pair, paths, tmp_path / "group", report=training.print_warning)
    assert [status["status"] for status in statuses] == ["done", "done"]
    for path in paths:
        assert_table_has_rows(path)
    lines = [line for line in capsys.readouterr().err.splitlines() if "tensorboard" in line]
    assert lines == [
        r"config.run.log: tensorboard failed and is closed: OSError: no network \x1b[2J"
    ]
    assert len(made) == (1 if place == "make" else 2), "one that cannot be opened is not retried"
    for logger in made:
        assert logger.calls.count(place) == 1
        closed = ["close"] if place in ("write_row", "write_samples") else []
        assert logger.calls[logger.calls.index(place) + 1 :] == closed


def test_failed_logger_is_not_called_again():
    lines = []
    logger = GuardedLogger("csv", lambda: Raising("write_row"), FailureReport(lines.append))
    for _ in range(3):
        logger.write_row({})
        logger.write_samples(Samples(0, None, []))
        logger.close("done")
    assert len(lines) == 1


def test_missing_package_is_an_error_before_the_data_are_read(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    monkeypatch.setattr(training.data, "load", lambda *_: pytest.fail("read the data"))
    with pytest.raises(UserError, match="needs the package wandb: pip install wandb"):
        train(with_loggers("csv", "wandb"), tmp_path)


def test_loggers_are_not_part_of_the_identity():
    hashes = {
        config_identity.hash_identity(with_loggers(*names, run__log_norms=norms))
        for names in ((), ("csv",), ("csv", "wandb"))
        for norms in ("none", "module")
    }
    assert len(hashes) == 1
    assert configs.override(tiny("gan"), {"run.log": "csv,wandb"}).run.log == ("csv", "wandb")
    assert {k for k in loggers.LOGGERS} == set(
        runs.configs.find_allowed_keys(configs.flatten_config(tiny("gan")))["run.log"].allowed
    )


def test_members_of_a_group_have_loggers_of_their_own(tmp_path):
    config = with_loggers("csv", "tensorboard", steps=16)
    pair, paths = trials(config, 2), [tmp_path / name for name in "ab"]
    train(pair, paths, tmp_path / "group")
    for one, path in zip(pair, paths, strict=True):
        assert_table_has_rows(path)
        assert_scalars_are_the_rows(path)
        (start,) = hparams(read_events(path), "session_start_info")
        assert start.hparams["hp.lr_d"].number_value == one.hp.lr_d
        assert start.group_name == config_identity.hash_identity(one)
