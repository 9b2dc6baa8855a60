"""What the writers of the configs write: are poems poems, tunes tunes, functions
Python? How well do they predict, and how much is copied?

    python launch.py sweep --experiment=writers --workdir=runs/writers
    python launch.py figure --experiment=writers

The first command trains what is missing and samples again (--only=poems,tunes: some of
the writers); the second draws table and figure from the committed rows.

Of every writer 200 texts from the beginning of one, at temperature 0.8 (the tale 1),
unpicked: each has its row, and beside them 200 held-out texts, judged by the same
functions. Bits a character of the full test split (of recurrent networks from
beginning to end, their state going on), beside those of 5-grams with modified
Kneser-Ney smoothing of the same training split.
"""

import ast
import copy
import re
from pathlib import Path

import numpy as np

from aigc_jax.sweeps.experiment import Claim, Experiment

HERE = Path(__file__).resolve().parent
COLUMNS = dict.fromkeys(("writer", "source", "index", "good", "copied", "bits", "text"))
COUNT, COPY = 200, 20
# Of the others 0.8; below 1 likely prose, which was read, comes more often than it is
# written.
TEMPERATURES = dict(tale=1.0)
ORDER = 5  # of the n-grams
WINDOW = 1024  # tokens that a recurrent network reads at once


def is_poem(text: str) -> bool:
    """At least two lines, all of five characters or all of seven; what comes after the
    last mark is a line that was not ended.
    """
    lines = re.split("[，。！？；、：]", text)[:-1]
    return len(lines) > 1 and {len(line) for line in lines} in ({5}, {7})


def is_tune(text: str) -> bool:
    from aigc_jax.media import music

    return music.has_valid_bars(text)


def first_function(text: str) -> str:
    """The lines of a text that begins with "def " up to the first that is not indented;
    "" where there is none.
    """
    lines = text.split("\n")
    for i, line in enumerate(lines[1:], 1):
        if line and not line[0].isspace() and not line.startswith(")"):
            return "\n".join(lines[:i])
    return ""


def is_function(text: str) -> bool:
    code = first_function(text)
    try:
        return any(isinstance(node, ast.FunctionDef) for node in ast.parse(code).body)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False


def functions(texts):
    """Each function of a module: what follows when a network has written "def"."""
    return [text[match.start() :] for text in texts for match in re.finditer(r"(?m)^def ", text)]


def pieces(texts, length=250):
    """Parts of a long text, so that there are many."""
    return [
        text[i : i + length] for text in texts for i in range(0, len(text) - length + 1, length)
    ]


# writer -> (config, what a good text is, or None where that is not for a function to
# say, prompt, tokens, texts -> the held-out texts, is what it copies of interest?)
WRITERS = {
    "poems": ("lstm_tang", is_poem, "", 160, list, True),
    "tunes": ("gpt_abc", is_tune, "", 900, list, True),
    "tale": ("lstm_text", None, "从前有座山", 200, pieces, True),
    "functions": ("gpt_code", is_function, "def", 250, functions, False),
}
LABELS = dict(
    poems="poems: lines all of 5 or all of 7",
    tunes="tunes: every bar adds up",
    functions="functions: `ast.parse` accepts",
    tale="a tale that begins 从前有座山",
)


def texts_of(dataset, split) -> list[str]:
    """The texts of a split, from its tokens."""
    first, count = dataset.splits[split]
    length, tokenizer = dataset.spec.shape[0], dataset.tokenizer
    tokens = np.asarray(dataset.arrays["tokens"])[first * length : (first + count) * length + 1]
    return [
        text
        for part in np.split(tokens, np.flatnonzero(tokens == tokenizer.end))
        if (text := tokenizer.decode(part))
    ]


def baseline(train, test) -> float:
    """Bits a character of 5-grams, with the ends of texts as in the network's."""
    from parts.ngram import bits_per_character

    text = "\0".join(test) + "\0"
    return (
        bits_per_character("\0".join(train) + "\0", text, ORDER) * len(text) / sum(map(len, test))
    )


def shortened(text, tokenizer, most) -> str:
    """Its first tokens, so that held-out texts have no more room than written ones."""
    return tokenizer.decode(tokenizer.encode(text)[:most])


def written(run, prompt, most, temperature) -> list[str]:
    from aigc_jax.inference import generation
    from aigc_jax.methods.decoding import SamplingParams

    batches = [
        generation.generate_continuations(
            run, [prompt] * 50, most, SamplingParams(temperature), seed
        )
        for seed in range(COUNT // 50)
    ]
    return [prompt + text for batch in batches for text in batch]


def scored(run) -> float:
    """Bits a character of the test split, from beginning to end: the state of a
    recurrent network goes on (Zaremba et al. 2014).
    """
    import jax

    from aigc_jax import data
    from aigc_jax.methods.losses import tokens as token_losses

    if run.config.get("network") != "recurrent":
        return run.evaluate("test")["bits_per_character"]
    dataset, apply, length = (
        data.load(run.config.data),
        run.programs.method.language.apply,
        run.config.data.length,
    )
    start, count = dataset.splits["test"]
    tokens = np.asarray(
        dataset.arrays["tokens"][start * length : (start + count) * length + 1], np.int32
    )

    @jax.jit
    def nats(carry, window):
        logits, carry = apply(run.state.params, window[None, :-1], carry)
        return carry, token_losses.cross_entropy(
            logits, window[None, 1:], 0.0, dataset.spec.vocabulary
        ).sum()

    carry, total = None, 0.0
    for first in range(0, len(tokens) - 1, WINDOW):
        carry, more = nats(carry, tokens[first : first + WINDOW + 1])
        total += float(more)
    return total / np.log(2) / dataset.arrays["sizes"][tokens[1:], 0].sum(dtype=np.int64)


def run(writer, workdir) -> list[dict]:
    """The rows of one writer."""
    import aigc_jax
    from aigc_jax import data
    from aigc_jax.metrics.text import longest_copy_length
    from aigc_jax.training import config_files
    from aigc_jax.training.train import train_configs

    config, good, prompt, most, chosen, copies = WRITERS[writer]
    train_configs([config_files.load(HERE.parent / "configs" / f"{config}.py")], [workdir / writer])
    best = aigc_jax.load(workdir / writer, "best")
    dataset = data.load(best.config.data)
    train_texts, test = texts_of(dataset, "train"), texts_of(dataset, "test")
    rows = [dict(writer=writer, source="network", bits=scored(best))]
    if copies:
        rows.append(dict(writer=writer, source="5-grams", bits=baseline(train_texts, test)))
    untrained = copy.copy(best)
    untrained.states = best.programs.init([best.config])
    real = chosen(test)
    real = [
        shortened(real[i], best.tokenizer, most)
        for i in np.linspace(0, len(real) - 1, COUNT).astype(int)
    ]
    corpus = "\0".join(train_texts)
    write = lambda run: written(run, prompt, most, TEMPERATURES.get(writer, 0.8))
    for source, texts in dict(
        network=write(best), heldout=real, untrained=write(untrained)
    ).items():
        for index, text in enumerate(texts):
            copied = longest_copy_length(text, corpus) if copies and source != "untrained" else None
            rows.append(
                dict(
                    writer=writer,
                    source=source,
                    index=index,
                    good=int(good(text)) if good else None,
                    copied=copied,
                    text=text.replace("\r", "") if source == "network" and index < 50 else None,
                )
            )
    return [COLUMNS | row for row in rows]


def writers_of(rows) -> list[str]:
    return list(dict.fromkeys(row["writer"] for row in rows))


def judged_of(rows) -> list[str]:
    return [writer for writer in writers_of(rows) if WRITERS[writer][1]]


def share(rows, writer, source, of="good"):
    """Of the texts, in [0, 1]: of "good" ones, or of those that copy more than COPY
    characters in a row.
    """
    found = [
        row[of]
        for row in rows
        if (row["writer"], row["source"]) == (writer, source) and row["index"] is not None
    ]
    if not found or found[0] is None:
        return None
    return float(np.mean([value > COPY if of == "copied" else value for value in found]))


def bits(rows, writer, source):
    return next(
        (
            row["bits"]
            for row in rows
            if (row["writer"], row["source"]) == (writer, source) and row["bits"] is not None
        ),
        None,
    )


def table(rows) -> str:
    lines = [
        "| of 200 texts | written | held out | untrained | copy > 20, written | held out | "
        "bits a character | 5-grams |",
        "|---" * 8 + "|",
    ]
    percent = lambda value: "" if value is None else f"{100 * value:.1f} %"
    number = lambda value: "" if value is None else f"{value:.3f}"
    for writer in writers_of(rows):
        shares = [share(rows, writer, source) for source in ("network", "heldout", "untrained")]
        copies = [share(rows, writer, source, "copied") for source in ("network", "heldout")]
        values = [bits(rows, writer, source) for source in ("network", "5-grams")]
        lines.append(
            f"| {LABELS[writer]} | "
            f"{' | '.join([*map(percent, shares), *map(percent, copies), *map(number, values)])} "
            "|"
        )
    return "\n".join(lines) + "\n"


def figure(rows, axes):
    sources = dict(
        untrained=("untrained", "tab:gray"),
        network=("written", "tab:blue"),
        heldout=("held out", "tab:green"),
    )
    for i, (source, (label, colour)) in enumerate(sources.items()):
        values = [100 * share(rows, writer, source) for writer in judged_of(rows)]
        axes.bar(np.arange(len(values)) + 0.27 * (i - 1), values, 0.25, color=colour, label=label)
    axes.set_xticks(range(len(values)), judged_of(rows))
    axes.set(ylabel="% of 200 texts", ylim=(0, 105))
    axes.legend()


CLAIMS = tuple(
    Claim(
        what=f"{LABELS[writer].partition(':')[0]}: bits a character",
        source="5-grams with modified Kneser-Ney smoothing",
        is_baseline=True,
        published=lambda rows, writer=writer: bits(rows, writer, "5-grams"),
        values=lambda rows, writer=writer: [bits(rows, writer, "network")],
        tolerance=0.0,
        better="lower",
        digits=3,
    )
    for writer in ("tunes", "poems", "tale")
)

EXPERIMENT = Experiment(
    run=run,
    parts=tuple(WRITERS),
    column="writer",
    table=table,
    figure=figure,
    claims=CLAIMS,
    size=(5, 3.2),
)
