"""Incompatible options are refused by a one-line error."""

import itertools

import options
import pytest
from covering import row_with
from option_runs import name_of, precision_of, refused, usual
from options import BASES, LM, SEQ

pytestmark = [pytest.mark.unit, pytest.mark.usefixtures("option_files")]


def refusals(every: bool) -> list:
    """(base, incompatible options, message): one for each message, or all."""
    out, seen = [], set()
    for base in BASES:
        for refusal in options.refusals_of(base):
            for values in itertools.product(*refusal.when.values()):
                some = dict(zip(refusal.when, values, strict=True))
                if any(
                    r.words != refusal.words and r.applies(some) for r in options.refusals_of(base)
                ):
                    # Another reason comes first, such as a missing package.
                    continue
                if all(value in options.all_axes(base)[axis] for axis, value in some.items()) and (
                    every or refusal.words not in seen
                ):
                    seen.add(refusal.words)
                    out.append((base, some, refusal.words))
    return out


def check_refused(case, tmp_path):
    base, some, words = case
    other = lambda base, row: (
        not any(r.applies(row) for r in options.refusals_of(base) if r.words != words)
        and not options.unread(base, row)
    )
    found = row_with(options.all_axes(base), base, some, other, usual)
    assert found, "no row has these options and nothing else that is refused"
    with precision_of(found[1]):
        refused(["train", *options.words(*found), f"--workdir={tmp_path / 'run'}"], words)
    assert not (tmp_path / "run" / "config.json").exists()


name_of_case = lambda case: f"{name_of(case[:2])}: {case[2]}"


@pytest.mark.parametrize("case", refusals(every=False), ids=name_of_case)
def test_incompatible_options_are_a_one_line_error(case, tmp_path):
    check_refused(case, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("case", refusals(every=True), ids=name_of_case)
def test_all_incompatible_options_are_a_one_line_error(case, tmp_path):
    check_refused(case, tmp_path)


@pytest.mark.parametrize(
    "base, data, sentence",
    [
        (("gan", "mlp"), "text", "neither images nor points"),
        (("vae", "mlp"), "text", "neither images nor points"),
        (("vqvae", ""), "text", "are for images"),
        (("classifier", ""), "text", "labelled images"),
        (LM, "digits", "reads text"),
        (("mlm", ""), "digits", "reads text"),
        (SEQ, "digits", "reads pairs"),
        (SEQ, "text", "reads pairs"),
        (("gan", "dcgan"), "ring", "are for images"),
        (("gan", "resnet"), "ring", "is for images"),
        (("vae", "conv"), "ring", "are for images"),
        (("vqvae", ""), "ring", "are for images"),
        (("classifier", ""), "ring", "labelled images"),
        (("gan", "mlp"), "pairs", "neither images nor points"),
    ],
    ids=str,
)
def test_data_that_a_method_cannot_read_are_a_one_line_error(base, data, sentence, tmp_path):
    values = {"data.name": data} | (
        {"likelihood": "gaussian", "binarize": "none"} if base[0] == "vae" else {}
    )
    refused(["train", *options.words(base, values), f"--workdir={tmp_path / 'run'}"], sentence)


def test_key_that_the_data_set_does_not_read_is_a_one_line_error(tmp_path):
    for base in BASES:
        for axis in ("data.colour", "data.prefix_lm"):
            words = options.words(base, {})
            value = "grey" if axis == "data.colour" else True
            if usual(base)["data.name"] not in ("folder", "pairs"):
                refused(
                    ["train", *words, f"--config.{axis}={value}", f"--workdir={tmp_path / 'run'}"],
                    "is not read by",
                )
