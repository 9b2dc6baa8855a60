"""Fine-tuning: loss on answers only, frozen parameters, and low-rank adaptation."""

import ast
import io
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict
from runs import compile_programs, train
from tiny_configs import PAIRS, resolved, tiny

import aigc_jax
from aigc_jax import data, methods
from aigc_jax.data import corpora, pairs
from aigc_jax.data import schema as data_schema
from aigc_jax.inference import generation
from aigc_jax.methods import lora
from aigc_jax.methods.decoding import SamplingParams
from aigc_jax.training import config as configs
from aigc_jax.training import init_from
from aigc_jax.training.checkpoints import Checkpoints
from aigc_jax.training.programs import Programs
from aigc_jax.training.serialization import flatten_state
from aigc_jax.utils.errors import UserError

JOINED = dict(
    data__name="pairs",
    data__path=str(PAIRS),
    data__tokenizer="bytes",
    data__prefix_lm=True,
    data__length=12,
    model__context=12,
)


def load_prefix_lm(**more):
    return data.load(
        ConfigDict(
            data_schema.DEFAULTS
            | dict(name="pairs", path=str(PAIRS), length=12, prefix_lm=True)
            | more
        )
    )


def test_prefix_lm_mask_covers_the_target_only():
    found = load_prefix_lm()
    batch = found.take(found.arrays, np.arange(found.spec.n_train))
    end = found.tokenizer.end
    for tokens, mask in zip(batch["tokens"], batch["mask"], strict=True):
        source, target = found.tokenizer.decode_until_end(tokens[1:]).split("\n")
        assert tokens[0] == end and target == source[::-1]
        assert (
            found.tokenizer.decode_until_end(tokens[1:][mask > 0]) == target
            and tokens[1:][mask > 0][-1] == end
            and mask.sum() == 5
        )
    assert (batch["bytes"].sum(1) == 4).all()
    with pytest.raises(
        UserError, match="config.data.length = 9 tokens is too short for every train pair"
    ):
        load_prefix_lm(length=9)
    assert load_prefix_lm(length=10).about["text"]["left_out"] == 0
    # separates source and target
    assert "\n" in load_prefix_lm(tokenizer="characters").tokenizer.decode(range(11))


def test_prefix_lm_loss_is_the_mean_over_target_tokens():
    """Source tokens and padding do not contribute. `evaluate` returns the sum over the
    target tokens, and `step` their mean.
    """
    config = tiny("lm", **JOINED, model__dropout=0.0)
    found = data.load(config.data)
    config = configs.resolve_durations(config, found.spec.n_train, 16)
    method = methods.make_method(config, found.spec)
    state = jax.jit(method.init)(
        jax.random.key(0), {k: jnp.float32(v) for k, v in configs.resolve_hparams(config).items()}
    )
    batch = jax.tree.map(
        jnp.asarray,
        found.take(found.arrays, np.arange(16))
        | dict(index=np.arange(16), weight=np.ones(16, np.float32)),
    )
    sums = jax.jit(method.evaluate)(state, batch)
    assert sums["tokens"] == 16 * 5
    logits = method.language.apply(state.params, batch["tokens"][:, :-1], None)[0]
    each = -np.take_along_axis(
        np.asarray(jax.nn.log_softmax(logits)), np.asarray(batch["tokens"])[:, 1:, None], -1
    )[..., 0]
    chosen = each[np.asarray(batch["mask"]) > 0]
    assert sums["nats"] == pytest.approx(chosen.sum(), rel=1e-5)
    assert jax.jit(method.step)(state, batch)[1]["loss"] == pytest.approx(chosen.mean(), rel=1e-5)


def test_answer_sampler_is_greedy_and_reference_is_the_target():
    config = tiny("lm", **JOINED, model__dropout=0.0)
    found = data.load(config.data)
    config = configs.resolve_durations(config, found.spec.n_train, 16)
    method = methods.make_method(config, found.spec)
    state = jax.jit(method.init)(
        jax.random.key(3), {k: jnp.float32(v) for k, v in configs.resolve_hparams(config).items()}
    )
    # large weights, so that the text is not one repeated token
    state = state.replace(params=jax.tree.map(lambda x: 8 * x, state.params))
    batch = jax.tree.map(
        jnp.asarray, found.take(found.arrays, np.arange(4)) | dict(index=np.arange(4))
    )
    read_text = found.tokenizer.decode_until_end
    said = [read_text(row[1:]).split("\n") for row in np.asarray(batch["tokens"])]
    assert [
        read_text(row) for row in jax.jit(method.samplers["reference"])(state, state.key, batch)
    ] == [target for _, target in said]
    answers = np.asarray(jax.jit(method.samplers["answer"])(state, state.key, batch))
    # end token, four digits, line break, answer
    read = np.concatenate([np.asarray(batch["tokens"])[:, :6], answers[:, :5]], axis=1)
    logits = jax.jit(method.language.apply)(state.params, read, None)[0]
    assert (np.asarray(logits)[:, 5:10].argmax(-1) == answers[:, :5]).all()
    assert len(np.unique(answers[:, :5])) > 3


def test_functions_are_split_from_their_docstrings():
    """Only the docstring is removed from a function: both parts parse, and the code has
    no docstring.
    """
    source = 'class A:\n    def f(self, x):\n        """Says."""\n        # why\n        return x\n'
    source += '\ndef g(): "one line"\ndef h():\n    """Only this."""\n'
    assert pairs.extract_documented_functions(source) == [
        ('"""Says."""', "def f(self, x):\n    # why\n    return x")
    ]
    assert pairs.extract_documented_functions("def broken(:\n") == []
    found = [
        pair
        for path in (ast.__file__, pairs.__file__)
        for pair in pairs.extract_documented_functions(open(path, encoding="utf-8").read())
    ]
    assert len(found) > 20  # for any version of Python
    for said, code in found:
        (tree,) = ast.parse(code).body
        assert ast.get_docstring(tree) is None
        ast.parse(said)


def parameters(config, steps=3):
    """Returns {path: parameter} before and after some steps."""
    programs = compile_programs(config, 1)
    states = programs.init([resolved(config)])
    before = flatten_state(states.params)
    return before, flatten_state(programs.train(states, 0, steps)[0].params)


@pytest.mark.parametrize("method, pattern", [("lm", "embed|layer_0/attention"), ("vae", "^q_0")])
def test_frozen_parameters_do_not_change_and_others_do(method, pattern):
    before, after = parameters(tiny(method, frozen=pattern))
    stay = {name for name in before if re.search(pattern, name.split("/", 1)[1])}
    assert stay and stay != set(before)
    for name in before:
        assert np.array_equal(before[name], after[name]) == (name in stay), name


@pytest.mark.parametrize(
    "pattern, words",
    [
        ("(", "is not a regular expression"),
        (".", "no parameter is left to train"),
        ("nowhere", "matches no parameter path after the network's name; the paths are net/"),
    ],
)
def test_invalid_frozen_patterns_are_refused(pattern, words):
    with pytest.raises(UserError, match=words):
        parameters(tiny("lm", frozen=pattern))


ADAPTED = {"lora.rank": 2, "lora.match": "attention"}


def test_lora_starts_at_the_network_and_trains_only_adapters():
    config = resolved(configs.override(tiny("lm"), ADAPTED))
    before, after = parameters(configs.override(tiny("lm"), ADAPTED))
    changed = {
        name.split("/")[0] for name in before if not np.array_equal(before[name], after[name])
    }
    assert changed == {"lora"} and all(
        "attention" in name for name in before if name.startswith("lora")
    )
    states = compile_programs(configs.override(tiny("lm"), ADAPTED), 1).init([config])
    params = jax.tree.map(lambda x: x[0], states.params)
    begun = flatten_state(lora.merge_adaptation(config, params))
    assert all(
        np.array_equal(value, begun[name]) for name, value in flatten_state(params["net"]).items()
    )


def test_lora_merge_adds_the_scaled_product():
    config = ConfigDict(dict(lora=dict(rank=2, alpha=6.0, match=".")))
    keys = jax.random.split(jax.random.key(0), 3)
    net = dict(layer=dict(kernel=jax.random.normal(keys[0], (5, 4)), bias=jnp.ones(4)))
    added = lora.init_adaptation(config, keys[1], net)
    assert (
        list(added) == ["layer/kernel"]
        and added["layer/kernel"]["a"].shape == (5, 2)
        and not added["layer/kernel"]["b"].any()
    )
    b = jax.random.normal(keys[2], (2, 4))
    both = lora.merge_adaptation(
        config, dict(net=net, lora={"layer/kernel": added["layer/kernel"] | dict(b=b)})
    )
    np.testing.assert_allclose(
        both["layer"]["kernel"],
        net["layer"]["kernel"] + 3 * added["layer/kernel"]["a"] @ b,
        rtol=1e-5,
        atol=1e-6,
    )
    assert (both["layer"]["bias"] == 1).all()


@pytest.mark.parametrize(
    "change, words",
    [
        (
            {"lora.rank": 2, "lora.match": "nowhere"},
            "matches no kernel; the kernels are stack/layer_0/attention/out/kernel",
        ),
        ({"lora.rank": -1}, "must be at least 0"),
        ({"lora.rank": 2, "lora.match": "("}, "is not a regular expression"),
    ],
)
def test_invalid_lora_configs_are_refused(change, words):
    with pytest.raises(UserError, match=words):
        parameters(configs.override(tiny("lm"), change))


def test_lora_is_for_language_models_only():
    with pytest.raises(UserError, match="config.lora.rank: no such key of config.method = 'vae'"):
        parameters(configs.override(tiny("vae"), {"lora.rank": 2}), 1)


def test_lora_run_starts_from_a_trained_run(tmp_path):
    """The adapted run starts with exactly the weights of the trained run. Initializing
    a run without an adaptation from an adapted one is refused.
    """
    never = dict(run__eval_every="never", run__sample_every="never", run__save_every="never")
    train([tiny("lm", **JOINED, steps="8 steps", **never)], [tmp_path])
    run = aigc_jax.load(tmp_path)
    out = io.StringIO()
    generation.interactive_loop(run, 6, SamplingParams(0.0), 0, None, io.StringIO("1234\n"), out)
    (answer,) = generation.generate_continuations(run, ["1234\n"], 6, SamplingParams(0.0))
    assert out.getvalue() == f"1234\n{answer}\n"
    config = tiny("lm", **JOINED, init_from=str(tmp_path), init_match="^params/net/", lora__rank=2)
    found = data.load(config.data)
    config = configs.resolve_durations(config, found.spec.n_train, 16)
    programs = Programs(config, found, 1)
    states = init_from.warm_start_states(programs.init([config]), config, found.tokenizer)
    assert set(states.params) == {"net", "lora"}
    kept, begun = (
        flatten_state(run.state.params["net"]),
        flatten_state(lora.merge_adaptation(config, jax.tree.map(lambda x: x[0], states.params))),
    )
    assert all(np.array_equal(kept[name], begun[name]) for name in kept)
    with Checkpoints(tmp_path / "adapted" / "checkpoints") as checkpoints:
        checkpoints.save(
            1,
            flatten_state(programs.to_mesh(states)),
            {},
            dict(failed=[None], best=[None], rows=[dict(bytes=0, sha256="")]),
        )
    (tmp_path / "adapted" / "config.json").write_bytes((tmp_path / "config.json").read_bytes())
    plain = configs.resolve_durations(
        tiny("lm", **JOINED, init_from=str(tmp_path / "adapted"), init_match="layer"),
        found.spec.n_train,
        16,
    )
    with pytest.raises(UserError, match="holds a low-rank adaptation"):
        init_from.warm_start_states(Programs(plain, found, 1).init([plain]), plain)


def test_docstrings_dataset_pairs_docstrings_with_functions(tmp_path, monkeypatch):
    for i in range(40):
        (tmp_path / f"m{i}.py").write_text(
            f'def f{i}(x):\n    """Adds {i}."""\n    return x + {i}\n'
        )
    monkeypatch.setattr(corpora.sysconfig, "get_path", lambda name: str(tmp_path))
    found = data.load(
        ConfigDict(data_schema.DEFAULTS | dict(name="docstrings", length=80, prefix_lm=True))
    )
    assert sum(count for _, count in found.splits.values()) == 40 == len(found.about["files"])
    row = found.take(found.arrays, np.array([0]))["tokens"][0]
    assert re.fullmatch(
        r'"""Adds (\d+)."""\ndef f\1\(x\):\n    return x \+ \1',
        found.tokenizer.decode_until_end(row[1:]),
    )
