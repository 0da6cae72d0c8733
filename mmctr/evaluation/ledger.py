"""The honesty ledger: which difference of AUC valid rows can show, beside the one at hand."""

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd

from mmctr.data.rates import NORMAL
from mmctr.evaluation.compare import systems_of
from mmctr.runs.run import Run

POPULARITY = "popularity"


@dataclass(frozen=True)
class Ledger:
    """The AUC of two rankings, the better first, and how far a difference of theirs is uncertain.

    better, other: their names and AUC. users, seeds: how many there are. by_users, by_seeds: half
    the width of the difference's 95% interval if only users, or only seeds, were drawn anew;
    by_seeds is NaN where there is one seed. popularity: its AUC. at_most: whether by_users is an
    upper bound.

    A difference shows at 95% if it is larger than half the width of its interval. by_users is half
    that of the paired bootstrap, and falls with 1 / sqrt(users). by_seeds is 1.96 times the
    standard error of the difference of the means over seeds, sqrt(s1^2 / n1 + s2^2 / n2), and falls
    with 1 / sqrt(seeds); s of few seeds is rough. The two draws are independent, so that squares
    add: both^2 = by_users^2 + by_seeds^2. To show a difference d with more users and these seeds
    takes n where by_users^2 * users / n + by_seeds^2 = d^2; likewise for seeds. Where one of the
    two alone is wider than d, no number of the other is enough.

    One run has no pair. Two AUCs whose intervals have half the width h, on users of their own,
    differ by h * sqrt(2) at 95%; on the same users, whose rows are easy or hard for both, by less.
    """

    better: tuple[str, float]
    other: tuple[str, float]
    users: int
    seeds: int
    by_users: float
    by_seeds: float
    popularity: float
    at_most: bool = False

    @classmethod
    def of(cls, runs: list[Run], differences: pd.DataFrame | None = None) -> "Ledger":
        """The two best systems of runs of the same rows; of a single one, it and popularity.

        differences: those of compare.paired_differences, which has a line for each other system.
        """
        systems, names = systems_of(runs), []
        if differences is not None and len(differences):
            line = differences.loc[differences["difference"].idxmax()]
            best = next(name for name in systems if name not in set(differences["strategy"]))
            names = [best, line["strategy"]]
        aucs = {
            name: [run.summary["metrics"]["auc"] for run in systems[name]]
            for name in names or list(systems)[:1]
        }
        popularity = runs[0].summary["reference_auc"][POPULARITY]
        means = [(name, float(np.mean(found))) for name, found in aucs.items()]
        shared = {
            "users": runs[0].predictions["user"].nunique(),
            "seeds": min(map(len, aucs.values())),
            "by_seeds": NORMAL * math.sqrt(sum(map(_squared_error, aucs.values()))),
            "popularity": popularity,
        }
        if names:
            return cls(*means, by_users=float(line["high"] - line["low"]) / 2, **shared)
        intervals = [run.summary["metrics"]["auc_interval"] for run in systems[means[0][0]]]
        half = float(np.mean([(high - low) / 2 for low, high in intervals]))
        two = sorted([means[0], (POPULARITY, popularity)], key=lambda one: one[1], reverse=True)
        return cls(*two, by_users=half * math.sqrt(2), **shared, at_most=True)

    @property
    def difference(self) -> float:
        """The one at hand, of AUC."""
        return self.better[1] - self.other[1]

    @property
    def smallest(self) -> float:
        """The smallest difference that shows at 95%, of other users and, if known, other seeds."""
        return math.hypot(self.by_users, np.nan_to_num(self.by_seeds))

    @property
    def users_needed(self) -> int | None:
        """With how many users, and these seeds, the difference would show; None if with none."""
        return _needed(self.users, self.by_users, self.difference, np.nan_to_num(self.by_seeds))

    @property
    def seeds_needed(self) -> int | None:
        """With how many seeds, and these users, the difference would show; None if with none."""
        if math.isnan(self.by_seeds):
            return None
        return _needed(self.seeds, self.by_seeds, self.difference, self.by_users)

    @property
    def words(self) -> str:
        """Popularity beside the model, what shows, and what the difference at hand would take."""
        model = next(one for one in (self.better, self.other) if one[0] != POPULARITY)
        less = ", maybe by less" if self.at_most else ""
        said = (
            f"Popularity alone ranks these rows with an AUC of {self.popularity:.4f}, {model[0]} "
            f"with {model[1]:.4f}. These {self.users:,} users can tell two AUCs apart, at 95%, "
            f"that differ by about {self.by_users:.4f} or more{less}"
        )
        if math.isnan(self.by_seeds):
            said += " (other seeds not counted)"
        else:
            said += f" ({self.smallest:.4f} if other seeds are to say the same)"
        said += f": the {self.difference:.4f} between {self.better[0]} and {self.other[0]} is "
        if self.difference > self.smallest:
            return f"{said}enough."
        if self.difference > self.by_users:
            return f"{said}enough with these seeds; with others it would take {self._takes()}."
        return f"{said}too little: it would take {self._takes()}."

    def _takes(self) -> str:
        users, seeds = self.users_needed, self.seeds_needed
        ways = [] if users is None else [f"about {_rounded(users):,} users"]
        ways += [] if seeds is None else [f"{seeds:,} seeds"]
        return " or ".join(ways) or "both more users and more seeds"


def _squared_error(aucs: list[float]) -> float:
    """The squared standard error of a mean over seeds; NaN of one."""
    return float(np.var(aucs, ddof=1)) / len(aucs) if len(aucs) > 1 else float("nan")


def _needed(count: int, half: float, difference: float, rest: float) -> int | None:
    """How many of what there are `count` of would make half a width fit; rest: the other half."""
    left = difference**2 - rest**2
    return math.ceil(count * half**2 / left) if left > 0 else None


def _rounded(number: int) -> int:
    """Up to two digits: more would say more than is known."""
    unit = 10 ** max(0, len(str(number)) - 2)
    return -(-number // unit) * unit
