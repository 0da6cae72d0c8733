"""What trained models attend to, as tidy DataFrames."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor

from mmctr.data.demo import Topics
from mmctr.data.demo_clicks import history_weights
from mmctr.data.fields import Field
from mmctr.data.impressions import Impressions, slice_positions
from mmctr.model.batch import Batch
from mmctr.model.din import DIN
from mmctr.model.layers import CONTEXT, ITEM_FIELDS, USER_FIELDS
from mmctr.training.batches import Batches
from mmctr.training.metrics import bootstrap_mean, interval

SLOTS = {"item": ITEM_FIELDS, "user": USER_FIELDS, "context": CONTEXT}  # by owner of a field


@torch.inference_mode()
def attention(model: DIN, rows: Impressions) -> pd.DataFrame:
    """Each head's weight of each click that the model reads.

    Columns: row (position in rows), target, item, age (1 = the latest click), head (from 1),
    weight. The softmax weights of a row and head sum to 1; those of attention="mlp" need not.
    """
    names = ("row", "target", "item", "age", "head")
    nothing = dict.fromkeys(names, np.zeros(0, np.int64)) | {"weight": np.zeros(0, np.float32)}
    parts = [pd.DataFrame(nothing)]
    batches = Batches(rows, model)
    for first, batch in zip(range(0, len(rows), 1024), batches.in_order(1024), strict=True):
        weights = model.attention_weights(batch).cpu().numpy()
        histories = batch.histories
        click_row = histories.rows.cpu().numpy()
        end = histories.offsets[1:].cpu().numpy()
        heads = weights.shape[1]
        columns = {
            "row": first + click_row,
            "target": batch.items[batch.target].cpu().numpy()[click_row],
            "item": batch.items[histories.items].cpu().numpy(),
            "age": end[click_row] - np.arange(len(click_row)),
        }
        part = pd.DataFrame({name: np.repeat(value, heads) for name, value in columns.items()})
        head = np.tile(np.arange(1, heads + 1), len(click_row))
        parts.append(part.assign(head=head, weight=weights.ravel()))
    return pd.concat(parts, ignore_index=True)


@torch.inference_mode()
def field_weights(model: DIN, rows: Impressions) -> pd.DataFrame:
    """SENet's weight of each field over rows: field, mean, low and high (5% and 95% quantiles).

    Raises ConfigError if the model has no SENet.
    """
    batches = Batches(rows, model)
    weights = [model.field_weights(batch) for batch in batches.in_order(4096)]
    weights = torch.cat(weights).cpu().numpy()
    low, high = np.quantile(weights, [0.05, 0.95], axis=0)
    return pd.DataFrame(
        {"field": model.fields, "mean": weights.mean(axis=0), "low": low, "high": high}
    )


@torch.inference_mode()
def logits(model: DIN, rows: Impressions) -> np.ndarray:
    """The model's logits of a click, float32 [n]: effects add up before the sigmoid."""
    parts = [model(batch).float().cpu().numpy() for batch in Batches(rows, model).in_order(4096)]
    return np.concatenate([np.zeros(0, dtype=np.float32), *parts])


def sigmoid(logit: np.ndarray) -> np.ndarray:
    """The probabilities of logits, of the same shape and dtype."""
    return 1 / (1 + np.exp(-logit))


@torch.inference_mode()
def permutation_importance(
    model: DIN,
    rows: Impressions,
    shuffles: int = 5,
    seed: int = 0,
    fields: Sequence[Field] = (),
) -> pd.DataFrame:
    """AUC lost when one field's vectors change places among the rows (Breiman, 2001).

    The field is shuffled as the layers after attention read it. Columns: field, mean, low, high
    (least and most of the shuffles); the field of most loss first. With several heads of attention,
    "all interest" shuffles what they found together, because one head may stand in for another.
    fields: all those of the dataset's items, users and context. Each that the model reads changes
    places alone, too: what it adds to the sum in its slot is exchanged, an item's in the target.
    """
    rng = np.random.default_rng(seed)
    batches = list(Batches(rows, model).in_order(4096))
    vectors = torch.cat([model.field_vectors(batch) for batch in batches])
    ends = np.cumsum(list(model.field_widths.values()))
    places = np.split(np.arange(ends[-1]), ends[:-1])
    columns = dict(zip(model.field_widths, places, strict=True))
    interest = [name for name in columns if name.startswith("interest")]
    if len(interest) > 1:
        columns["all interest"] = np.concatenate([columns[name] for name in interest])

    def auc(fields: Tensor) -> float:
        scores = [model.score(part).float() for part in fields.split(4096)]
        return float(roc_auc_score(rows.label, torch.cat(scores).cpu().numpy()))

    parts = {name: vectors[:, column] for name, column in columns.items()}
    for field in fields:
        if (slot := SLOTS[field.owner]) in columns:
            owned = [one for one in fields if one.owner == field.owner]
            parts[field.title] = _added(model, batches, slot, owned.index(field))
            columns[field.title] = columns[slot]
    whole, losses = auc(vectors), {}
    for name, part in parts.items():
        column = torch.from_numpy(columns[name]).to(vectors.device)
        losses[name] = []
        for _ in range(shuffles):
            order = torch.from_numpy(rng.permutation(len(rows))).to(vectors.device)
            shuffled = vectors.clone()
            shuffled[:, column] = vectors[:, column] - part + part[order]
            losses[name].append(whole - auc(shuffled))
    table = pd.DataFrame(losses).agg(["mean", "min", "max"]).T
    table = table.rename(columns={"min": "low", "max": "high"}).rename_axis("field").reset_index()
    return table.sort_values("mean", ascending=False, ignore_index=True)


def _added(model: DIN, batches: Sequence[Batch], slot: str, number: int) -> Tensor:
    """What one field adds to the sum in a slot, [n, dim]; number: its place among the slot's."""
    parts = []
    for batch in batches:
        if slot == ITEM_FIELDS:
            embed = model.embedding.fields
            codes = model.embedding.item_fields[batch.items[batch.target]]
        else:
            embed, codes = model.row_fields(batch.fields)[slot]
        parts.append(embed.one(codes, number))
    return torch.cat(parts)


def cases(
    rows: Impressions,
    probability: np.ndarray,
    train_clicks: np.ndarray | None = None,
    weights: pd.DataFrame | None = None,
) -> dict[str, int]:
    """Telling rows by kind: clicks foreseen and missed, a cold target, a long history, and heads
    that disagree.

    Only rows with at least two clicks in their history are taken, because attention has nothing to
    choose between in others, and no row twice: there may be no case at all. train_clicks: of each
    item [n_items + 1]. weights: the attention of these rows. What is left out, leaves out its case.
    """
    length = rows.history_length
    clicked = rows.label == 1
    wanted = {
        "A foreseen click": np.where(clicked, probability, -np.inf),
        "A missed click": np.where(clicked, -probability, -np.inf),
    }
    if train_clicks is not None:
        wanted["A cold target"] = -train_clicks[rows.target].astype(np.float64)
    wanted["A long history"] = length.astype(np.float64)
    if weights is not None and weights["head"].nunique() > 1:
        spread = head_disagreement(weights).reindex(range(len(rows)))
        wanted["Heads that disagree"] = spread.fillna(-np.inf).to_numpy(copy=True)
    found: dict[str, int] = {}
    for name, score in wanted.items():
        score[length < 2] = -np.inf
        score[list(found.values())] = -np.inf
        if np.isfinite(score.max(initial=-np.inf)):
            found[name] = int(score.argmax())
    return found


def head_disagreement(weights: pd.DataFrame) -> pd.Series:
    """How far a row's heads are from their mean, by row: 0 = alike, near 1 = each its own click.

    The mean over heads of the total variation distance. weights: as `attention` gives them.
    """
    mean = weights.groupby(["row", "age"])["weight"].transform("mean")
    distance = (weights["weight"] - mean).abs().groupby(weights["row"]).sum()
    return distance / (2 * weights["head"].nunique())


def leave_one_out(model: DIN, rows: Impressions) -> pd.DataFrame:
    """What each click that the model reads does to its row's logit: with it, minus without it.

    Every history is scored without each of its clicks in turn. Columns: row, item, age (1 = the
    latest click), weight (attention, mean over heads), logit (with all clicks), effect.
    """
    start = np.maximum(rows.history_start, rows.history_end - model.config.max_history)
    rows = replace(rows, history_start=start)
    clicks = attention(model, rows).groupby(["row", "age"], as_index=False)
    clicks = clicks.agg({"item": "first", "weight": "mean"})
    row, age = clicks["row"].to_numpy(), clicks["age"].to_numpy()
    logit = logits(model, rows)[row]
    without = logits(model, without_click(rows.select(row), age))
    return clicks.assign(logit=logit, effect=logit - without)


def tenths(values: pd.Series) -> pd.Series:
    """The middle of the tenth of all values that each falls in; itself where all are equal."""
    if values.nunique() < 2:
        return values
    return pd.qcut(values, 10, duplicates="drop").map(lambda part: part.mid).astype(float)


def removal_effects(clicks: pd.DataFrame, seed: int = 0) -> pd.DataFrame:
    """How a prediction changes when one click is taken out of the history.

    clicks: as `leave_one_out` gives them. One line a row with at least two clicks: row,
    probability, most_attended and random, the changes of the probability without the most attended
    click and without a random other one.
    """
    size = clicks.groupby("row")["age"].transform("size")
    clicks = clicks[size >= 2].reset_index(drop=True)
    most = clicks.loc[clicks.groupby("row")["weight"].idxmax()]
    others = clicks.drop(most.index).sample(frac=1, random_state=seed)
    random = others.groupby("row").head(1).sort_values("row")
    probability = sigmoid(most["logit"].to_numpy())
    changes = {
        name: sigmoid((picked["logit"] - picked["effect"]).to_numpy()) - probability
        for name, picked in (("most_attended", most), ("random", random))
    }
    return pd.DataFrame({"row": most["row"].to_numpy(), "probability": probability, **changes})


def agreement(clicks: pd.DataFrame) -> pd.DataFrame:
    """Whether attention ranks a row's clicks as their leave-one-out effects do.

    clicks: as `leave_one_out` gives them. One line a row with at least three clicks, which two
    ranks need to say anything: row, clicks, correlation (Spearman's, of weight and size of effect;
    NaN if all are equal), same_first (whether both name the same click).
    """
    size = clicks.groupby("row")["age"].transform("size")
    clicks = clicks[size >= 3].reset_index(drop=True)
    clicks["size"] = clicks["effect"].abs()
    by_row = clicks.groupby("row")
    ranks = by_row[["weight", "size"]].rank()
    ranks -= ranks.groupby(clicks["row"]).transform("mean")
    products = ranks.pow(2).assign(both=ranks["weight"] * ranks["size"])
    sums = products.groupby(clicks["row"]).sum()
    correlation = sums["both"] / np.sqrt(sums["weight"] * sums["size"])
    table = pd.DataFrame({"clicks": by_row.size(), "correlation": correlation})
    first = clicks[["weight", "size"]] == by_row[["weight", "size"]].transform("max")
    table["same_first"] = first.all(axis=1).groupby(clicks["row"]).any()
    return table.rename_axis("row").reset_index()


def topic_matches(model: DIN, rows: Impressions, topics: Topics) -> pd.DataFrame:
    """On simulated data: does the most attended click share the topic that drove the click?

    Of the topics of an item (theme, format, look) the one drove a click that gave most of the
    affinity of target and history. One line a clicked row with at least two clicks that the model
    reads, and a column for each click that may be chosen: "random click" (the share of the history
    that has the target's topic), "head 1" and so on, "mean of heads", and "truth", the click that
    counted most in the simulation; 1 = it has the target's topic. Column row: position in rows.
    """
    chosen = np.flatnonzero((rows.label == 1) & (rows.history_length >= 2))
    rows = rows.select(chosen)
    clicks = _true_clicks(rows, topics)
    clicks = clicks[clicks["age"] <= model.config.max_history]
    by_row = clicks.groupby("row")
    table = pd.DataFrame({"random click": by_row["shared"].mean()})
    shared = clicks.set_index(["row", "age"])["shared"]
    weights = attention(model, rows)
    picks = {f"head {head}": part for head, part in weights.groupby("head")} if len(weights) else {}
    if len(picks) > 1:
        picks["mean of heads"] = weights.groupby(["row", "age"], as_index=False)["weight"].mean()
    picks["truth"] = clicks
    for name, part in picks.items():
        most = part.loc[part.groupby("row")["weight"].idxmax(), ["row", "age"]]
        table[name] = shared.loc[pd.MultiIndex.from_frame(most)].to_numpy(np.float64)
    return table.set_axis(chosen).rename_axis("row").reset_index()


def mean_interval(
    values: np.ndarray, user: np.ndarray, resamples: int = 500, seed: int = 0
) -> dict[str, float]:
    """The mean of values [n] with its 95% bootstrap interval: mean, low, high; NaN if n is 0.

    Users are drawn with replacement, because rows of one user depend on each other.
    """
    if not len(values):
        return dict.fromkeys(("mean", "low", "high"), float("nan"))
    low, high = interval(bootstrap_mean(user, values, resamples=resamples, seed=seed))
    return {"mean": float(np.mean(values)), "low": low, "high": high}


def without_click(rows: Impressions, age: np.ndarray) -> Impressions:
    """The same rows, each without one click of its history: the age-th latest, int [n] from 1."""
    lengths = rows.history_length
    ends = np.cumsum(lengths)
    flat = slice_positions(rows.history_start, lengths)
    kept = np.ones(len(flat), dtype=bool)
    kept[ends - age] = False
    end, items = np.cumsum(lengths - 1), rows.history_items[flat[kept]]
    start = end - (lengths - 1)
    return replace(rows, history_start=start, history_end=end, history_items=items)


def _true_clicks(rows: Impressions, topics: Topics) -> pd.DataFrame:
    """Every click of simulated histories: row, age, weight (in the true affinity), and shared:
    whether it has the target's topic of the kind that drove the click."""
    length = rows.history_length
    row = np.repeat(np.arange(len(rows)), length)
    age = np.cumsum(length)[row] - np.arange(len(row))
    item = rows.history_items[slice_positions(rows.history_start, length)]
    target = rows.target[row]
    similarity = np.einsum("nkd,nkd->nk", topics.vectors[target], topics.vectors[item])
    weight = history_weights(similarity.mean(axis=1), age)
    contribution = np.zeros((len(rows), similarity.shape[1]))
    np.add.at(contribution, row, weight[:, None] * similarity)
    driver = contribution.argmax(axis=1)[row]
    shared = (topics.names[target] == topics.names[item])[np.arange(len(row)), driver]
    return pd.DataFrame({"row": row, "age": age, "weight": weight, "shared": shared})
