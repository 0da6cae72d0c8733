"""A run on another catalog: more items, fewer, or in another order, joined by their own ids.

What the run knows of an item, a tag or a value goes with its name; the rest is unknown to it. A new
item shows no identity, as those that training never saw clicked: content, tags and fields speak.
"""

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch

from mmctr.data.dataset import Dataset
from mmctr.data.fields import as_json
from mmctr.data.impressions import Impressions
from mmctr.errors import MMCTRError, RunError, first_line
from mmctr.model.din import DIN
from mmctr.runs.carried import ITEMS, UNTITLED, Carried, other_encoder, title_hashes
from mmctr.runs.run import Run

# Share of the mean square by which a vector of the same features may differ: encoders of other
# machines and batches round otherwise, and a title with one word changed moves by more.
SAME_CONTENT = 1e-4
OTHER_ITEMS = 0.9  # from this share of other titles and contents on, ids mean other items


@dataclass(frozen=True)
class Drift:
    """How far a catalog is from the one that a run was trained on.

    items: int64 [n_items + 1], the run's number of each item, 0 for those that it does not know.
    tags: int64 [n_tags], the same of tags. gone: how many of the run's items the catalog lacks.
    retitled, changed: bool [n_items + 1], items that the run knows by another title or content.
    """

    items: np.ndarray
    tags: np.ndarray
    gone: int
    retitled: np.ndarray
    changed: np.ndarray

    @cached_property
    def new(self) -> np.ndarray:
        """Items that the run does not know, bool [n_items + 1]."""
        new = self.items == 0
        new[0] = False
        return new

    def unknown(self, dataset: Dataset, rows: Impressions) -> dict[str, tuple[int, int]]:
        """Of items, tags, clicks and values of fields: how many the run does not know, of how many.

        Clicks are those of the rows, as targets and in their histories.
        """
        counts = {
            "items": (int(self.new.sum()), len(self.new) - 1),
            "tags": (int((self.tags[1:] == 0).sum()), len(self.tags) - 1),
        }
        if rows.label is not None:
            clicked = rows.target[rows.label == 1]
            counts["clicked targets"] = (int(self.new[clicked].sum()), len(clicked))
        before = np.append(0, np.cumsum(self.new[rows.history_items]))
        in_histories = before[rows.history_end] - before[rows.history_start]
        counts["clicks in histories"] = (int(in_histories.sum()), int(rows.history_length.sum()))
        for place, field in enumerate(dataset.catalog.fields):
            codes = dataset.catalog.field_codes[1:, place]
            counts[f"{field.title}, items"] = (int((codes == 0).sum()), len(codes))
        for place, field in enumerate(dataset.row_fields):
            counts[f"{field.title}, rows"] = (int((rows.fields[:, place] == 0).sum()), len(rows))
        return counts

    def in_words(self, dataset: Dataset, rows: Impressions) -> str:
        """A line each of what the run does not know of a dataset and these rows of it."""
        lines = ["Unknown to the run:"]
        for name, (count, of) in self.unknown(dataset, rows).items():
            lines.append(f"  {name:<26} {count:>12,} of {of:>12,} {count / max(of, 1):>7.1%}")
        known = {
            "of its items gone": self.gone,
            "known items, other title": int(self.retitled.sum()),
            "known items, other content": int(self.changed.sum()),
        }
        return "\n".join([*lines, *(f"{name:<28} {count:>12,}" for name, count in known.items())])


def moved(before: np.ndarray, after: np.ndarray) -> str:
    """How predicted probabilities moved: mean and quantiles beside those of a run's valid split."""
    lines = [f"{'Probability':<16} {'mean':>8} {'5%':>8} {'50%':>8} {'95%':>8}"]
    for name, values in (("here", after), ("the run's valid", before)):
        shown = (values.mean(), *np.quantile(values, [0.05, 0.5, 0.95]))
        lines.append(f"  {name:<15}" + "".join(f"{value:>8.4f} " for value in shown).rstrip())
    return "\n".join(lines)


def adapted(run: Run, dataset: Dataset, in_shards: bool = False) -> tuple[DIN, Drift | None]:
    """The run's model for the catalog of any dataset, and how far that is from the run's own.

    On the run's own dataset it is the run's model as it is, in_shards as `Run.model` has it, and
    None; for another catalog each process holds all of it. Items are joined by own id:
    those that the run does not know show no identity, and tags that it does not know are left out.
    Popularity levels are the dataset's. Raises RunError for a run that is too old, for features of
    another width or encoder, for fields of other vocabularies, and for ids that it does not know or
    that mean other items.
    """
    if _is_own(run, dataset):
        return run.model(in_shards), None
    dataset = run.without_excluded(dataset)
    made, drift = joined(run, dataset)
    catalog = dataset.catalog
    tags = np.where(drift.tags[catalog.tags] > 0, catalog.tags, 0)
    model = run.model()
    with torch.random.fork_rng(devices=[]):  # whoever predicts draws no random numbers
        grown = DIN.for_catalog(
            model.config,
            replace(catalog, tags=tags),
            made,
            dataset.row_fields,
            origin=model,
        )
    take_weights(grown, model, drift)
    known = torch.ones(len(drift.items), dtype=torch.bool)
    if model.embedding.known is not None:
        known = model.embedding.known[torch.from_numpy(drift.items)]
    known[torch.from_numpy(drift.new)] = False
    grown.embedding.known = known
    grown.card = model.card
    return grown.eval(), drift


def joined(run: Run, dataset: Dataset) -> tuple[np.ndarray | None, Drift]:
    """The item embedding of a dataset in the run's terms, and how far its catalog is from that.

    float32 [n_items + 1, width], None for "ids": the run's own rows where content is as it was (or
    was learned), else what its fitted strategy makes of the features. Raises RunError as `adapted`
    does.
    """
    dataset = run.without_excluded(dataset)
    carried, catalog = run.carried, dataset.catalog
    _require_comparable(run, carried, dataset)
    items = carried.numbers(catalog.ids)
    items[0] = 0
    known = items > 0
    if not known.any():
        raise RunError(
            f"No item of {dataset.folder} has an id that {run.folder} knows (such as "
            f"{carried.ids[1]!r}, here {catalog.ids[1]!r}): choose data with the ids of its own, "
            f"{run.summary['dataset']['folder']}."
        )
    titles, titled = title_hashes(catalog.titles), catalog.titles != ""
    before = carried.titles[items]
    retitled = known & titled & (before != UNTITLED) & (before != titles)
    changed = np.zeros_like(known)
    made = None if carried.strategy is None else _embedded(run, dataset)
    if made is not None:
        kept = run.tensor("embedding.content")
        if kept.dtype.kind == "i":
            changed = known & (made != kept[items]).any(axis=1)
        elif run.config["model"].get("content") != "finetuned":
            apart = np.square(made - kept[items]).sum(axis=1)
            changed = known & (apart > SAME_CONTENT * np.square(kept[1:]).sum(axis=1).mean())
        as_it_was = known & ~changed
        made[as_it_was] = kept[items[as_it_was]]
    other = retitled if made is None else retitled & changed
    if other.sum() > OTHER_ITEMS * known.sum():
        raise RunError(
            f"{other.sum():,} of the {known.sum():,} items of {dataset.folder} whose ids "
            f"{run.folder} knows have another title and content there, so that its ids mean other "
            f"items: choose data with those of {run.summary['dataset']['folder']}."
        )
    names = {
        carried.tag_names.get(tag, str(tag)): tag for tag in range(1, run.config["sizes"]["n_tags"])
    }
    tags = [
        names.get(catalog.tag_name(tag), 0)
        for tag in range(1, int(catalog.tags.max(initial=0)) + 1)
    ]
    gone = len(carried.ids) - 1 - int(known.sum())
    return made, Drift(items, np.array([0, *tags]), gone, retitled, changed)


def take_weights(model: DIN, trained: DIN, drift: Drift) -> None:
    """Put trained weights into a model of another catalog, where they are known.

    Rows of items and tags that the trained one lacks, and what describes items, stay as they are.
    """
    own, weights = model.state_dict(), trained.state_dict()
    of_items = ("item_tags", "item_levels", "item_fields", "known", "content")
    for name in weights.keys() & {f"embedding.{name}" for name in of_items}:
        weights.pop(name)
    tables = {"id.weight": drift.items, "tags.weight": drift.tags}
    if trained.embedding.beside is not None:
        tables["beside.codes"] = np.where(drift.changed, 0, drift.items)
    for table, rows in tables.items():
        name = f"embedding.{table}"
        place = torch.from_numpy(rows)[: len(own[name])]
        known = place > 0
        own[name][known] = weights.pop(name)[place[known]]
    model.load_state_dict(own | weights)


def _is_own(run: Run, dataset: Dataset) -> bool:
    """Whether a dataset has the very catalog that the run was trained on.

    Raises RunError for one of another, if the run carries nothing to serve it by.
    """
    stated = run.summary["dataset"]["fingerprint"] == dataset.fingerprint
    if stated and not run.has_other_ids(dataset.catalog):
        run.require_fit(dataset)
        return True
    if (run.folder / ITEMS).is_file():
        return False
    try:
        run.require_fit(dataset)
    except RunError:
        _ = run.carried  # says why only the run's own would do
        raise
    return True


def _embedded(run: Run, dataset: Dataset) -> np.ndarray:
    """What the run's fitted strategy makes of a dataset's features, of the width that it has."""
    try:
        made = run.carried.strategy.embed(dataset.catalog)
        if (width := run.config["sizes"]["content_width"]) != made.shape[1]:
            raise ValueError(f"its strategy makes {made.shape[1]} numbers, its model reads {width}")
        return made
    except (MMCTRError, ValueError) as error:  # a damaged strategy has arrays that do not fit
        raise RunError(
            f"{run.folder} cannot embed the items of {dataset.folder}: {first_line(error)}"
        ) from error


def _require_comparable(run: Run, carried: Carried, dataset: Dataset) -> None:
    if as_json(dataset.fields) != as_json(run.fields):
        raise RunError(
            f"{run.folder} was trained with other fields, or other values of them, than "
            f"{dataset.folder} was read with: read it by Dataset.load(folder, run.fields)."
        )
    if (column := other_encoder(carried, dataset)) is not None:
        raise RunError(
            f"{dataset.folder} has {column} of another encoder than {run.folder} was trained with: "
            "extract its features with the encoder of the run's data."
        )
