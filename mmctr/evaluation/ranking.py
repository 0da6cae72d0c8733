"""How well a run ranks whole catalogs: Recall and NDCG of the best k of all items.

A few sampled negatives cannot judge a top 20: among all items, most of what stands high was never
shown to the user.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from mmctr.data.dataset import Dataset
from mmctr.runs.run import Run
from mmctr.training.metrics import ndcg_at, recall_at
from mmctr.training.prediction import Scorer


@dataclass(frozen=True)
class Request:
    """What a user is to be ranked for: the clicks before a split, and those within it.

    user: its number. history: int32 [clicks], the latest last. clicked: items, rising. codes: of
    the fields of its first row, or None.
    """

    user: int
    history: np.ndarray
    clicked: np.ndarray
    codes: np.ndarray | None


def requests(
    dataset: Dataset, split: str, users: int | None = None, seed: int = 0
) -> list[Request]:
    """A request for each user who clicked in a split, or for so many of them, drawn by the seed.

    The history is that of the user's earliest row, which without times has the shortest one.
    """
    rows = dataset.split(split)
    if rows.label is None:
        return []
    key = rows.history_length if rows.time is None else rows.time
    order = np.lexsort((key, rows.user))
    _, first = np.unique(rows.user[order], return_index=True)
    parts = np.split(order, first[1:])
    made = [_request(dataset, split, part) for part in parts]
    made = [request for request in made if len(request.clicked)]
    if users is not None and users < len(made):
        chosen = np.random.default_rng(seed).choice(len(made), users, replace=False)
        made = [made[place] for place in np.sort(chosen)]
    return made


def ranking_table(
    run: Run,
    dataset: Dataset,
    split: str = "test",
    k: int = 20,
    users: int | None = None,
    seed: int = 0,
) -> pd.DataFrame:
    """Recall and NDCG of the k best of all items, for a run, popularity and the cosine of content.

    Candidates are all items that a user had not clicked before; "new" ones those without a train
    click, ranked among themselves. users: how many are drawn, all if not given. Columns: items,
    system, users, recall, ndcg; means over the users who clicked such an item. The cosine is that
    of an item's content and the mean of the history's, and is there where the run has content.
    """
    model, _ = run.adapted(dataset)
    scorer, popularity = Scorer(model), dataset.train_clicks()
    content = model.embedding.content
    unit = None if content is None else _unit(content.detach().numpy())
    groups = {"all": np.ones(len(popularity), dtype=bool), "new": popularity == 0}
    found = []
    for request in tqdm(requests(dataset, split, users, seed), desc="ranking", unit=" users"):
        candidates = np.setdiff1d(np.arange(1, len(popularity)), request.history)
        scores = {
            run.strategy: scorer(request.history, candidates, request.codes),
            "popularity": popularity[candidates],
        }
        if unit is not None:
            scores["cosine"] = unit[candidates] @ unit[request.history].sum(axis=0)
        clicked = np.isin(candidates, request.clicked)
        for group, of_group in groups.items():
            asked = of_group[candidates]
            for system, score in scores.items():
                both = (clicked[asked], score[asked], k)
                found.append((group, system, recall_at(*both), ndcg_at(*both)))
    table = pd.DataFrame(found, columns=["items", "system", "recall", "ndcg"]).dropna()
    groups = table.groupby(["items", "system"], sort=False)
    return groups.agg(
        users=("recall", "size"), recall=("recall", "mean"), ndcg=("ndcg", "mean")
    ).reset_index()


def _request(dataset: Dataset, split: str, part: np.ndarray) -> Request:
    rows, first = dataset.split(split), part[0]
    clicked = np.unique(rows.target[part[rows.label[part] == 1]])
    codes = None if rows.fields is None else rows.fields[first]
    return Request(int(rows.user[first]), rows.history(first), clicked, codes)


def _unit(vectors: np.ndarray) -> np.ndarray:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.where(lengths > 0, lengths, 1)
