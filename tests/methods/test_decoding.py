"""Generation: filters by hand, independence of chunks and of other prompts, beam search
against exhaustive search.
"""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aigc_jax.methods import beam_search, decoding, text_decoder
from aigc_jax.methods.decoding import SamplingParams
from aigc_jax.methods.text_decoder import TextDecoder
from aigc_jax.models import recurrent, transformer
from aigc_jax.utils.errors import UserError

LOGITS = jnp.log(jnp.array([[0.5, 0.25, 0.15, 0.1]]))
NONE = jnp.zeros((1, 4), bool)
END = 6
GOLDEN_REPETITION = [109, 122, 14, 81, 129, 49, 23, 80, 19, 114, 65, 70]

NETS = {
    "transformer": transformer.Decoder(
        width=16, heads=2, layers=1, vocabulary=7, context=64, position_encoding="rotary"
    ),
    "scanned": transformer.Decoder(
        width=16, heads=2, layers=2, vocabulary=7, context=64, scan=True
    ),
    "lstm": recurrent.Recurrent(
        vocabulary=7, cell="lstm", width=12, layers=2, embedding=12, dropout=0.0, tied=False
    ),
}
every_net = pytest.mark.parametrize("name", NETS)
# For the transformer with scanned layers, greedy text and beam search are in the fast
# tier.
one_of_a_kind = pytest.mark.parametrize(
    "name", ["transformer", "lstm", pytest.param("scanned", marks=pytest.mark.slow)]
)


@functools.cache
def initial(name):
    return jax.jit(NETS[name].init)(jax.random.key(3), jnp.zeros((1, 4), jnp.int32))


@functools.cache
def made(name, scale=12.0):
    """(apply, net, params) of a small network that is far from uniform."""
    net = NETS[name]
    params = jax.tree.map(lambda x: scale * x if x.ndim > 1 else x, initial(name))
    return lambda params, tokens, carry=None: net.apply(params, tokens, carry), net, params


@functools.cache
def reference(name, scale):
    """tokens [B, T <= 64] -> log probabilities of the next tokens, [B, T, 7], without a
    cache: one program serves every length, since later tokens have no effect.
    """
    apply, net, params = made(name, scale)
    run = jax.jit(lambda tokens: jax.nn.log_softmax(apply(params, tokens)[0], axis=-1)[..., :7])
    return lambda tokens: np.asarray(run(np.pad(tokens, ((0, 0), (0, 64 - tokens.shape[1])))))[
        :, : tokens.shape[1]
    ]


def greedy(name, text, num, scale=12.0, end=99):
    """Greedy text of the network without a cache, applied once per token."""
    new = []
    while len(new) < num and end not in new:
        new.append(int(np.argmax(reference(name, scale)(np.array([[*text, *new]]))[0, -1])))
    return new


filtered = jax.jit(decoding.filter_logits, static_argnums=2)


def allowed(choice, seen=NONE):
    return np.isfinite(np.asarray(filtered(LOGITS, seen, choice)))[0].tolist()


def test_filters_keep_the_expected_tokens():
    assert allowed(SamplingParams()) == [True] * 4
    assert allowed(SamplingParams(top_k=2)) == [True, True, False, False]
    assert allowed(SamplingParams(top_k=9)) == [True] * 4
    assert allowed(SamplingParams(top_p=0.5)) == [
        True,
        False,
        False,
        False,
    ]  # the first token reaches 0.5
    assert allowed(SamplingParams(top_p=0.6)) == [True, True, False, False]
    assert allowed(SamplingParams(top_p=1e-9)) == [True, False, False, False]  # never empty
    assert allowed(SamplingParams(min_p=0.29)) == [True, True, True, False]
    assert allowed(SamplingParams(min_p=0.51)) == [True, False, False, False]


def test_repetition_penalty_lowers_logits_of_previous_tokens():
    seen = jnp.array([[True, False, False, False]])
    out = decoding.filter_logits(
        jnp.array([[2.0, -1.0, 0.5, 0.0]]), seen, SamplingParams(repetition=2.0)
    )
    np.testing.assert_allclose(out, [[1.0, -1.0, 0.5, 0.0]])
    out = decoding.filter_logits(
        jnp.array([[-2.0, -1.0, 0.5, 0.0]]), seen, SamplingParams(repetition=2.0)
    )
    np.testing.assert_allclose(out, [[-4.0, -1.0, 0.5, 0.0]])


@pytest.mark.parametrize("temperature, power", [(1.0, 1.0), (0.5, 2.0)])
def test_sampled_frequencies_match_tempered_probabilities(temperature, power):
    n = 20_000
    tokens = decoding.sample_token(
        jax.random.key(0),
        jnp.arange(n),
        0,
        jnp.broadcast_to(LOGITS, (n, 4)),
        jnp.zeros((n, 1), bool),
        SamplingParams(temperature),
    )
    p = np.exp(np.asarray(LOGITS[0])) ** power
    np.testing.assert_allclose(np.bincount(tokens, minlength=4) / n, p / p.sum(), atol=0.015)


TIED = [0.3, 0.2, 0.2, 0.2, 0.1]


def test_top_p_and_top_k_break_ties_by_lowest_id():
    """top_p = 0.6 keeps three of the five tokens, as many as TopPLogitsWarper of
    transformers 5.23, which takes the last ids of equal probabilities.
    """
    logits = jnp.log(jnp.array([TIED]))
    tied = lambda choice: np.isfinite(filtered(logits, NONE, choice))[0].tolist()
    assert tied(SamplingParams(top_p=0.6)) == [True, True, True, False, False]
    assert tied(SamplingParams(top_p=0.4)) == [True, True, False, False, False]
    assert tied(SamplingParams(top_k=2)) == [True, True, False, False, False]
    assert tied(SamplingParams(top_k=1)) == [
        True,
        False,
        False,
        False,
        False,
    ]  # as with temperature 0
    equal = filtered(jnp.zeros((1, 1000)), jnp.zeros((1, 1), bool), SamplingParams(top_p=0.1005))
    assert np.flatnonzero(np.isfinite(equal[0])).tolist() == list(range(101))


@pytest.mark.slow  # imports torch; `test_filters_keep_the_expected_tokens` needs none
@pytest.mark.parametrize(
    "name, values",
    [
        ("top_k", [1, 3, 40, 200]),
        ("top_p", [1e-6, 0.3, 0.9, 0.999]),
        ("min_p", [0.01, 0.3, 0.9]),
        ("temperature", [0.2, 1.7]),
        ("repetition", [0.5, 1.3]),
    ],
)
def test_filters_match_transformers_logits_processors(name, values):
    """Except for ties of top_k, all of which transformers keeps. The logits of each row
    differ, then a third of them are equal.
    """
    torch, library = (
        pytest.importorskip("torch"),
        pytest.importorskip("transformers.generation.logits_process"),
    )
    theirs = dict(
        top_k=library.TopKLogitsWarper,
        top_p=library.TopPLogitsWarper,
        min_p=library.MinPLogitsWarper,
        temperature=library.TemperatureLogitsWarper,
        repetition=library.RepetitionPenaltyLogitsProcessor,
    )[name]
    logits = np.random.RandomState(0).normal(0, 3, (16, 130)).astype(np.float32)
    ids = np.random.RandomState(1).randint(0, 130, (16, 40))
    seen = np.zeros(logits.shape, bool)
    np.put_along_axis(seen, ids, True, axis=1)
    tied = np.where(np.arange(130) % 3 == 0, logits[:, 40:41], logits)
    for x in (logits,) if name == "top_k" else (logits, tied):
        for value in values:
            ours = np.asarray(
                decoding.filter_logits(
                    jnp.array(x), jnp.array(seen), SamplingParams(**{name: value})
                )
            )
            right = theirs(value)(torch.tensor(ids), torch.tensor(x)).numpy()
            np.testing.assert_allclose(np.sort(ours), np.sort(right), rtol=1e-6)
            if x is logits:
                np.testing.assert_allclose(ours, right, rtol=1e-6)


@pytest.mark.parametrize(
    "name, values",
    [
        ("temperature", [-1.0, 1e-30, 1e30, 10**30]),
        ("top_k", [-1, 10**30, 1.5, True]),
        ("top_p", [0.0, -0.1, 1.1, 1e30]),
        ("min_p", [1.0, -0.1, 1e30]),
        ("repetition", [0.0, -1.0, 1e30]),
    ],
)
def test_out_of_range_sampling_parameters_are_refused(name, values):
    for value in [*values, float("nan"), float("inf"), -float("inf"), "a"]:
        with pytest.raises(UserError, match=f"^{name}="):
            SamplingParams(**{name: value}).check_ranges()


PLAIN = SamplingParams()


@functools.cache
def writer_of(name, choice, end, chunk):
    writer = TextDecoder(*made(name), choice, (end,))
    writer.chunk = chunk
    return writer


def written(name, prompts, num, choice=PLAIN, key=5, end=99, chunk=text_decoder.CHUNK):
    """The tokens of each row."""
    writer = writer_of(name, choice, end, chunk)
    parts = np.concatenate(list(writer.stream_tokens(prompts, num, jax.random.key(key))), axis=1)
    return [row[row >= 0].tolist() for row in parts]


@every_net
def test_greedy_decoding_equals_uncached_decoding(name):
    for prompt in ([1], [2, 0, 3, 3, 1, 5, 2]):
        assert written(name, [prompt], 9, SamplingParams(temperature=0)) == [
            greedy(name, prompt, 9)
        ]


@one_of_a_kind
@pytest.mark.parametrize("chunks", [(7, 16), pytest.param((1, 7), marks=pytest.mark.slow)], ids=str)
def test_text_depends_on_the_key_and_not_on_the_chunk_length(name, chunks):
    texts = [written(name, [[1, 2], [3]], 20, chunk=chunk) for chunk in chunks]
    assert texts[0] == texts[1]
    assert [len(t) for t in texts[0]] == [20, 20]
    assert written(name, [[1, 2], [3]], 20, key=6) != texts[0]


@one_of_a_kind
def test_batched_prompts_of_different_length_equal_single_prompts(name):
    prompts = [[1], [2, 3, 4, 5, 0, 1, 1], [4, 4]]
    choice = SamplingParams(temperature=0, repetition=1.3)
    assert written(name, prompts, 10, choice) == [
        written(name, [p], 10, choice)[0] for p in prompts
    ]


class Bigrams:
    """A network whose logits depend only on the last token, so that only the repetition
    penalty depends on earlier tokens.
    """

    def __init__(self, vocabulary, capacity):
        self.vocabulary, self.capacity = vocabulary, capacity
        table = (
            np.random.RandomState(vocabulary)
            .normal(0, 2, (vocabulary, vocabulary))
            .astype(np.float32)
        )
        self.table = np.pad(table, ((0, 0), (0, -vocabulary % 128)), constant_values=-1e9)

    def empty_carry(self, batch, length):
        return jnp.zeros(batch)

    def write(self, prompts, num, choice, key=0):
        writer = TextDecoder(
            lambda table, tokens, carry: (table[tokens], carry),
            self,
            jnp.array(self.table),
            choice,
            (),
        )
        parts = np.concatenate(
            list(writer.stream_tokens(prompts, num, jax.random.key(key))), axis=1
        )
        return [row[row >= 0].tolist() for row in parts]

    def penalized(self, prompt, num, penalty):
        """Greedy text by NumPy: the logit of each token of the prompt and of the text
        so far is divided by the penalty if positive, else multiplied.
        """
        text = list(prompt)
        for _ in range(num):
            score = self.table[text[-1], : self.vocabulary].copy()
            there = np.unique(text)
            score[there] = np.where(
                score[there] < 0, score[there] * penalty, score[there] / penalty
            )
            text.append(int(score.argmax()))
        return text[len(prompt) :]


@pytest.mark.parametrize("vocabulary", [90, 128, 130])
@pytest.mark.parametrize("capacity", [None, 16])
def test_repetition_penalty_covers_the_full_prompt_and_text(vocabulary, capacity):
    """The penalty includes tokens that have left the context or were cut off a long
    prompt, for prompts of different lengths and for any vocabulary.
    """
    net = Bigrams(vocabulary, capacity)
    long = np.random.RandomState(0).permutation(vocabulary)[:70].tolist()
    prompts = [long, [3], long[:9]]
    texts = net.write(prompts, 40, SamplingParams(temperature=0, repetition=4.0))
    assert texts == [net.penalized(prompt, 40, 4.0) for prompt in prompts]
    assert len(set(texts[1])) > 20  # not a short cycle of tokens


@pytest.mark.parametrize(
    "imported", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["golden", "imported"]
)
def test_repetition_penalty_matches_transformers(imported):
    """RepetitionPenaltyLogitsProcessor over all tokens so far; the golden tokens are
    those of transformers 5.23.
    """
    net = Bigrams(130, 16)
    long = np.random.RandomState(0).permutation(130)[:70].tolist()
    text = net.write([long], 12, SamplingParams(temperature=0, repetition=4.0))[0]
    assert text == GOLDEN_REPETITION
    if not imported:
        return
    torch, library = (
        pytest.importorskip("torch"),
        pytest.importorskip("transformers.generation.logits_process"),
    )
    penalty, ids = library.RepetitionPenaltyLogitsProcessor(4.0), torch.tensor([long])
    for _ in range(12):
        scores = penalty(ids, torch.tensor(net.table[ids[0, -1], :130])[None])
        ids = torch.cat([ids, scores.argmax(-1, keepdim=True)], dim=1)
    assert ids[0, 70:].tolist() == text


@pytest.mark.parametrize("kind, vocabulary", [("transformer", 131), ("lstm", 3)])
def test_combined_filters_never_sample_ids_past_the_vocabulary(kind, vocabulary):
    """Also past the context and for prompts of different lengths: ids past the
    vocabulary are never sampled, however flat the distribution.
    """
    net = NETS[kind].clone(
        vocabulary=vocabulary, layers=1, **(dict(context=16) if kind == "transformer" else {})
    )
    params = jax.jit(net.init)(jax.random.key(3), jnp.zeros((1, 4), jnp.int32))
    apply = lambda params, tokens, carry=None: net.apply(params, tokens, carry)
    prompts = [[1], np.arange(40) % vocabulary, [0, 2, 1]]
    for choice in (
        SamplingParams(1000.0, repetition=2.0),
        SamplingParams(0.8, vocabulary + 5, 0.9, 0.01, 1.2),
        SamplingParams(0, 2, 0.5, 0.5, 1.5),
    ):
        parts = list(
            TextDecoder(apply, net, params, choice, ()).stream_tokens(
                prompts, 24, jax.random.key(0)
            )
        )
        tokens = np.concatenate(parts, axis=1)
        assert (tokens >= 0).sum(1).tolist() == [24] * 3 and tokens.max() < vocabulary


def test_splitting_a_batch_does_not_change_its_texts():
    net = Bigrams(130, None)
    prompts, choice, key = (
        [[1], [2, 3], [4], [5]],
        SamplingParams(0.9, top_p=0.9),
        jax.random.key(1),
    )
    reference = net.write(prompts, 20, choice, 1)
    writer = TextDecoder(
        lambda table, tokens, carry: (table[tokens], carry), net, jnp.array(net.table), choice, ()
    )
    parts = [
        np.concatenate(
            list(writer.stream_tokens(prompts[i : i + 2], 20, key, first_index=i)), axis=1
        )
        for i in (0, 2)
    ]
    assert [row[row >= 0].tolist() for part in parts for row in part] == reference


def test_text_stops_before_any_of_several_end_tokens():
    net = Bigrams(130, None)
    free = net.write([[1], [2]], 30, PLAIN)
    ends = (free[0][4], free[1][9])
    writer = TextDecoder(
        lambda table, tokens, carry: (table[tokens], carry), net, jnp.array(net.table), PLAIN, ends
    )
    parts = np.concatenate(list(writer.stream_tokens([[1], [2]], 30, jax.random.key(0))), axis=1)
    for row, text in zip(parts, free, strict=True):
        assert (
            row[row >= 0].tolist()
            == text[: next(i for i, token in enumerate(text) if token in ends)]
        )


def test_prompt_block_length_does_not_change_the_text(monkeypatch):
    prompt = np.random.RandomState(0).randint(0, 6, 40).tolist()
    reference = written("lstm", [prompt], 8, SamplingParams(temperature=0, repetition=1.2))
    monkeypatch.setattr(text_decoder, "BLOCK", 8)
    for name in ("lstm", "transformer"):
        short = written(name, [prompt], 8, SamplingParams(temperature=0, repetition=1.2))
        monkeypatch.setattr(text_decoder, "BLOCK", 64)
        assert short == written(name, [prompt], 8, SamplingParams(temperature=0, repetition=1.2))
        monkeypatch.setattr(text_decoder, "BLOCK", 8)
    assert reference == written("lstm", [prompt], 8, SamplingParams(temperature=0, repetition=1.2))


def test_text_past_the_context_continues_from_its_last_half():
    """The continuation equals that of the last half of the context as a new prompt."""
    tokens = written("transformer", [[1, 2, 3]], 120, SamplingParams(temperature=0))[0]
    assert len(tokens) == 120
    text = [1, 2, 3, *tokens]
    # number of tokens when no further chunk fits into the context
    first = next(n for n in range(4, 200) if n - 1 + 16 > 64 and (n - 1) % 16 == 0)
    assert greedy("transformer", text[first - 32 : first], 16) == text[first : first + 16]


def test_prompt_longer_than_the_context_is_cut_to_its_last_tokens():
    long = np.random.RandomState(0).randint(0, 6, 150).tolist()
    assert written("transformer", [long], 8, SamplingParams(temperature=0)) == written(
        "transformer", [long[-48:]], 8, SamplingParams(temperature=0)
    )


@one_of_a_kind
def test_text_stops_before_the_end_token(name):
    free = written(name, [[1], [2]], 30)
    end = free[0][5]
    stopped = written(name, [[1], [2]], 30, end=end)
    for a, b in zip(free, stopped, strict=True):
        assert b == (a[: a.index(end)] if end in a else a)


def test_finished_rows_add_no_decoding_calls():
    """One row ends at its first token, the other generates all 20 tokens: two calls,
    and no more.
    """
    apply, net, params = made("transformer")
    endless = greedy("transformer", [1], 40)
    first = next(t for t in range(7) if greedy("transformer", [t], 1)[0] not in endless)
    end = greedy("transformer", [first], 1)[0]
    writer = TextDecoder(apply, net, params, SamplingParams(temperature=0), (end,))
    parts = list(writer.stream_tokens([[1], [first]], 20, jax.random.key(0)))
    assert len(parts) == 2 and [(row >= 0).sum() for row in np.concatenate(parts, axis=1)] == [
        20,
        0,
    ]


def test_generate_equals_text_decoder_from_the_start_token():
    apply, net, params = made("transformer")
    key = jax.random.key(5)
    inside = decoding.generate_tokens(
        lambda t, c: apply(params, t, c), net, key, jnp.arange(2), 1, 20
    )
    assert inside.tolist() == written("transformer", [[1], [1]], 20)


def beams(*fast):
    """Networks and length penalties; the listed pairs are in the fast tier."""
    return pytest.mark.parametrize(
        "penalty, name",
        [
            pytest.param(penalty, name, marks=[pytest.mark.slow] * ((penalty, name) not in fast))
            for name in NETS
            for penalty in (0.0, 1.0)
        ],
    )


def search(name, first, width, length, penalty=0.0, scale=3.0):
    apply, net, params = made(name, scale)
    carry = net.empty_carry(len(first), length + 1)
    run = jax.jit(
        lambda: beam_search.search(
            lambda t, c: apply(params, t, c),
            net,
            carry,
            jnp.array(first),
            width,
            length,
            end_token=END,
            length_penalty=penalty,
        )
    )
    tokens, score = run()
    return [
        row[: row.index(END) + 1] if END in row else row for row in tokens.tolist()
    ], np.asarray(score)


@beams((1.0, "transformer"), (0.0, "scanned"), (1.0, "lstm"))
def test_beam_search_of_full_width_is_exhaustive(name, penalty):
    texts, scores = search(name, [0, 3], 7**2, 3, penalty)
    for first, text, score in zip([0, 3], texts, scores, strict=True):
        everything, others = {}, np.array(list(itertools.product(range(7), repeat=3)))
        follow = reference(name, 3.0)(np.insert(others, 0, first, axis=1)[:, :-1])
        each = np.cumsum(np.take_along_axis(follow, others[..., None], axis=2)[..., 0], axis=1)
        for other, total in zip(others.tolist(), each, strict=True):
            n = other.index(END) + 1 if END in other else 3
            everything[tuple(other[:n])] = total[n - 1] / ((5 + n) / 6) ** penalty
        assert tuple(text) == max(everything, key=everything.get)
        assert score == pytest.approx(max(everything.values()), abs=1e-4)


@beams((1.0, "transformer"), (0.0, "lstm"))
def test_beam_search_of_width_one_is_greedy(name, penalty):
    texts, scores = search(name, [0, 1, 3], 1, 12, penalty)
    for first, text, score in zip([0, 1, 3], texts, scores, strict=True):
        assert text == greedy(name, [first], 12, 3.0, END)
        follow = reference(name, 3.0)(np.array([[first, *text[:-1]]]))[0]
        assert score == pytest.approx(
            sum(follow[i, t] for i, t in enumerate(text)) / ((5 + len(text)) / 6) ** penalty,
            abs=1e-4,
        )


def test_wider_beams_do_not_lower_the_total_score():
    scores = [search("lstm", [0, 1, 2, 3], width, 6)[1].sum() for width in (1, 4, 49)]
    assert scores[0] <= scores[1] + 1e-5 and scores[1] <= scores[2] + 1e-5
