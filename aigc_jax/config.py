"""Configs: load a file, override its keys, resolve its durations, take its identity.

A config has three kinds of keys:
  hp.*, seed   traced numbers: trials of one compiled program may differ in them; part of a run's identity
  run.*        how a run is carried out; may change between resumptions, no part of its identity
  the rest     static: shapes, names, counts; part of a run's identity
"""

import ast
import hashlib
import importlib.util
import json
import math
import re
from pathlib import Path

from ml_collections import ConfigDict

from aigc_jax.errors import UserError, nearest, require

# What every config may set under `run`, with its default. Durations are in steps, epochs or examples; "never" turns one off.
RUN = dict(
    data_dir="",  # where data sets lie; else $AIGC_DATA_DIR, else ~/tensorflow_datasets
    data="device",  # where the data set lies while it trains: there, or on the "host", which sends batches: for what is larger than a device
    mesh=dict(trial=1, data=-1, model=1),  # devices along each axis: of trials, of a batch's examples, of parameters; -1: what is left
    parallel="jit",  # "jit": XLA divides one program; "pmap": each device runs it on its part of the batch (examples alone: mesh.data)
    sequence=False,  # what lies between the layers of a Transformer divided over mesh.model by positions
    fsdp=False,  # parameters and their moments divided over mesh.data too, gathered where a step needs them
    log_every="100 steps",
    eval_every="1000 steps",
    sample_every="1000 steps",
    save_every="1000 steps",
    samples=64,  # pictures in a sample grid
    tensorboard=True,
    wandb="off",  # "online" | "offline" | "off"
    deterministic=False,  # GPU only: deterministic kernels, slower; the CPU always is
)
# Likewise under `data`.
DATA = dict(
    name="",
    path="",  # npz: the user's file; folder, tokens: a directory; text: a file, a directory or a glob; tfds: a directory or a name
    size=64,  # folder: pixels a side
    colour="rgb",  # folder: "rgb" or "grey"
    split="80/10/10",  # folder, texts: "80/10/10", or "80/20" (texts: or "90/10"), whose valid examples are the test examples too
    order="trial",  # shuffled by the trial's seed, "shared" by all trials: data.seed; "stream": one example after another
    seed=0,
    tokenizer="bytes",  # texts: "bytes", "characters", "words", "chinese_words", "bpe", or "file": one that is there already
    tokenizer_path="",  # file: a tokenizer.json or a run directory
    vocabulary=0,  # the most tokens, the two special ones included; 0: as many as there are, of words and bpe 10,000
    length=64,  # tokens of a window
    normalize="",  # texts: Unicode's "NFC", "NFKC", "NFD" or "NFKD"; "" leaves them as they are
    lower=False,  # in small letters
    control="keep",  # control characters, or "drop" all but line breaks and tabs
    stop_words="",  # a file with a word a line; these are removed
    script="as_is",  # Chinese as it is written, or "simplified"
    languages="en-de",  # multi30k: from, to
    joined=False,  # pairs: source, line break and target as one text, for config.method = "lm"; the target alone is learned
)
# And at the top.
BASE = dict(
    seed=0,
    precision="float32",  # "bfloat16": the networks' arithmetic; "bfloat16_all": parameters too; "float64"
    loss_chunk=0,  # lm, Transformers: positions whose logits are there at once; 0: all
    moments="",  # the dtype that an optimiser keeps its state in: "bfloat16", or that of the parameters
    accumulate=1,  # equal parts of a batch that are worked on one after another, in the memory of one
    metrics=(),  # over whole splits, of aigc_jax/metrics
    metric_samples=1000,  # that they draw
    extractor="classifier",  # of the features that metrics compare: one trained on the data, or the path of Inception's weights
    best="",  # the row metric that picks the best checkpoint, such as "valid/frechet_pixels"
    best_mode="min",
    init_from="",  # a work directory whose parameters the run begins with
    init_match=".*",  # which of them: a regular expression on paths such as params/g/Dense_0/kernel
    frozen="",  # parameters that stay as they begin: a regular expression on paths within a network, such as Dense_0/kernel
    lora=dict(rank=0, alpha=16.0, match="."),  # lm: train a low-rank adaptation of the kernels that match, and nothing else; 0: all parameters
    game=dict(  # gan: what is added to the plain game
        regularizers=(),  # penalties and bounds, each with a weight of its name in config.hp
        condition="none",  # how labels come in: "none", "concatenation", "projection" or "auxiliary"
        pack=1,  # examples that the discriminator judges together
        unroll=0,  # updates of the discriminator that the generator looks ahead
        augment=(),  # "colour", "translation", "cutout": on what the discriminator sees in training
    ),
)
EVERY = ("run.log_every", "run.eval_every", "run.sample_every", "run.save_every")
DURATIONS = ("steps", "schedule.warmup", "anneal.period", *EVERY)
UNITS = dict(step=1, steps=1, epoch=0, epochs=0, example=0, examples=0)  # 0: depends on the data and the batch


def load(path) -> ConfigDict:
    """The locked config that `get_config()` of a Python file returns, with the defaults of `run.*` filled in."""
    path = Path(path)
    if not path.is_file():
        known = [str(p) for p in sorted(path.parent.glob("*.py"))] or [str(p) for p in sorted(Path("configs").glob("*.py"))]
        raise UserError(f"--config={path}: no such file{nearest(str(path), known)}")
    spec = importlib.util.spec_from_file_location(f"config_{path.stem}", path)
    if spec is None:
        raise UserError(f"--config={path} is no Python file")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except SyntaxError as e:
        raise UserError(f"--config={path} is no valid Python: line {e.lineno}: {e.msg}") from None
    require(hasattr(module, "get_config"), f"--config={path} has no function get_config()")
    return complete(module.get_config())


def complete(config: ConfigDict) -> ConfigDict:
    """A locked copy with every key of BASE, RUN and DATA present; the config's own values win."""
    out = ConfigDict(BASE | config.to_dict())
    sections = {key: value for key, value in BASE.items() if isinstance(value, dict)}
    for section, defaults in (sections | dict(run=RUN, data=DATA)).items():
        full = ConfigDict(defaults)
        for key, value in leaves(ConfigDict(config.get(section, {}))).items():
            set_key(full, key, value, prefix=f"{section}.")
        out[section] = full
    for key in ("method", "steps", "batch_size", "hp"):
        require(key in out, f"config.{key} is missing; every config has method, steps, batch_size, data, hp")
    for key in leaves(out).keys() & set(DURATIONS):
        _put(out, key, str(leaves(out)[key]))
    return out.lock()


def leaves(config: ConfigDict, prefix="") -> dict:
    """{"a.b": value} of every leaf, in the config's order."""
    out = {}
    for key, value in config.items():
        if isinstance(value, ConfigDict):
            out |= leaves(value, f"{prefix}{key}.")
        else:
            out[prefix + key] = value
    return out


def set_key(config: ConfigDict, key: str, value, prefix=""):
    """Set one dotted key in place. A text is parsed by the type of the present value, as on the command line."""
    known = leaves(config)
    if key not in known:
        sections = {k.rsplit(".", 1)[0] for k in known if "." in k}
        if key in sections:
            raise UserError(f"config.{prefix}{key} is a section; set one of its keys: "
                            + ", ".join(k for k in known if k.startswith(key + ".")))
        raise UserError(f"config.{prefix}{key}: no such key{nearest(key, known)}")
    _put(config, key, _convert(value, known[key], f"config.{prefix}{key}", duration=prefix + key in DURATIONS))


def _put(config: ConfigDict, key: str, value):
    *parents, last = key.split(".")
    for parent in parents:
        config = config[parent]
    with config.unlocked(), config.ignore_type():
        config[last] = value


def _convert(value, old, key, duration=False):
    """`value` as the type of `old`, or a UserError."""
    wrong = UserError(f"{key} = {value!r} is no {type(old).__name__} (now {old!r})")
    if duration:
        if isinstance(value, bool) or not isinstance(value, (int, str)):
            raise UserError(f"{key} = {value!r} is no duration, such as '1000 steps' or '10 epochs'")
        parse_duration(value, key)
        return str(value)
    if isinstance(old, str):
        if not isinstance(value, str):
            raise wrong
        return value
    if isinstance(value, str):
        words = {"true": True, "false": False}
        try:
            value = words[value.lower()] if value.lower() in words else ast.literal_eval(value.strip())
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            if isinstance(old, tuple) and (not old or isinstance(old[0], str)):
                value = tuple(word.strip() for word in value.split(","))  # names need no quotes: modes,frechet_pixels
            elif isinstance(old, float) and value.strip().lower() in ("inf", "-inf", "nan"):
                value = float(value)  # named below
            else:
                raise wrong from None
    if isinstance(old, bool):
        if value not in (True, False) or isinstance(value, float):
            raise wrong
        return bool(value)
    if isinstance(old, (int, float)) and (isinstance(value, bool) or not isinstance(value, (int, float))):
        raise wrong
    if isinstance(old, float):
        require(math.isfinite(value), f"{key} = {value} is not finite")
        return float(value)
    if isinstance(old, int):
        if not math.isfinite(value) or value != int(value):
            raise wrong
        return int(value)
    if isinstance(old, tuple):
        if not isinstance(value, (tuple, list)):
            value = (value,)
        if not old and not all(isinstance(v, (str, int, float)) for v in value):  # nothing there says what it holds
            raise wrong
        return tuple(_convert(v, old[0], f"{key}[{i}]") if old else v for i, v in enumerate(value))
    raise wrong


def override(config: ConfigDict, overrides: dict) -> ConfigDict:
    """A locked copy with the given dotted keys replaced; an unknown key or a wrong type raises a UserError."""
    config = ConfigDict(config.to_dict()).lock()
    for key, value in overrides.items():
        set_key(config, key, value)
    return config


def parse_duration(value, key) -> tuple[float, str]:
    """'10 epochs' -> (10.0, 'epochs'); a bare number is in steps; 'never' is (0, 'steps')."""
    text = str(value).strip()
    if text == "never":
        return 0.0, "steps"
    match = re.fullmatch(r"([0-9][0-9_]*\.?[0-9]*(?:[eE][+]?[0-9]+)?)(?:\s*([A-Za-z]+))?", text)
    if not match or (match[2] and match[2] not in UNITS):
        unit = nearest(match[2], UNITS) if match and match[2] else ""
        raise UserError(f"{key} = {value!r} is no duration: write '1000 steps', '10 epochs', '1e6 examples' or 'never'{unit}")
    number = float(match[1].replace("_", ""))
    require(math.isfinite(number), f"{key} = {value!r} is not finite")
    return number, match[2] or "steps"


def steps_of(value, key, n_train: int, examples: int) -> int:
    """A duration in steps: an epoch is n_train examples, a step takes `examples` of them; rounded up."""
    number, unit = parse_duration(value, key)
    require(examples > 0 or unit.startswith("step"), f"{key} = {value!r} with {examples} examples a step: config.batch_size, and what multiplies it, "
            "must be at least 1")
    if unit.startswith("epoch"):
        number *= n_train / examples
    elif unit.startswith("example"):
        number /= examples
    steps = math.ceil(number - 1e-9)
    require(steps < 2**31, f"{key} = {value!r} is {steps} steps; a run has fewer than 2^31")
    return steps


def resolve(config: ConfigDict, n_train: int, examples: int) -> ConfigDict:
    """A locked copy whose durations are integers in steps."""
    out = ConfigDict(config.to_dict())
    known = leaves(config)
    for key in (k for k in DURATIONS if k in known):
        _put(out, key, steps_of(known[key], f"config.{key}", n_train, examples))
    require(out.steps > 0, f"config.steps = {config.steps!r} is no step at all; it must be at least 1")
    require(out.run.samples > 0, f"config.run.samples = {out.run.samples} must be at least 1")
    require(out.best_mode in ("min", "max"), f"config.best_mode = {out.best_mode!r} is neither min nor max")
    require(out.best == "" or out.best.startswith("valid/"),
            f"config.best = {out.best!r} must name a metric of the valid split, such as 'valid/frechet_pixels'")
    require(out.metric_samples > 1, f"config.metric_samples = {out.metric_samples} must be at least 2")
    require(out.run.wandb in ("off", "online", "offline"),
            f"config.run.wandb = {out.run.wandb!r} is none of off, online, offline{nearest(out.run.wandb, ('online', 'offline'))}")
    return out.lock()


def jsonable(config: ConfigDict) -> dict:
    """Plain dicts, lists and scalars; `from_json` is its inverse."""
    return json.loads(json.dumps(config.to_dict()))


def from_json(plain: dict) -> ConfigDict:
    def tuples(value):
        if isinstance(value, dict):
            return {k: tuples(v) for k, v in value.items()}
        return tuple(map(tuples, value)) if isinstance(value, list) else value

    return ConfigDict(tuples(plain)).lock()


def identity(config: ConfigDict) -> dict:
    """What makes two runs the same run: every leaf but `run.*`, of a resolved config."""
    return {k: v for k, v in leaves(config).items() if not k.startswith("run.")}


def check_together(config, count: int):
    """A UserError where so many trials cannot be one program."""
    require(config.run.data == "device" or count == 1 or config.data.order != "trial", f"config.run.data = {config.run.data!r} gives all trials "
            "of a group the same batches: config.data.order = 'trial' must be 'shared' or 'stream'")


def hash_of(config: ConfigDict) -> str:
    """Twelve hexadecimal digits of the identity."""
    return hashlib.sha256(json.dumps(identity(config), sort_keys=True).encode()).hexdigest()[:12]


def difference(old: dict, new: dict) -> dict:
    """{key: [old, new]} of the leaves that differ; None where one side lacks the key."""
    return {k: [old.get(k), new.get(k)] for k in old.keys() | new.keys() if old.get(k) != new.get(k)}
