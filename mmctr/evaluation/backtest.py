"""Train and test on one window of time after another: from scratch, and from the last model.

A backtest is a folder: backtest.json says what is tested, window-1.json and so on what each window
gave, as soon as it is finished. A killed backtest goes on with the window that it was in; until all
are finished, the weights that the next one starts from are kept beside them.
"""

import json
import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from tqdm.auto import tqdm

from mmctr.content.fusion import item_embeddings
from mmctr.data.dataset import Dataset
from mmctr.devices import find_device
from mmctr.errors import ConfigError, RunError, first_line
from mmctr.evaluation.new_items import newness
from mmctr.evaluation.windows import Window, windows
from mmctr.files import alone, atomic_path, write_json
from mmctr.model.din import DIN
from mmctr.runs.provenance import describe, provenance
from mmctr.training.config import configs
from mmctr.training.metrics import auc, bootstrap_auc, interval
from mmctr.training.prediction import predict
from mmctr.training.trainer import fit

FACTS = "backtest.json"
COLD, WARM, STALE, POPULARITY = "cold start", "warm start", "not retrained", "popularity"
OF_ITEMS = ("embedding.id.weight", "embedding.content")  # weights that have a row an item
Weights = dict[str, Tensor]


@dataclass(frozen=True)
class Backtest:
    """A backtest, read from its folder. facts: what backtest.json says; windows: those finished."""

    folder: Path
    facts: dict[str, Any]
    windows: list[dict[str, Any]]

    @classmethod
    def load(cls, folder: Path | str) -> "Backtest":
        """Read a backtest's folder; RunError if it is missing or damaged."""
        folder = Path(folder)
        try:
            facts = json.loads((folder / FACTS).read_text(encoding="utf-8"))
            paths = [_result(folder, number + 1) for number in range(facts["windows"])]
            found = [json.loads(p.read_text(encoding="utf-8")) for p in paths if p.exists()]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise RunError(
                f"{folder} is not a readable backtest ({first_line(error)}): choose a folder that "
                "mmctr backtest has written."
            ) from error
        return cls(folder, facts, found)

    @property
    def auc(self) -> pd.DataFrame:
        """AUC of each window, group of targets and system, with intervals.

        Columns: window, time (of its first row), group, rows, clicks, system, auc, low, high;
        difference (to the cold start, on the same users), difference_low, difference_high.
        """
        return self._table("auc")

    @property
    def training(self) -> pd.DataFrame:
        """What each training took. Columns: window, time, start, rows, epochs, samples, seconds."""
        return self._table("training")

    @property
    def summary(self) -> pd.DataFrame:
        """A row a window: its begin, the rows tested on, AUC of each system, training seconds."""
        every = self.auc.query("group == 'all'")
        systems = list(every["system"].unique())
        wide = every.pivot(index=["window", "time", "rows"], columns="system", values="auc")
        seconds = self.training.pivot(index="window", columns="start", values="seconds")
        seconds = seconds[[COLD, WARM]].add_suffix(" (s)")
        table = wide[systems].reset_index().merge(seconds, on="window")
        form = "%Y-%m-%d" if table["time"].dt.date.is_unique else "%Y-%m-%d %H:%M:%S"
        return table.assign(time=table["time"].dt.strftime(form)).rename(columns={"time": "begins"})

    @property
    def verdict(self) -> str:
        """The answer in words: what a warm start costs and saves, and how a model grows old."""
        if len(self.windows) < 2:
            return "One window has no model before it to start from: test more windows."
        later = self.training.query("window > 1").groupby("start")["seconds"].mean()
        last = self.auc.query("group == 'all' and system == @STALE").iloc[-1]
        within = self.auc.query("window > 1 and system == @WARM and group != 'all'")
        within = within.groupby("group", sort=False)["difference"].mean().dropna()
        groups = ", ".join(f"{value:+.4f} ({group})" for group, value in within.items())
        return (
            f"Against a cold start, a warm start changes the AUC by {self.change(WARM)} and takes "
            f"{later[WARM] / later[COLD]:.0%} of the time ({later[WARM]:,.1f} s for a window "
            f"instead of {later[COLD]:,.1f} s). Within targets of like popularity that is "
            f"{groups or 'unknown'}. Without retraining the AUC changes by {self.change(STALE)}, "
            f"in the last window by {last['difference']:+.4f}."
        )

    def change(self, system: str, group: str = "all") -> str:
        """A system's AUC minus the cold start's, mean over the windows after the first, in words.

        The interval takes the users of one window to be others than those of another.
        """
        rows = self.auc.query("window > 1 and group == @group and system == @system").dropna()
        if rows.empty:
            return "unknown"
        mean = rows["difference"].mean()
        widths = rows["difference_high"] - rows["difference_low"]
        half = np.sqrt((widths**2).sum()) / 2 / len(rows)
        chance = ", which could be chance" if abs(mean) <= half else ""
        return f"{mean:+.4f} (95% interval {mean - half:+.4f} to {mean + half:+.4f}{chance})"

    def _table(self, name: str) -> pd.DataFrame:
        rows = [
            {"window": window["window"], "time": window["from"], **row}
            for window in self.windows
            for row in window[name]
        ]
        table = pd.DataFrame(rows).assign(time=lambda t: pd.to_datetime(t["time"]))
        # JSON has no NaN: a column of numbers may hold None.
        numbers = [c for c in table if c not in ("time", "group", "system", "start")]
        missing = [c for c in numbers if table[c].dtype == object]
        return table.astype(dict.fromkeys(missing, float))


def backtest(
    dataset: Dataset, strategy: str, folder: Path, *, count: int, fixed: dict[str, Any]
) -> Backtest:
    """Go on with the backtest in `folder`, or begin it, until `count` windows are finished.

    fixed: parameters of model and training, the seed among them. Each window is tested with a model
    that was trained from scratch on all rows before it (cold start), one that goes on from the last
    window's with the newest rows alone (warm start), and the first window's (not retrained). Raises
    DataError for rows without times, ConfigError for parameters that cannot be used, RunError if
    the folder is another backtest's or damaged.
    """
    if configs(**fixed)[1].rows is not None:
        raise ConfigError(
            f"Found rows={fixed['rows']}, expected none: windows cut the rows by time, leave it "
            "out and choose fewer windows for a first look."
        )
    planned = windows(dataset, count)
    # One for all windows, so that weights keep their meaning: of the clicks before the first.
    embedding = item_embeddings(planned[0].datasets()[0], strategy)
    with alone(folder, "being tested by"):
        _begin(folder, {"strategy": strategy, "windows": count, "parameters": fixed}, dataset)
        for window in tqdm(planned, desc="backtest", unit=" windows"):
            if not _result(folder, window.number).exists():
                _test(window, planned, embedding, folder, fixed)
        for path in folder.glob("window-*.safetensors"):
            path.unlink()
    return Backtest.load(folder)


def backtest_folder(runs: Path, dataset: Dataset, strategy: str) -> Path:
    """Where the backtest of a dataset and strategy is kept unless another folder is named."""
    return runs / re.sub(r"[^\w.-]", "-", f"backtest-{dataset.name}-{strategy}")


def _begin(folder: Path, asked: dict[str, Any], dataset: Dataset) -> None:
    """Write what is tested, unless it is there; RunError if something else is."""
    asked = json.loads(json.dumps(asked, sort_keys=True))  # which knows no tuples
    if not (folder / FACTS).exists():
        write_json(folder / FACTS, asked | {"dataset": describe(dataset)} | provenance())
        return
    facts = Backtest.load(folder).facts
    there = facts | {"dataset": facts["dataset"]["fingerprint"]}
    for name, value in (asked | {"dataset": dataset.fingerprint}).items():
        if there[name] != value:
            raise RunError(
                f"{folder} is a backtest with {name} {there[name]}, not {value}: choose another "
                "folder with --out."
            )


def _test(
    window: Window,
    planned: list[Window],
    embedding: np.ndarray | None,
    folder: Path,
    fixed: dict[str, Any],
) -> None:
    """Train and test on a window, and keep what it gave."""
    model_config, config = configs(**fixed)
    device, (whole, newest) = find_device(config.device), window.datasets()
    rows, number = whole.split("test"), window.number

    def trained(data: Dataset, weights: Weights | None = None) -> tuple[DIN, dict[str, Any]]:
        # Seeded by itself, a training is the same whether or not the backtest was killed.
        torch.manual_seed(config.seed)
        model = DIN.for_dataset(model_config, data, embedding).to(device)
        if weights is not None:
            _start_from(model, weights, fresh=planned[number - 2].clicks == 0)
        torch.manual_seed(config.seed)
        started = time.perf_counter()
        progress = fit(model, data, config)
        return model, {
            "rows": len(data.train),
            "epochs": progress.samples / len(data.train),
            "samples": progress.samples,
            "seconds": round(time.perf_counter() - started, 3),
        }

    models, training = {}, {}
    models[COLD], training[COLD] = trained(whole)
    if number == 1:
        models[WARM], training[WARM] = models[COLD], training[COLD]
        models[STALE] = models[COLD]
    else:
        models[WARM], training[WARM] = trained(newest, _weights(folder, number - 1))
        # Its weights are old, and so is whom it knows; popularity is that of the day.
        models[STALE] = DIN.for_catalog(
            model_config, whole.catalog, embedding, whole.row_fields, planned[0].clicks
        ).to(device)
        models[STALE].load_state_dict(_weights(folder, 1), strict=False)
    scores = {name: predict(m, rows, precision=config.precision) for name, m in models.items()}
    clicks = window.clicks[rows.target]
    moments = pd.to_datetime(rows.time[[0, -1]]).strftime("%Y-%m-%dT%H:%M:%S").tolist()
    with atomic_path(_kept(folder, number)) as temporary:
        state = models[WARM].learned_state()
        save_file({name: value.cpu().contiguous() for name, value in state.items()}, temporary)
    result = {
        "window": number,
        "from": moments[0],
        "until": moments[1],
        "training": [{"start": name} | took for name, took in training.items()],
        "auc": measured(rows.user, rows.label, clicks, scores | {POPULARITY: clicks}),
    }
    write_json(_result(folder, number), result)
    if number > 2:
        _kept(folder, number - 1).unlink(missing_ok=True)


def measured(
    user: np.ndarray, label: np.ndarray, clicks: np.ndarray, scores: dict[str, np.ndarray]
) -> list[dict[str, Any]]:
    """AUC of each system within each group of rows, and what it is beside the first system's.

    clicks: train clicks of the target, int64 [n]. scores: float [n] by system. Intervals of 95% are
    of a bootstrap over users; NaN where a group lacks clicks or non-clicks. Keys as in
    Backtest.auc.
    """
    table = []
    of = newness(clicks)
    for group in ("all", *of.cat.categories):
        rows = np.flatnonzero((of == group) | (group == "all"))
        both = len(np.unique(label[rows])) == 2
        samples = np.full((1, len(scores)), np.nan)
        if both:
            parts = np.stack([score[rows] for score in scores.values()])
            samples = bootstrap_auc(user[rows], label[rows], parts, resamples=200)
        values = [auc(label[rows], score[rows]) for score in scores.values()]
        for number, (system, value) in enumerate(zip(scores, values, strict=True)):
            low_auc, high_auc = _interval(samples[:, number])
            low_difference, high_difference = _interval(samples[:, number] - samples[:, 0])
            table.append(
                {
                    "group": group,
                    "rows": len(rows),
                    "clicks": int(label[rows].sum()),
                    "system": system,
                    "auc": value,
                    "low": low_auc,
                    "high": high_auc,
                    "difference": value - values[0],
                    "difference_low": low_difference,
                    "difference_high": high_difference,
                }
            )
    return table


def _interval(samples: np.ndarray) -> tuple[float, float]:
    missing = np.isnan(samples).all()
    return (float("nan"), float("nan")) if missing else interval(samples)


def _start_from(model: DIN, weights: Weights, fresh: np.ndarray) -> None:
    """Give a model the weights of another; items that are fresh, bool [n_items + 1], are new."""
    own, new = model.learned_state(), torch.from_numpy(fresh)[:, None]
    kept = {
        name: torch.where(new, own[name].cpu(), value) if name in OF_ITEMS else value
        for name, value in weights.items()
    }
    model.load_state_dict(kept, strict=False)


def _result(folder: Path, number: int) -> Path:
    return folder / f"window-{number}.json"


def _kept(folder: Path, number: int) -> Path:
    return folder / f"window-{number}.safetensors"


def _weights(folder: Path, number: int) -> Weights:
    try:
        return load_file(_kept(folder, number))
    except (OSError, SafetensorError) as error:
        raise RunError(
            f"{_kept(folder, number)} cannot be read ({first_line(error)}), from which the next "
            f"window starts: delete {folder} and test again."
        ) from error
