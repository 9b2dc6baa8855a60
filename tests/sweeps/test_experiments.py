"""Committed evidence: tables are what the rows say, and rows bear claims out."""

import numpy as np
import pytest
from helpers import ROOT, script

from aigc_jax.sweeps.evidence import read_rows


def committed_table(it) -> str:
    """The committed table without the caption below it."""
    text = (it.RESULTS / "table.md").read_text()
    caption = f"\n{it.EXPERIMENT.caption}\n" * bool(it.EXPERIMENT.caption)
    assert text.endswith(caption)
    return text.removesuffix(caption)


def test_digits_generator_learns_fashion_faster_and_both_networks_fail():
    it = script("fashion_from_digits")
    rows = read_rows(it.RESULTS)
    assert committed_table(it) == it.table(rows)
    scratch, both, generator = it.curves(rows).values()
    assert sorted(both) == sorted(generator) == [0, 100, 200, 300, 400] and both[0] == generator[0]
    assert all(generator[step] < scratch[min(step + 100, 400)] for step in (100, 200, 300, 400))
    assert (
        generator[200] < scratch[300]
        and generator[300] < scratch[500]
        and generator[400] < scratch[600]
    )
    assert all(both[step] > 600 for step in (100, 200, 300, 400))


def test_table_states_when_scratch_is_as_good():
    it = script("fashion_from_digits")
    rows = [
        dict(run=run, step=step, frechet_pixels=value)
        for run, curve in dict(
            scratch={0: 9.0, 10: 5.0, 20: 3.0},
            both={0: 7.0, 10: 1.0, 20: 4.0},
            generator={0: 8.0, 10: 3.0, 20: 2.0},
        ).items()
        for step, value in curve.items()
    ]
    assert it.table(rows).splitlines()[2:] == [
        "| 0 | 9.0 | 7.0 | 8.0 | 10 |",
        "| 10 | 5.0 | 1.0 | 3.0 | 20 |",
        "| 20 | 3.0 | 4.0 | 2.0 | never in 20 |",
    ]


def test_vae_over_five_seeds_reaches_the_elbo_of_flax():
    it = script("vae_mnist")
    rows = read_rows(it.RESULTS)
    assert committed_table(it) == it.table(rows)
    values = it.final(rows)
    assert len(values) == it.SEEDS == len(set(values)) and values.mean() <= it.REFERENCE
    # ten epochs of 50,000 pictures, 128 a step
    assert {row["step"] for row in rows if row["split"] == "test"} == {3907}


def test_importance_weighted_bound_trains_the_better_model():
    it = script("iwae_against_elbo")
    rows = read_rows(it.RESULTS)
    assert committed_table(it) == it.table(rows)
    scores = it.scores(rows)
    assert all(len(values) == it.SEEDS == len(set(values)) for values in scores.values())
    assert (scores["iwae"] < scores["elbo"]).all()


def test_vae_variant_claims_match_their_rows():
    it = script("vae_variants")
    rows = read_rows(it.RESULTS)
    table = it.table(rows)
    assert committed_table(it) == table
    found = it.values(rows)
    assert {name for name, _ in found} >= set(it.VARIANTS) and {
        name for name, *_ in it.CLAIMS
    } <= set(it.VARIANTS)
    images = ROOT / "docs" / "pictures"
    assert all((images / f"vae_{name}.png").is_file() for name in it.VARIANTS)
    assert tuple(claim for claim in it.CLAIMS if not it.holds(claim, found)) == it.LOST


def test_small_gpt_matches_nanogpt_and_recurrent_networks_have_rows():
    it = script("shakespeare")
    rows = read_rows(it.RESULTS)
    assert committed_table(it) == it.table(rows)
    values = it.final(rows)
    assert set(values) == set(it.NETWORKS) and all(
        len(v) == it.SEEDS == len(set(v)) for v in values.values()
    )
    assert values["transformer"].mean() <= 1.90
    assert {row["step"] for row in rows if row["split"] == "test"} == {2000}


def test_pretrained_network_leads_at_every_budget():
    it = script("finetune")
    rows = read_rows(it.RESULTS)
    assert committed_table(it) == it.table(rows)
    for budget in it.BUDGETS:
        scratch, tuned = (it.final(rows, start, budget) for start in it.START)
        assert (
            len(scratch) == len(tuned) == it.SEEDS == len(set(tuned))
            and tuned.max() < scratch.min()
        )
    assert len(it.final(rows, "scratch", it.LONG)) == it.SEEDS


def test_writer_statistics_are_counted_from_their_texts():
    it = script("writers")
    rows = read_rows(it.RESULTS)
    assert committed_table(it) == it.table(rows)
    kept = [row for row in rows if row["text"] is not None]
    assert len(kept) == 50 * len(it.writers_of(rows))
    assert all(
        it.WRITERS[row["writer"]][1](str(row["text"])) == row["good"]
        for row in kept
        if row["good"] is not None
    )
    for writer in it.writers_of(rows):
        assert (
            sum(
                row["writer"] == writer and row["source"] == "network" and row["index"] is not None
                for row in rows
            )
            == it.COUNT
        )
    for writer in it.judged_of(rows):
        written, real, untrained = (
            it.share(rows, writer, source) for source in ("network", "heldout", "untrained")
        )
        # docs/studies/writers.md: one function in 200
        assert untrained < written < real and (written > 0.25 or writer == "functions")


def test_poems_and_functions_are_parsed_into_parts():
    it = script("writers")
    assert it.is_poem("秦川雄帝宅，函谷壮皇居。绮殿千寻起，离宫") and it.is_poem(
        "一二三四五六七，一二三四五六七。"
    )
    assert (
        not it.is_poem("秦川雄帝宅，函谷壮皇。")
        and not it.is_poem("秦川雄帝宅，一二三四五六七。")
        and not it.is_poem("秦川雄帝宅，")
    )
    assert (
        it.first_function("def f(x):\n    return x\n\nclass A: pass") == "def f(x):\n    return x\n"
    )
    assert (
        it.first_function("def f(\n    x,\n):\n    return x\ny = 1")
        == "def f(\n    x,\n):\n    return x"
    )
    # may go on
    assert it.is_function("def f(x):\n    return x\n\nx = 1") and not it.is_function(
        "def f(x):\n    return x"
    )
    assert not it.is_function("def f(:\n  x\ny")
    assert it.functions(["import a\ndef f():\n  pass\n\n  def g()"]) == [
        "def f():\n  pass\n\n  def g()"
    ]


def test_more_latents_do_not_overfit_as_in_kingma_and_welling():
    it = script("kingma_welling_2013_fig2")
    rows = read_rows(it.RESULTS)
    assert committed_table(it) == it.table(rows)
    ends = {n: it.final(rows, n) for n in it.SIZES}
    assert all(
        len(train) == len(valid) == len(set(valid)) == it.SEEDS for train, valid in ends.values()
    )
    held = {n: valid.mean() for n, (_, valid) in ends.items()}
    # 200 learn more slowly, and are not done
    assert held[3] < held[5] < held[10] < held[20] and held[5] < held[200] < held[20]
    assert all(abs(train.mean() - valid.mean()) < 2 for train, valid in ends.values())
    for n in it.SIZES:
        seen, bound = it.curves(rows, n)[1]
        assert seen[-1] == 1e6 and (np.diff(bound.mean(1)) > -0.5).all()


def test_kl_weight_trades_rate_for_distortion():
    it = script("vae_beta")
    rows = read_rows(it.RESULTS)
    assert committed_table(it) == it.table(rows)
    rate, distortion, bound, active = (
        it.final(rows, name) for name in ("kl", "reconstruction", "neg_elbo", "active_units")
    )
    assert rate.shape == (len(it.BETAS), it.SEEDS) and np.allclose(
        rate + distortion, bound, atol=1e-3
    )
    assert (
        (np.diff(rate.mean(1)) < 0).all()
        and (np.diff(distortion.mean(1)) > 0).all()
        and active[0].mean() > active[-1].mean()
    )
    assert 0.6 <= it.BETAS[int(bound.mean(1).argmin())] <= 1.5  # the bound is what beta = 1 trains


def test_gan_regularizers_increase_recall():
    it = script("gan_menu")
    rows = read_rows(it.RESULTS)
    assert committed_table(it) == it.table(rows)
    of = {
        (loss, more): {name: it.of(rows, loss, more, name) for name in it.NAMES}
        for loss in it.LOSSES
        for more in it.ADDED
    }
    assert all(
        len(x) == it.SEEDS == len(set(x)) for values in of.values() for x in (values["frechet"],)
    )
    mean = {key: {name: x.mean() for name, x in values.items()} for key, values in of.items()}
    for loss in it.LOSSES:  # R1 helps every loss, in every seed
        assert (
            of[loss, "R1"]["frechet"].max() < of[loss, "nothing"]["frechet"].min()
            and of[loss, "R1"]["recall"].min() > 0.5
        )
        if loss != "least_squares":
            assert 134 < mean[loss, "spectral norm"]["frechet"] < 149
    for failed in (("wasserstein", "nothing"), ("least_squares", "gradient penalty")):
        assert (
            mean[failed]["frechet"] > 850
            and mean[failed]["recall"] < 1e-3
            and mean[failed]["precision"] > 0.99
        )


def test_packing_covers_the_ring_and_unrolling_most_stacked_digits():
    it = script("mode_collapse")
    rows = read_rows(it.RESULTS)
    assert committed_table(it) == it.table(rows)
    of = lambda data, remedy, name: it.measured(rows, data, remedy, name)
    assert all(
        len(of(data, remedy, "modes")) == it.SEEDS for data in it.MODES for remedy in it.REMEDIES
    )
    assert of("ring", "nothing", "modes").max() <= 1
    for remedy in ("packs of 3", "minibatch deviation"):
        assert (
            of("ring", remedy, "modes").min() == 8
            and of("ring", remedy, "high_quality").mean() > 0.7
        )
        assert of("ring", remedy, "reverse_kl").max() < 0.05
    assert max(of("grid", remedy, "high_quality").mean() for remedy in it.REMEDIES) < 0.2
    stacked, gap = (
        {remedy: of("stacked", remedy, name) for remedy in it.REMEDIES}
        for name in ("modes", "reverse_kl")
    )
    for remedy in ("packs of 3", "unrolled 5", "gradient penalty"):
        assert (
            stacked[remedy].min() > stacked["nothing"].max()
            and gap[remedy].max() < gap["nothing"].min()
        )
    assert stacked["minibatch deviation"].mean() < stacked["nothing"].mean()
    for remedy in it.REMEDIES:  # what is drawn is what was counted, of as many samples anew
        counts = of("stacked", remedy, "y")
        assert counts.sum() == it.COUNTED and abs((counts > 0).sum() - stacked[remedy][0]) < 60


def test_packs_of_four_cover_the_ring_and_a_deeper_generator_sharpens_it():
    it = script("pac_ring")
    rows = read_rows(it.RESULTS)
    assert committed_table(it) == it.table(rows)
    end = {
        pack: {name: it.of(rows, 2, pack, name, it.STEPS) for name in it.NAMES} for pack in it.PACKS
    }
    assert all(
        len(x) == it.SEEDS == len(set(x)) for x in (values["reverse_kl"] for values in end.values())
    )
    assert (end[4]["modes"] == 8).all() and end[4]["reverse_kl"].max() < min(
        end[pack]["reverse_kl"].min() for pack in (2, 3)
    )
    for pack in it.PACKS:  # less sharp than the paper's, and less even the longer it trains
        assert end[pack]["high_quality"].mean() < it.REFERENCE[pack]["high_quality"][0] - 5
        assert (
            end[pack]["reverse_kl"].mean()
            > it.of(rows, 2, pack, "reverse_kl", it.QUARTER // 5).mean()
        )
    for pack in it.DEEP_PACKS:
        shallow, deep = (it.of(rows, depth, pack, "high_quality", it.QUARTER) for depth in (2, 4))
        assert len(deep) == len(shallow) == it.SEEDS and deep.min() > shallow.max() + 10


def test_bfloat16_networks_reach_the_float32_loss():
    it = script("precision")
    rows = read_rows(it.RESULTS)
    assert committed_table(it) == it.table(rows)
    for case in it.CASES:
        assert all(
            abs(it.cost(rows, case, policy)) < 0.02
            for policy in ("networks in bfloat16", "and moments")
        )
        assert 0.01 < it.cost(rows, case, "and parameters") < 0.05


EXPERIMENTS = sorted((ROOT / "experiments").glob("*.py"))
# Of many rows or many panels; `vae_beta` is an experiment with a sweep as most of them.
LONG_TO_DRAW = ("mode_collapse", "kingma_welling_2013_fig2", "gan_menu", "pac_ring")


@pytest.mark.parametrize(
    "path",
    [
        pytest.param(p, id=p.stem, marks=[pytest.mark.slow] * (p.stem in LONG_TO_DRAW))
        for p in EXPERIMENTS
    ],
)
def test_figure_remakes_committed_evidence_byte_for_byte(path, tmp_path):
    """Tables always; figures with the lock's matplotlib."""
    import re
    import shutil
    from importlib.metadata import version

    from aigc_jax.sweeps import experiment, report

    committed = path.parent / "results" / path.stem
    folder = shutil.copytree(committed, tmp_path / "results")
    names = ("table.md", "figure.csv", "figure.png", "figure.pdf")
    for name in names:
        (folder / name).unlink()
    report.render_committed_results(
        folder, folder, experiment.load(path), report=lambda line, **_: None
    )
    locked = re.search(r"^matplotlib==(\S+)", (ROOT / "requirements.txt").read_text(), re.M)[1]
    for name in names if version("matplotlib") == locked else names[:2]:
        assert (folder / name).read_bytes() == (committed / name).read_bytes(), name


# Experiment -> the page of docs/ that discusses it.
DOCUMENTS = {
    "kingma_welling_2013_fig2": "studies/vae",
    "vae_beta": "studies/vae",
    "vae_mnist": "studies/vae",
    "iwae_against_elbo": "studies/vae",
    "vae_variants": "studies/vae",
    "shakespeare": "studies/text",
    "finetune": "studies/text",
    "writers": "studies/writers",
    "gan_menu": "studies/gan-losses",
    "mode_collapse": "studies/mode-collapse",
    "pac_ring": "studies/pacgan-ring",
    "precision": "guides/scaling",
}


@pytest.mark.parametrize("name", DOCUMENTS)
def test_document_tables_match_the_rows(name):
    assert (ROOT / "experiments" / "results" / name / "table.md").read_text() in (
        ROOT / "docs" / f"{DOCUMENTS[name]}.md"
    ).read_text()


@pytest.mark.parametrize("shape", [(50, 7), (9, 30)], ids=["narrow", "wide"])
def test_pca_is_the_best_linear_plane(shape):
    it, x = (
        script("vae_variants"),
        np.random.RandomState(0).randn(*shape) * np.arange(1, shape[1] + 1),
    )
    # what three components leave (Eckart & Young)
    rest = np.linalg.svd(x - x.mean(0), compute_uv=False)[3:]
    assert np.isclose(it.pca(x, x, 3), np.sum(rest**2) / x.size)


@pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda p: p.stem)
def test_every_experiment_has_committed_evidence(path):
    results = ROOT / "experiments" / "results" / path.stem
    kept = {"rows.csv", "table.md", "environment.json"}
    kept |= {"figure.png", "figure.pdf", "figure.csv"}
    assert kept <= {p.name for p in results.iterdir()} <= kept | {"trials.json"}


def test_every_experiment_trains_valid_configs():
    """Those with a sweep as trials; others by what they call config_of with."""
    from aigc_jax.sweeps import experiment
    from aigc_jax.sweeps.trials import make_trials
    from aigc_jax.training import config as configs

    arguments = dict(
        mode_collapse=lambda it: [
            (data, remedy) for data in it.DATA_SETS for remedy in it.REMEDIES
        ],
        vae_variants=lambda it: [(name,) for name in it.VARIANTS],
        iwae_against_elbo=lambda it: [(bound, 0) for bound in it.BEST],
        shakespeare=lambda it: [(network, 0) for network in ("transformer", *it.RECURRENT)],
        finetune=lambda it: [("shakespeare", 500)],
        fashion_from_digits=lambda it: [(name, "runs/digits") for name in it.RUNS],
    )
    for path in sorted((ROOT / "experiments").glob("*.py")):
        found, it = experiment.load(path), script(path.stem)
        if found.sweep:
            base, overrides = (
                experiment.load_base_config(found),
                experiment.list_trial_overrides(found),
            )
            assert make_trials(base, overrides), path.stem
        assert hasattr(it, "config_of") == (path.stem in arguments), path.stem
        for given in arguments.get(path.stem, lambda it: [])(it):
            configs.validate_config(it.config_of(*given))
