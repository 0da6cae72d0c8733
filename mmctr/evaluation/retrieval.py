"""The top of ALL items: three sampled negatives cannot judge what a recommender would show."""

from collections.abc import Callable, Iterator

import numpy as np
import pandas as pd
from pandas.io.formats.style import Styler
from tqdm.auto import tqdm

from mmctr.data.catalog import Catalog
from mmctr.data.dataset import Dataset
from mmctr.data.impressions import Impressions
from mmctr.evaluation.explain import mean_interval
from mmctr.evaluation.new_items import media, unit_vectors
from mmctr.model.din import DIN
from mmctr.training.metrics import ndcg_at, recall_at
from mmctr.training.prediction import Scorer

# Scores of candidates, float [n], from a history, candidates and the codes of the row's fields.
Ranker = Callable[[np.ndarray, np.ndarray, np.ndarray | None], np.ndarray]
PAIRS = 4_000_000  # users times items that a system scores at most: a minute
ALL, NEW, AMONG_NEW = "All clicks", "Clicks on new items", "The same, among new items only"


def top_table(
    dataset: Dataset,
    rows: Impressions,
    models: dict[str, DIN],
    new: np.ndarray,
    *,
    users: int = 100,
    k: int = 20,
) -> pd.DataFrame:
    """Recall and NDCG at k over all items that a user has not clicked, means over a sample of
    users.

    new: bool [n_items + 1]. Beside the models stand popularity (train clicks, none of new items)
    and the cosines. Columns: system, clicks (of ALL items, of NEW ones, and those again with new
    candidates only), users, recall, low, high (its 95% interval), ndcg.
    """
    rankers = _rankers(dataset, models, new)
    users = min(users, PAIRS // dataset.catalog.n_items + 1)
    rng, found = np.random.default_rng(0), []
    for row, clicked in tqdm(list(_asked(rows, users)), unit="user"):
        history = rows.history(row)
        fields = None if rows.fields is None else rows.fields[row]
        items = np.setdiff1d(np.arange(1, dataset.catalog.n_items + 1), history)
        items = rng.permutation(items)  # or else equal scores would be ordered by number
        relevant, is_new = np.isin(items, clicked), new[items]
        kinds = {ALL: (relevant, slice(None)), NEW: (relevant & is_new, slice(None))}
        kinds[AMONG_NEW] = (relevant & is_new, is_new)
        for system, rank in rankers.items():
            scores = rank(history, items, fields)
            for kind, (wanted, among) in kinds.items():
                if wanted.any():
                    ranked = (wanted[among], scores[among], k)
                    found.append((system, kind, row, recall_at(*ranked), ndcg_at(*ranked)))
    table = pd.DataFrame(found, columns=["system", "clicks", "row", "recall", "ndcg"])
    lines = []
    for (system, kind), part in table.groupby(["system", "clicks"], sort=False):
        recall = mean_interval(part["recall"].to_numpy(), rows.user[part["row"]])
        shown = {"system": system, "clicks": kind, "users": len(part), "recall": recall["mean"]}
        lines.append(shown | {"low": recall["low"], "high": recall["high"]})
        lines[-1]["ndcg"] = part["ndcg"].mean()
    return pd.DataFrame(
        lines, columns=["system", "clicks", "users", "recall", "low", "high", "ndcg"]
    )


def styled(table: pd.DataFrame) -> Styler:
    """The table of top_table as a page shows it: a line a system, the clicks side by side."""
    names = {"recall": "Recall@20", "ndcg": "NDCG@20"}
    wide = table.pivot(index="system", columns="clicks", values=list(names)).rename(columns=names)
    kinds = [kind for kind in (ALL, NEW, AMONG_NEW) if kind in set(table["clicks"])]
    wide = wide.swaplevel(axis=1)[[(kind, name) for kind in kinds for name in names.values()]]
    wide = wide.reindex(table["system"].unique()).rename_axis(columns=[None, None])
    return wide.rename_axis(index=None).style.format(precision=3, na_rep="–", escape="html")


def remark(table: pd.DataFrame) -> str:
    """How many users were asked, and which intervals their number leaves, in words."""
    said = []
    for kind, part in table.groupby("clicks", sort=False):
        best = part.loc[part["recall"].idxmax()]
        if not best["recall"]:
            said.append(f"{kind} ({best['users']} users): the recall of every system is 0.")
            continue
        said.append(
            f"{kind} ({best['users']} users): {best['system']} has the highest recall, "
            f"{best['recall']:.3f} (95% interval {best['low']:.3f} to {best['high']:.3f})."
        )
    none = "" if NEW in set(table["clicks"]) else " None of these users clicked a new item."
    return " ".join(said) + none


def _asked(rows: Impressions, users: int) -> Iterator[tuple[int, np.ndarray]]:
    """Users by chance: the row of each one's first click, and all items that the user clicked."""
    clicks = pd.DataFrame({"user": rows.user, "item": rows.target, "row": np.arange(len(rows))})
    clicks = clicks[rows.label == 1]
    if rows.time is not None:
        clicks = clicks.assign(time=rows.time[clicks["row"]]).sort_values("time", kind="stable")
    order = np.random.default_rng(0).permutation(clicks["user"].unique())[:users]
    chosen = clicks[clicks["user"].isin(order)]
    for _, of_user in chosen.groupby("user", sort=False):
        yield int(of_user["row"].iloc[0]), of_user["item"].to_numpy()


def _rankers(dataset: Dataset, models: dict[str, DIN], new: np.ndarray) -> dict[str, Ranker]:
    clicks = np.where(new, 0, dataset.train_clicks())
    systems: dict[str, Ranker] = {name: Scorer(model) for name, model in models.items()}
    systems["popularity"] = lambda _, items, __: clicks[items]
    return systems | _by_cosine(dataset.catalog)


def _by_cosine(catalog: Catalog) -> dict[str, Ranker]:
    def ranker(unit: np.ndarray) -> Ranker:
        return lambda history, items, _: unit[items] @ unit[history].sum(axis=0)

    return {name: ranker(unit_vectors(values)) for name, values in media(catalog).items()}
