"""A study: the folder of a search for parameters, and its trials as tables."""

import json
import shlex
import sqlite3
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from mmctr.config import as_pairs
from mmctr.data.wording import kind_of
from mmctr.errors import ConfigError, RunError

FACTS, TRIALS = "study.json", "trials.db"
# Lowest and highest value, and whether the scale is logarithmic.
RANGES = {
    "learning_rate": (5e-4, 1e-2, True),
    "embedding_l2": (1e-6, 1e-2, True),
    "dropout": (0.0, 0.5, False),
}
CHOICES = {
    "embedding_dim": [16, 32, 64],
    "heads": [1, 2, 4, 8],
    "hidden": ["[128, 64]", "[256, 128]", "[512, 256]"],  # as text: Optuna stores no lists
    "batch_size": [512, 1024, 2048],
}
SPACE = (*RANGES, *CHOICES)


@dataclass(frozen=True)
class Study:
    """A study, read from its folder. facts: what study.json says."""

    folder: Path
    facts: dict[str, Any]
    optuna: Any

    @classmethod
    def load(cls, folder: Path | str) -> "Study":
        """Read a study's folder; RunError if it is missing or damaged."""
        folder = Path(folder)
        try:
            facts = json.loads((folder / FACTS).read_text(encoding="utf-8"))
            if not (folder / TRIALS).is_file():
                raise FileNotFoundError(f"{TRIALS} is missing")
            return cls(folder, facts, open_trials(folder))
        except (OSError, ValueError, sqlite3.Error) as error:
            raise RunError(
                f"{folder} is not a readable study ({str(error).splitlines()[0]}): choose a folder "
                "that mmctr search has written."
            ) from error

    @property
    def free(self) -> list[str]:
        """The parameters that are searched."""
        return searched(self.facts["fixed"])

    @property
    def done(self) -> int:
        """How many trials ended: finished, pruned or diverged."""
        return len(_ended(self.optuna))

    @property
    def best(self) -> dict[str, Any]:
        """The parameters of the best valid AUC, without those that are fixed."""
        return as_parameters(self._best_trial.params)

    @property
    def best_number(self) -> int:
        """The number of the best trial, counted from 1 as in `trials`."""
        ended = [trial.number for trial in _ended(self.optuna)]
        return 1 + ended.index(self._best_trial.number)

    @property
    def best_auc(self) -> float:
        """The best valid AUC; RunError if no trial finished."""
        return self._best_trial.value

    @property
    def default_auc(self) -> float | None:
        """The valid AUC of the default parameters, the first trial; None if it did not finish."""
        trials = [trial for trial in self._finished if trial.user_attrs.get("defaults")]
        return trials[0].value if trials else None

    @property
    def words(self) -> str:
        """The answer in words: the best trial, beside the defaults."""
        data, default = self.facts["dataset"], self.default_auc
        kind = kind_of(data["simulated"])
        rows = self.facts["fixed"].get("rows")
        look = f" The trials learned from {rows:,} rows of train: a first look." if rows else ""
        beside = "" if default is None else f", {self.best_auc - default:+.4f} to the defaults"
        if self.best_number == 1 and default is not None:
            beside = ": the defaults"
        return (
            f"Of {self.done} trials on {data['name']} ({kind}) number {self.best_number} has the "
            f"highest valid AUC, {self.best_auc:.4f}{beside}. It was chosen on the rows that score "
            f"it, with one seed, which flatters it.{look}"
        )

    @property
    def pairs(self) -> str:
        """The best parameters and the fixed ones but for the seed, as options of a command."""
        values = {name: value for name, value in self.facts["fixed"].items() if name != "seed"}
        values |= self.best
        return " ".join(f"-p {shlex.quote(pair)}" for pair in as_pairs(values))

    @property
    def trials(self) -> pd.DataFrame:
        """A row a trial: trial, state, auc, best (of those finished so far), seconds, parameters.

        The auc of a trial that was pruned or diverged is its best until then, or NaN.
        """
        rows = [
            {
                "trial": number,
                "state": _state(trial),
                "auc": max(trial.intermediate_values.values(), default=float("nan")),
                "seconds": trial.duration.total_seconds(),
                **as_parameters(trial.params),
            }
            for number, trial in enumerate(_ended(self.optuna), start=1)
        ]
        names = ["trial", "state", "auc", "best", "seconds", *self.free]
        table = pd.DataFrame(rows, columns=names)
        finished = table["auc"].where(table["state"] == "finished")
        return table.assign(best=finished.cummax().ffill())

    @property
    def curves(self) -> pd.DataFrame:
        """Valid AUC of each trial at each validation: trial, state, validation, auc."""
        rows = [
            (number, _state(trial), validation, value)
            for number, trial in enumerate(_ended(self.optuna), start=1)
            for validation, value in trial.intermediate_values.items()
        ]
        return pd.DataFrame(rows, columns=["trial", "state", "validation", "auc"])

    @property
    def importances(self) -> pd.DataFrame:
        """How much of the finished trials' spread of AUC each parameter explains, in percent.

        Columns: parameter, share, low, high: mean and span of five fANOVA forests (Hutter et al.,
        2014). Empty with fewer than ten finished trials: it would be noise.
        """
        from optuna.importance import FanovaImportanceEvaluator, get_param_importances

        if len(self._finished) < 10 or len({trial.value for trial in self._finished}) == 1:
            return pd.DataFrame(columns=["parameter", "share", "low", "high"])
        forests = [FanovaImportanceEvaluator(seed=seed) for seed in range(5)]
        shares = 100 * pd.DataFrame(
            [get_param_importances(self.optuna, evaluator=forest) for forest in forests]
        )
        table = shares.agg(["mean", "min", "max"]).T.reset_index()
        table.columns = ["parameter", "share", "low", "high"]
        return table.sort_values("share", ascending=False, ignore_index=True)

    @property
    def _finished(self) -> list[Any]:
        return [trial for trial in _ended(self.optuna) if _state(trial) == "finished"]

    @property
    def _best_trial(self) -> Any:
        if not self._finished:
            raise RunError(f"{self.folder} has no finished trial yet: run mmctr search again.")
        return max(self._finished, key=lambda trial: trial.value)


def find_studies(runs: Path, fingerprint: str | None = None) -> list[Path]:
    """The studies below `runs`, the latest last; of one dataset if its fingerprint is given."""
    found = []
    for path in runs.glob(f"*/{FACTS}"):
        with suppress(OSError, ValueError, KeyError, TypeError):  # no study, or a damaged one
            about = json.loads(path.read_text(encoding="utf-8"))["dataset"]["fingerprint"]
            if fingerprint in (None, about) and (path.parent / TRIALS).is_file():
                found.append(path.parent)
    return sorted(found, key=lambda folder: (folder / TRIALS).stat().st_mtime)


def open_trials(folder: Path) -> Any:
    """The folder's Optuna study, made if there is none."""
    optuna = import_optuna()
    path = folder / TRIALS
    # The connection is made here because a URL cannot hold every path.
    connect = {"creator": lambda: sqlite3.connect(path, timeout=60, check_same_thread=False)}
    try:
        storage = optuna.storages.RDBStorage(f"sqlite:///{TRIALS}", engine_kwargs=connect)
        return optuna.create_study(
            study_name="mmctr", storage=storage, direction="maximize", load_if_exists=True
        )
    except Exception as error:  # of Optuna, SQLAlchemy or SQLite
        raise RunError(
            f"{path} cannot be used ({str(error).splitlines()[0]}): choose another folder with "
            "--out, or delete this one."
        ) from error


def searched(fixed: dict[str, Any]) -> list[str]:
    return [name for name in SPACE if name not in fixed]


def as_parameters(params: dict[str, Any]) -> dict[str, Any]:
    """What Optuna stores as parameters of the model: three digits are enough to be typed again."""
    return {
        name: float(f"{params[name]:.3g}") if name in RANGES else json.loads(str(params[name]))
        for name in SPACE
        if name in params
    }


def _ended(study: Any) -> list[Any]:
    from optuna.trial import TrialState

    return study.get_trials(deepcopy=False, states=[TrialState.COMPLETE, TrialState.PRUNED])


def _state(trial: Any) -> str:
    if trial.user_attrs.get("diverged"):
        return "diverged"
    return "pruned" if trial.state.name == "PRUNED" else "finished"


def import_optuna() -> Any:
    try:
        import optuna
    except ImportError:
        raise ConfigError(
            "mmctr search needs Optuna, which is not installed: run python -m pip install "
            "'optuna>=4' in the environment of mmctr."
        ) from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna
