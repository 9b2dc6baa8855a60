"""Adaptive search: optuna suggests a batch of trials, which is added to the sweep and
trained, and then receives their objective values.

SWEEP/study.journal    optuna's journal: the parameters and overrides of each trial, and
                       its reported value or failure
SWEEP/search/          the lock that refuses a second search, beside the sweep's own

A search that is killed at any time resumes and has the same trials and values as an
uninterrupted search. Trials are journaled before they are trained; a batch is suggested
completely before any of its values is reported; each trial is sampled with a seed of
the experiment's name, config.seed and the trial's number, from the journal alone. The
reported values are read from the trials' directories, so that nothing is trained twice.
"""

import contextlib
import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from aigc_jax.sweeps.experiment import Search
from aigc_jax.sweeps.sweep import Group, Sweep
from aigc_jax.sweeps.trials import FINAL, Trial, make_trials
from aigc_jax.training import config as configs
from aigc_jax.training.config_identity import hash_identity
from aigc_jax.training.run_dir import RunDir
from aigc_jax.utils.disk import convert_disk_errors
from aigc_jax.utils.errors import UserError, format_suggestion, mark_argument, require
from aigc_jax.utils.locks import try_lock
from aigc_jax.utils.quantities import format_number
from aigc_jax.utils.terminal import print_text

Float = float  # which a method of Suggest hides, as int
Int = int
JOURNAL, LOCKED = "study.journal", "search"
DIRECTION = dict(min="minimize", max="maximize")


def import_optuna() -> Any:  # the module
    """Import optuna, an optional dependency, and return the module."""
    try:
        import optuna
    except ImportError:
        raise UserError(
            "search(suggest) needs the package optuna: pip install optuna (extra engines)"
        ) from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


class Suggest:
    """The argument of search(suggest). Each method suggests a value for a name, which
    is a config key or any other name, based on the results of earlier trials.
    """

    def __init__(self, trial: Any) -> None:
        self.trial = trial
        self.rounded: dict[str, float] = {}

    def float(self, name: str, low: Float, high: Float, log: bool = False) -> Float:
        """Suggest a float in [low, high], rounded to 6 significant digits as in `grid`.

        Args:
          name: a config key or any other name; it identifies the value in all trials.
          low, high: the bounds, both inclusive.
          log: sample uniformly in the log domain; low must be positive.

        Raises:
          UserError: the bounds are wrong.
        """
        require(
            low < high and (low > 0 or not log),
            f"suggest.float({name!r}, {low}, {high}) needs {'0 < ' if log else ''}low < high",
        )
        with _as_user_errors(f"suggest.float({name!r}, ...)"):
            drawn = self.trial.suggest_float(name, low, high, log=log)
        self.rounded[name] = float(min(max(float(f"{drawn:.6g}"), low), high))
        return self.rounded[name]

    def int(self, name: str, low: Int, high: Int, log: bool = False) -> Int:
        """Suggest an integer in [low, high], inclusive. Arguments as for `float`."""
        require(
            low < high and (low > 0 or not log),
            f"suggest.int({name!r}, {low}, {high}) needs {'0 < ' if log else ''}low < high",
        )
        with _as_user_errors(f"suggest.int({name!r}, ...)"):
            return self.trial.suggest_int(name, low, high, log=log)

    def choice(self, name: str, *options: Any) -> Any:
        """Suggest one of the options: choice("optimizer", "adam", "sgd"). Every trial
        of a search must have the same options of a name.
        """
        require(options, f"suggest.choice({name!r}) has no option")
        # A journal cannot store tuples: they are represented by their text.
        texts = [o if isinstance(o, (bool, int, float, str)) else str(o) for o in options]
        with _as_user_errors(f"suggest.choice({name!r}, ...)"):
            return options[texts.index(self.trial.suggest_categorical(name, texts))]


@contextlib.contextmanager
def _as_user_errors(call_text: str) -> Iterator[None]:
    """Convert optuna's ValueErrors, such as for options that differ from those of
    earlier trials, to UserErrors.
    """
    try:
        yield
    except ValueError as e:
        raise UserError(f"{call_text}: {e}") from None


class Study:
    """An optuna study: the suggested trials, in order, and their reported values.

    Args:
      base: the config of all trials.
      search: the search of an experiment.
      journal: the file of the study, resumed if it exists; None: a study in memory.

    Raises:
      UserError: the package optuna is missing, or the journal cannot be read or belongs
        to another search.
    """

    def __init__(self, base: ConfigDict, search: Search, journal: Path | None = None) -> None:
        """Resume the study of a journal, or create it."""
        self.optuna, self.search = import_optuna(), search
        # The best checkpoint of a trial is then that of its reported value, and a
        # group refuses an objective that it does not measure.
        self.base = configs.override(
            base, dict(best_metric=search.objective, best_mode=search.mode)
        )
        self.study = self._create_study(
            storage=self._storage(journal), study_name="search", load_if_exists=True
        )
        settings = dict(
            objective=search.objective,
            mode=search.mode,
            batch=search.batch,
            config=hash_identity(self.base),
        )
        stored = self.study.user_attrs.get("asked")
        if stored is None:
            self.study.set_user_attr("asked", settings)
        for key, value in (stored or settings).items():
            require(
                value == settings[key],
                f"{journal} belongs to a search with {key} = {value!r}, not {settings[key]!r}: "
                f"use another {mark_argument('workdir')}",
            )
        self.trials = [
            self._make_trial(t.user_attrs["overrides"])
            for t in self.study.get_trials(deepcopy=False)
        ]

    def _create_study(self, **options: Any) -> Any:  # optuna's Study
        """Return a new study in the direction of the search; `options` are optuna's
        keywords.
        """
        return self.optuna.create_study(direction=DIRECTION[self.search.mode], **options)

    def _storage(self, journal: Path | None) -> Any:
        """Return the storage of a journal, repaired after a killed process; None in
        memory.
        """
        if journal is None:
            return None
        from optuna.storages import JournalStorage
        from optuna.storages.journal import JournalFileBackend

        # Only this process uses the journal, so a truncated last line and a lock file
        # were left by a killed process.
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

    def _make_trial(self, overrides: dict) -> Trial:
        """Return the trial of overrides; equal for new overrides and for those read
        from the journal, which stores tuples as lists.
        """
        return make_trials(self.base, [make_trials(self.base, [overrides])[0].overrides])[0]

    def add_suggested_trial(self) -> None:
        """Add a trial, suggested from the values reported so far. Running trials count
        as bad (constant liar), so that the trials of a batch are spread out.
        """
        states = self.optuna.trial.TrialState
        text = f"{self.search.name}/{self.base.seed}/{len(self.trials)}"
        seed = int(hashlib.sha256(text.encode()).hexdigest()[:8], 16)
        drawing = self._create_study(
            sampler=self.optuna.samplers.TPESampler(seed=seed, constant_liar=True)
        )
        before = self.study.get_trials()
        for trial in before:
            # A sampler ignores failed trials, but counts pruned trials as the worst.
            if trial.state == states.FAIL:
                trial.state = states.PRUNED
            drawing.add_trial(trial)
        suggest = Suggest(drawing.ask())
        trial = self._make_trial(self.search.draw(suggest))
        self._check_compatible(suggest.trial.distributions, before)
        self.study.add_trial(
            self.optuna.trial.create_trial(
                state=states.RUNNING,
                user_attrs=dict(overrides=trial.overrides),
                params=suggest.trial.params | suggest.rounded,
                distributions=suggest.trial.distributions,
            )
        )
        self.trials.append(trial)

    def _check_compatible(self, distributions: dict[str, Any], before: list) -> None:
        """Raise a UserError if the options of a suggestion changed during a search;
        ranges may change.
        """
        for name, new in distributions.items():
            for old in {
                trial.distributions[name] for trial in before if name in trial.distributions
            }:
                try:
                    self.optuna.distributions.check_distribution_compatibility(old, new)
                except ValueError:
                    raise UserError(
                        f"search(suggest) draws {name!r} from {new} instead of {old}: "
                        f"use another {mark_argument('workdir')}"
                    ) from None

    def unreported_trials(self) -> list[int]:  # their numbers
        """Return the numbers of the trials without a reported value or failure."""
        return [
            t.number for t in self.study.get_trials(deepcopy=False) if not t.state.is_finished()
        ]

    def fill_batch(self) -> range:  # trial numbers; empty: all are reported
        """Return the trial numbers of the current batch, completed if necessary, or of
        the next batch, from 0 on; an empty range if all trials have been reported.
        """
        size, count, unreported = self.search.batch, len(self.trials), self.unreported_trials()
        end = count + size - count % size if count % size or not unreported else count
        while len(self.trials) < min(end, self.search.trials):
            self.add_suggested_trial()
        unreported = self.unreported_trials()
        return range(unreported[0] // size * size, len(self.trials)) if unreported else range(0)

    def first_equal_trial(self, trial_number: int) -> int:  # its number
        """Return the number of the first trial with the same config: only this trial is
        trained.
        """
        target = hash_identity(self.trials[trial_number].config)
        return next(i for i, t in enumerate(self.trials) if hash_identity(t.config) == target)

    def report_value(self, trial_number: int, value: float | None) -> None:  # None: failed
        """Report the value of a trial to the study; None: the trial failed."""
        if value is None:
            self.study.tell(trial_number, state=self.optuna.trial.TrialState.FAIL)
        else:
            self.study.tell(trial_number, value)

    def format_line(self) -> str:
        """Return the status of the search: trials reported and failed, best value."""
        states = self.optuna.trial.TrialState
        trials = self.study.get_trials(deepcopy=False)
        counts = {s: sum(t.state == s for t in trials) for s in (states.COMPLETE, states.FAIL)}
        text = (
            f"search: {sum(counts.values()):,} of {max(self.search.trials, len(trials)):,} trials, "
            f"{counts[states.FAIL]:,} failed"
        )
        if not counts[states.COMPLETE]:
            return text
        best = self.study.best_trial
        name = self.trials[self.first_equal_trial(best.number)].id
        return f"{text}; best {self.search.objective} {format_number(best.value)}: {name}"


class PartialSweep(Sweep):
    """A sweep restricted to the groups of certain trials: earlier trials have been
    reported, whatever their status.
    """

    def __init__(self, path: str | Path, trial_ids: Iterable[str]) -> None:
        super().__init__(path)
        self.names = set(trial_ids)

    def groups_by_name(self) -> list[Group]:  # that contain any of its trials
        """Return the groups that contain any of the trials."""
        return [g for g in super().groups_by_name() if self.names.intersection(g.members)]


def read_best_objective(run: RunDir, search: Search) -> float | None:  # None: failed
    """Return the best value of the objective in a trial's rows, except that of the
    untrained model; None if the trial failed or no value is finite. Raise a UserError
    if no row has the objective.
    """
    if run.read_status().get("status", "").startswith("failed"):
        return None
    split, _, name = search.objective.partition("/")
    rows = [row for row in run.read_rows() if row["split"] == split and row["step"]]
    known = dict.fromkeys(
        f"{split}/{key}" for row in rows for key in row if key not in ("step", "split")
    )
    require(
        search.objective in known,
        f"objective = {search.objective!r} is not in any row; available: "
        f"{', '.join(known) or 'none'}{format_suggestion(search.objective, known)}",
    )
    values = [row[name] for row in rows if row.get(name) is not None]
    return dict(min=min, max=max)[search.mode](values) if values else None


def suggest_first_batch(base: ConfigDict, search: Search) -> list[Trial]:  # without equals
    """Return the first batch of a new search, without writing anything."""
    study = Study(base, search)
    return [study.trials[n] for n in study.fill_batch() if study.first_equal_trial(n) == n]


def run_search(
    sweep: Sweep,
    base: ConfigDict,
    search: Search,
    source: str,
    train: Callable[[Sweep], object],
    group_entries: dict | None = None,
    report: Callable[[str], None] = print_text,
) -> bool:  # False: stopped before all trials were reported
    """Suggest, train and report batches until all trials are reported.

    A trial whose group crashed is reported as failed, unless its entire batch crashed:
    then missing data or a missing device are the likelier cause, and a UserError is
    raised.

    Args:
      sweep: the sweep to which the trials are added.
      base: the config of all trials.
      search: the search of an experiment.
      source: the file of the experiment.
      train: (sweep) -> trains its unfinished trials:
        `sweeps.launch.run_unfinished_groups` with an engine.
      group_entries: as in Sweep.add_trials.
      report: called with the status of the search after each batch.

    Returns:
      False if training was stopped before all trials were reported, else True.
    """
    import_optuna()
    journal = sweep.path / JOURNAL
    require(
        journal.exists() or not (sweep.path / "sweep.json").exists(),
        f"{sweep.path} is a sweep, not a search: use another {mark_argument('workdir')}",
    )
    with convert_disk_errors(sweep.path), try_lock(sweep.path / LOCKED) as mine:
        require(mine, f"another process is searching in {sweep.path}")
        study = Study(base, search, journal)
        if study.trials:
            report(study.format_line())
        while numbers := study.fill_batch():
            if not _train(sweep, study, numbers, source, train, group_entries):
                return False
            for number in sorted(set(numbers).intersection(study.unreported_trials())):
                run = sweep.trial_dir(study.trials[study.first_equal_trial(number)].id)
                study.report_value(number, read_best_objective(run, search))
            report(study.format_line())
    return True


def _train(
    sweep: Sweep,
    study: "Study",
    numbers: Sequence[int],
    source: str,
    train: Callable,
    group_entries: dict | None,
) -> bool:
    """Train a batch; return whether all its trials are finished."""
    own = {n: study.trials[n] for n in numbers if study.first_equal_trial(n) == n}
    open_ = [trial.id for n, trial in own.items() if n in study.unreported_trials()]
    if not open_:
        return True
    sweep.add_trials(list(own.values()), source, group_entries)
    train(PartialSweep(sweep.path, open_))
    statuses = [
        sweep.trial_dir(trial.id).read_status() or dict(status="waiting") for trial in own.values()
    ]
    crashed = [status for status in statuses if status["status"] == "failed: crashed"]
    require(
        len(crashed) < len(statuses),
        "all trials of a batch crashed with objective = "
        f"{study.search.objective!r}: {crashed[0].get('reason') if crashed else ''}; the "
        "same command tries them again",
    )
    return all(status["status"] in (*FINAL, "failed: crashed") for status in statuses)
