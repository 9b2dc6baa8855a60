"""Adaptive search: optuna is asked for a batch of trials, which become a part of the
sweep, and is told what became of them.

SWEEP/study.journal    optuna's journal: each trial's parameters, its overrides, and the
                       value or the failure that was told
SWEEP/search/          its lock alone: a second search is refused, while sweeps' own
                       files are open to it

A search that is killed at any moment goes on to the trials and the values of one that
was not. Trials are in the journal before they are trained, a batch is asked for as a
whole before any of it is told, and each is drawn with a random state of the
experiment's name, config.seed and its own number, from nothing but what the journal
says. What a trial is told is read from its directory, so nothing is trained twice.
"""

import contextlib
import hashlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from aigc_jax.core import config as configs
from aigc_jax.sweeps.experiment import Search
from aigc_jax.sweeps.sweep import Group, Sweep
from aigc_jax.sweeps.trials import FINAL, Trial, trials_of
from aigc_jax.training.run_dir import RunDir
from aigc_jax.utils.disk import disk_errors
from aigc_jax.utils.errors import UserError, argument, nearest, require
from aigc_jax.utils.locks import hold
from aigc_jax.utils.terminal import print_text

JOURNAL, LOCKED = "study.journal", "search"
DIRECTION = dict(min="minimize", max="maximize")


def library() -> Any:
    """optuna, which is no part of the core libraries."""
    try:
        import optuna
    except ImportError:
        raise UserError(
            "an experiment with search(suggest) needs the package optuna: pip install optuna"
        ) from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


class Suggest:
    """What search(suggest) calls: a value for a name, which is a config's key or any
    other, from what the trials before it have shown.
    """

    def __init__(self, trial: Any) -> None:
        self.trial = trial
        self.rounded: dict[str, float] = {}

    def float(self, name, low, high, log=False):
        """A number between two, of six digits as in `grid`; log: even in its log."""
        require(
            low < high and (low > 0 or not log),
            f"suggest.float({name!r}, {low}, {high}) needs {'0 < ' if log else ''}low < high",
        )
        with _named(f"suggest.float({name!r}, ...)"):
            drawn = self.trial.suggest_float(name, low, high, log=log)
        self.rounded[name] = float(min(max(float(f"{drawn:.6g}"), low), high))
        return self.rounded[name]

    def int(self, name, low, high, log=False):
        """A whole number, low and high among them."""
        require(
            low < high and (low > 0 or not log),
            f"suggest.int({name!r}, {low}, {high}) needs {'0 < ' if log else ''}low < high",
        )
        with _named(f"suggest.int({name!r}, ...)"):
            return self.trial.suggest_int(name, low, high, log=log)

    def choice(self, name: str, *options: Any) -> Any:
        """One of the options: choice("optimizer", "adam", "sgd")."""
        require(options, f"suggest.choice({name!r}) has no option")
        # A journal cannot hold tuples: they are drawn by their text.
        kept = [o if isinstance(o, (bool, int, float, str)) else str(o) for o in options]
        with _named(f"suggest.choice({name!r}, ...)"):
            return options[kept.index(self.trial.suggest_categorical(name, kept))]


@contextlib.contextmanager
def _named(call):
    """What optuna refuses, such as options that are no longer those of the trials
    before, as a sentence.
    """
    try:
        yield
    except ValueError as e:
        raise UserError(f"{call}: {e}") from None


class Study:
    """The trials that were asked for, in their order, and what was told of them."""

    def __init__(self, base: ConfigDict, search: Search, journal: Path | None = None) -> None:
        """Goes on with a journal, or begins one; None: a study that is not kept."""
        self.optuna, self.search = library(), search
        # The best checkpoint of a trial is that of the value it is told with, and a
        # group refuses an objective that it does not measure.
        self.base = configs.override(base, dict(best=search.objective, best_mode=search.mode))
        self.study = self._study(
            storage=self._storage(journal), study_name="search", load_if_exists=True
        )
        asked = dict(
            OBJECTIVE=search.objective,
            MODE=search.mode,
            BATCH=search.batch,
            config=configs.hash_of(self.base),
        )
        stored = self.study.user_attrs.get("asked")
        if stored is None:
            self.study.set_user_attr("asked", asked)
        for key, value in (stored or asked).items():
            require(
                value == asked[key],
                f"{journal} is of a search with {key} = {value!r}, not {asked[key]!r}: take "
                f"another {argument('workdir')}",
            )
        self.trials = [
            self._trial(t.user_attrs["overrides"]) for t in self.study.get_trials(deepcopy=False)
        ]

    def _study(self, **more):
        return self.optuna.create_study(direction=DIRECTION[self.search.mode], **more)

    def _storage(self, journal):
        if journal is None:
            return None
        from optuna.storages import JournalStorage
        from optuna.storages.journal import JournalFileBackend

        # No other process uses it: a torn last line and a lock are a killed one's.
        if journal.exists():
            text = journal.read_bytes()
            if not text.endswith(b"\n"):
                with open(journal, "r+b") as f:
                    f.truncate(text.rfind(b"\n") + 1)
            journal.with_name(journal.name + ".lock").unlink(missing_ok=True)
        try:
            return JournalStorage(JournalFileBackend(str(journal)))
        except ValueError as e:
            raise UserError(f"{journal} cannot be read: {e}") from None

    def _trial(self, overrides) -> Trial:
        """The same whether the overrides are as given or out of the journal, which
        makes lists of tuples.
        """
        return trials_of(self.base, [trials_of(self.base, [overrides])[0].overrides])[0]

    def ask(self) -> None:
        """One more trial, from what is told so far; what is under way counts as bad, so
        that a batch is spread out.
        """
        states = self.optuna.trial.TrialState
        text = f"{self.search.name}/{self.base.seed}/{len(self.trials)}"
        seed = int(hashlib.sha256(text.encode()).hexdigest()[:8], 16)
        drawing = self._study(
            sampler=self.optuna.samplers.TPESampler(seed=seed, constant_liar=True)
        )
        before = self.study.get_trials()
        for trial in before:
            # A sampler ignores failed trials; pruned ones it takes for the worst.
            if trial.state == states.FAIL:
                trial.state = states.PRUNED
            drawing.add_trial(trial)
        suggest = Suggest(drawing.ask())
        trial = self._trial(self.search.function(suggest))
        self._compatible(suggest.trial.distributions, before)
        self.study.add_trial(
            self.optuna.trial.create_trial(
                state=states.RUNNING,
                user_attrs=dict(overrides=trial.overrides),
                params=suggest.trial.params | suggest.rounded,
                distributions=suggest.trial.distributions,
            )
        )
        self.trials.append(trial)

    def _compatible(self, distributions, before):
        """Ranges may change while a search goes on, options may not."""
        for name, new in distributions.items():
            for old in {
                trial.distributions[name] for trial in before if name in trial.distributions
            }:
                try:
                    self.optuna.distributions.check_distribution_compatibility(old, new)
                except ValueError:
                    raise UserError(
                        f"search(suggest) draws {name!r} from {new}, before it was {old}: "
                        f"take another {argument('workdir')}"
                    ) from None

    def untold(self) -> list[int]:
        """Return the numbers of the trials whose value the study was not told."""
        return [
            t.number for t in self.study.get_trials(deepcopy=False) if not t.state.is_finished()
        ]

    def batch(self) -> range:
        """The numbers of the batch that is under way, complete, or of the next; empty
        when all trials are told.
        """
        size, count, untold = self.search.batch, len(self.trials), self.untold()
        end = count + size - count % size if count % size or not untold else count
        while len(self.trials) < min(end, self.search.trials):
            self.ask()
        untold = self.untold()
        return range(untold[0] // size * size, len(self.trials)) if untold else range(0)

    def first(self, number: int) -> int:
        """The first trial that equals this one, which is the one that is trained."""
        wanted = configs.hash_of(self.trials[number].config)
        return next(i for i, t in enumerate(self.trials) if configs.hash_of(t.config) == wanted)

    def tell(self, number: int, value: float | None) -> None:
        """A value, or None of a trial that failed."""
        if value is None:
            self.study.tell(number, state=self.optuna.trial.TrialState.FAIL)
        else:
            self.study.tell(number, value)

    def line(self) -> str:
        """How it stands."""
        states = self.optuna.trial.TrialState
        trials = self.study.get_trials(deepcopy=False)
        counts = {s: sum(t.state == s for t in trials) for s in (states.COMPLETE, states.FAIL)}
        text = (
            f"search: {sum(counts.values())} of {max(self.search.trials, len(trials))} trials, "
            f"{counts[states.FAIL]} failed"
        )
        if not counts[states.COMPLETE]:
            return text
        best = self.study.best_trial
        return (
            f"{text}; best {self.search.objective} {best.value:.6g}: "
            f"{self.trials[self.first(best.number)].id}"
        )


class Part(Sweep):
    """A sweep of which only the groups of certain trials are looked at: those before
    are told, whatever became of them.
    """

    def __init__(self, path: str | Path, names: Iterable[str]) -> None:
        super().__init__(path)
        self.names = set(names)

    def all_groups(self) -> list[Group]:
        """Return the groups that hold one of the trials."""
        return [g for g in super().all_groups() if self.names.intersection(g.members)]


def outcome(run: RunDir, search: Search) -> float | None:
    """The best value of the objective in a trial's rows, but for the untrained model's;
    None where it failed.
    """
    if run.read_status().get("status", "").startswith("failed"):
        return None
    split, _, name = search.objective.partition("/")
    rows = [row for row in run.rows() if row["split"] == split and row["step"]]
    known = dict.fromkeys(
        f"{split}/{key}" for row in rows for key in row if key not in ("step", "split")
    )
    require(
        search.objective in known,
        f"OBJECTIVE = {search.objective!r} is in no row; there are "
        f"{', '.join(known) or 'none'}{nearest(search.objective, known)}",
    )
    values = [row[name] for row in rows if row.get(name) is not None]
    return dict(min=min, max=max)[search.mode](values) if values else None


def first_batch(base: ConfigDict, search: Search) -> list[Trial]:
    """What a new search begins with; nothing is written."""
    study = Study(base, search)
    return [study.trials[n] for n in study.batch() if study.first(n) == n]


def carry_out(
    sweep: Sweep,
    base: ConfigDict,
    search: Search,
    source: str,
    run: Callable[[Sweep], object],
    extra: dict | None = None,
    report: Callable[[str], None] = print_text,
) -> bool:
    """Ask, train and tell until all trials are told; False where training was stopped
    before that.

    run       (sweep) -> trains what is not finished of it: `sweeps.launch.carry_out`
              with its engine
    extra     as in Sweep.add

    A trial whose group crashed is told as failed, unless all of its batch crashed: then
    it is likelier that data or a device are missing.
    """
    library()
    journal = sweep.path / JOURNAL
    require(
        journal.exists() or not (sweep.path / "sweep.json").exists(),
        f"{sweep.path} is a sweep and no search: take another {argument('workdir')}",
    )
    with disk_errors(sweep.path), hold(sweep.path / LOCKED) as mine:
        require(mine, f"another process is searching in {sweep.path}")
        study = Study(base, search, journal)
        if study.trials:
            report(study.line())
        while numbers := study.batch():
            if not _train(sweep, study, numbers, source, run, extra):
                return False
            for number in sorted(set(numbers).intersection(study.untold())):
                study.tell(
                    number, outcome(sweep.trial(study.trials[study.first(number)].id), search)
                )
            report(study.line())
    return True


def _train(sweep, study, numbers, source, run, extra) -> bool:
    """Have a batch trained; False where it is not finished."""
    own = {n: study.trials[n] for n in numbers if study.first(n) == n}
    open_ = [trial.id for n, trial in own.items() if n in study.untold()]
    if not open_:
        return True
    sweep.add(list(own.values()), source, extra)
    run(Part(sweep.path, open_))
    found = [
        sweep.trial(trial.id).read_status() or dict(status="waiting") for trial in own.values()
    ]
    crashed = [status for status in found if status["status"] == "failed: crashed"]
    require(
        len(crashed) < len(found),
        "all trials of a batch crashed with OBJECTIVE = "
        f"{study.search.objective!r}: {crashed[0].get('reason') if crashed else ''}; the "
        "same command tries them again",
    )
    return all(status["status"] in (*FINAL, "failed: crashed") for status in found)
