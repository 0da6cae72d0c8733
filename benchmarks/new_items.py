"""New items: every system on the same rows, judged within new, cold and warm items.

Usage: python -m benchmarks.new_items DATASET [DATASET ...] --out FOLDER [--seeds 1,2,3,4,5]
[--systems "boosted trees,mmctr v4"] [--test]. A DATASET is a folder of mmctr data import: one with
--split new-items has targets that training never saw; one with --split date has those that time
brings. Every system and seed is kept in FOLDER as it is finished, so that a broken run goes on.

Everything is chosen on valid: mmctr by early stopping, boosted trees by early stopping among the
settings of TREES. --test scores the test split, for the final table. Popularity levels are those of
train clicks before each row's time, and the negatives of a new item's click are other new items,
none of which has any: neither can tell a click.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from sklearn.ensemble import HistGradientBoostingClassifier
from tqdm.auto import tqdm

from benchmarks.codes import Pooled, product_codes, vq_codes
from mmctr.content.fusion import available_strategies, item_embeddings
from mmctr.content.strategies import IDS, STRATEGIES
from mmctr.data.catalog import Catalog
from mmctr.data.dataset import Dataset
from mmctr.data.impressions import Impressions
from mmctr.errors import ConfigError, MMCTRError
from mmctr.evaluation.new_items import COLD, NEW, WARM, newness, unit_vectors
from mmctr.files import atomic_path, write_json
from mmctr.model.din import DIN
from mmctr.training.config import configs
from mmctr.training.metrics import auc, bootstrap_auc, interval
from mmctr.training.prediction import predict
from mmctr.training.trainer import fit

TOP, RANKED = 20, 100  # length of a list; clicks whose lists are judged, of the first seed
RESAMPLES = 300
TREES = [{"learning_rate": rate, "max_leaf_nodes": 31} for rate in (0.03, 0.1, 0.3)]
REFERENCE = "boosted trees"

Score = Callable[[Impressions], np.ndarray]
System = Callable[[Dataset, int], Score]


def popularity(dataset: Dataset, seed: int) -> Score:
    """Train clicks of the target before the row's time."""
    return dataset.known_clicks


def cosine(medium: str) -> System:
    """Mean cosine of the target with the history, by text or by image; nothing is trained."""

    def system(dataset: Dataset, seed: int) -> Score:
        vectors = media(dataset.catalog)[medium]
        return lambda rows: cosines(rows, vectors)[:, 0]

    return system


def boosted_trees(dataset: Dataset, seed: int) -> Score:
    """Gradient boosting of cosines and tag overlap: what a user would put together."""
    vectors = [*media(dataset.catalog).values(), unit_vectors(tags_of(dataset.catalog))]

    def features(rows: Impressions) -> np.ndarray:
        return np.hstack([cosines(rows, one) for one in vectors])

    train, valid = features(dataset.train), features(dataset.valid)
    found = []
    for setting in TREES:
        trees = HistGradientBoostingClassifier(max_iter=400, random_state=seed, **setting)
        trees.fit(train, dataset.train.label)
        for number, stage in enumerate(trees.staged_decision_function(valid), start=1):
            found.append((auc(dataset.valid.label, stage.ravel()), number, trees, setting))
    _, number, _, setting = max(found, key=lambda one: one[0])
    trees = HistGradientBoostingClassifier(max_iter=number, random_state=seed, **setting)
    trees.fit(train, dataset.train.label)
    return lambda rows: trees.predict_proba(features(rows))[:, 1]


def mmctr(strategy: str, **parameters: object) -> System:
    """mmctr's default with a strategy."""

    def system(dataset: Dataset, seed: int) -> Score:
        model_config, training = configs(seed=seed, **parameters)
        torch.manual_seed(seed)
        embedding = item_embeddings(dataset, strategy)
        model = DIN.for_dataset(model_config, dataset, embedding)
        fit(model, dataset, training)
        return lambda rows: predict(model, rows)

    return system


def quantized(codes: Callable[[np.ndarray], np.ndarray], pooled: bool = False) -> System:
    """mmctr's default with codes of v5 in place of its vectors, by another quantizer than v6's."""

    def system(dataset: Dataset, seed: int) -> Score:
        model_config, training = configs(seed=seed)
        torch.manual_seed(seed)
        model = DIN.for_dataset(model_config, dataset, codes(item_embeddings(dataset, "v5")))
        if pooled:
            model.embedding.semantic_ids = Pooled(model_config.embedding_dim)
        fit(model, dataset, training)
        return lambda rows: predict(model, rows)

    return system


SYSTEMS: dict[str, System] = {
    "popularity": popularity,
    "cosine of text": cosine("text"),
    "cosine of images": cosine("image"),
    REFERENCE: boosted_trees,
    **{f"mmctr {name}": mmctr(name) for name in (IDS, *STRATEGIES)},
    "mmctr v1, identity always known": mmctr("v1", identity_dropout=0),
    "mmctr v4, identity always known": mmctr("v4", identity_dropout=0),
    "mmctr v5, semantic ids beside": mmctr("v5", semantic_ids=True),
    "mmctr product codes": quantized(product_codes),
    "mmctr VQ codes": quantized(vq_codes, pooled=True),
}
UNTRAINED = ("popularity", "cosine of text", "cosine of images")


def serves(name: str, catalog: Catalog) -> bool:
    """Whether a catalog has what a system needs."""
    needed = name.split(",")[0].removeprefix("mmctr ")
    if name.startswith("cosine"):
        return ("image" if "images" in name else "text") in media(catalog)
    needed = "v5" if needed.endswith("codes") else needed
    return needed not in STRATEGIES or needed in available_strategies(catalog)


def media(catalog: Catalog) -> dict[str, np.ndarray]:
    """Unit vectors of text and image features, as far as there are any."""
    features = {"text": catalog.text_features, "image": catalog.image_features}
    return {name: unit_vectors(values) for name, values in features.items() if values is not None}


def tags_of(catalog: Catalog) -> np.ndarray:
    """Tags as 0 and 1, float32 [n_items + 1, tags]; rare ones weigh more (inverse frequency)."""
    result = np.zeros((catalog.n_items + 1, int(catalog.tags.max(initial=0)) + 1), np.float32)
    np.put_along_axis(result, catalog.tags, 1, axis=1)
    result[:, 0] = 0
    return result * np.log((catalog.n_items + 1) / np.maximum(result.sum(axis=0), 1))


def cosines(rows: Impressions, vectors: np.ndarray, latest: int = 64) -> np.ndarray:
    """Of each target with its history: mean, mean of the top 3, largest, latest; float32 [n, 4]."""
    found = np.zeros((len(rows), 4), dtype=np.float32)
    slices, first = np.unique(
        np.stack([rows.history_start, rows.history_end]), axis=1, return_inverse=True
    )
    order = np.argsort(first.ravel(), kind="stable")
    ends = np.cumsum(np.bincount(first.ravel()))
    for (start, end), group in zip(slices.T, np.split(order, ends[:-1]), strict=True):
        items = rows.history_items[max(start, end - latest) : end]
        if len(items):
            cosine = vectors[rows.target[group]] @ vectors[items].T
            ranked = np.sort(cosine, axis=1)
            top = ranked[:, -3:].mean(axis=1)
            found[group] = np.stack(
                [cosine.mean(axis=1), top, ranked[:, -1], cosine[:, -1]], axis=1
            )
    return found


def groups(dataset: Dataset, rows: Impressions) -> dict[str, np.ndarray]:
    """The rows, bool [n], by which each column of the table is measured."""
    of = newness(dataset.train_clicks()[rows.target])
    return {
        **{group: np.asarray(of == group) for group in (NEW, COLD, WARM)},
        "new against all": np.asarray(of == NEW) | (rows.label == 0),
        "all": np.ones(len(rows), dtype=bool),
    }


def ranks(dataset: Dataset, rows: Impressions, score: Score) -> dict[str, np.ndarray]:
    """Where clicked items stand among all that could be shown, and new ones among the new.

    Of RANKED clicks, on new items where there are enough. Items of the history are no candidates;
    of equal scores half stand before.
    """
    clicks, held_out = dataset.train_clicks(), dataset.catalog.held_out
    new = clicks == 0
    if held_out is not None:  # those of the other split were not there to be clicked
        number = 1 if rows is dataset.valid else 2
        new, absent = held_out == number, (held_out > 0) & (held_out != number)
    else:
        absent = np.zeros(len(clicks), dtype=bool)
    clicked = np.flatnonzero(rows.label == 1)
    of_new = clicked[new[rows.target[clicked]]]
    clicked = of_new if len(of_new) >= RANKED else clicked
    chosen = np.random.default_rng(0).permutation(clicked)[:RANKED]
    found = {"all": [], "new": []}
    for row in tqdm(chosen, desc="rank", leave=False):
        target = rows.target[row]
        fit_to_show = ~absent
        fit_to_show[[0, *rows.history(row)]] = False
        fit_to_show[target] = True
        candidates = np.flatnonzero(fit_to_show).astype(np.int32)
        scores = score(_candidates(dataset, rows, row, candidates))
        own = scores[candidates == target]
        for name, among in (("all", np.ones(len(candidates), bool)), ("new", new[candidates])):
            if name == "all" or new[target]:
                others = scores[among & (candidates != target)]
                rank = 1 + (others > own).sum() + (others == own).sum() / 2
                found[name].append(rank)
    return {name: np.array(values, dtype=np.float64) for name, values in found.items()}


def measure(name: str, dataset: Dataset, seed: int, folder: Path, ranked: bool = True) -> None:
    """Run a system and keep its scores of valid and test, and its ranks if they are wanted."""
    started = time.perf_counter()
    score = SYSTEMS[name](dataset, seed)
    seconds = time.perf_counter() - started
    arrays = {}
    for split in ("valid", "test"):
        rows = dataset.split(split)
        arrays[f"{split}_score"] = score(rows).astype(np.float32)
        if ranked:
            arrays |= {f"{split}_{key}": at for key, at in ranks(dataset, rows, score).items()}
    with (
        atomic_path(_file(folder, dataset, name, seed, ".npz")) as temporary,
        temporary.open("wb") as file,
    ):
        np.savez(file, **arrays)
    write_json(_file(folder, dataset, name, seed, ".json"), {"seconds": seconds})


def table(dataset: Dataset, folder: Path, seeds: list[int], split: str) -> pd.DataFrame:
    """A line a system: AUC by group with 95% intervals, the lead over REFERENCE, and of lists.

    Users and seeds are drawn with replacement; the draws of users are the same for all systems.
    """
    rows = dataset.split(split)
    kept = {}
    for name in SYSTEMS:
        files = [_file(folder, dataset, name, seed, ".npz") for seed in seeds]
        if there := [np.load(path) for path in files if path.exists()]:
            kept[name] = there
    lines = {name: {"system": name, "seeds": len(found)} for name, found in kept.items()}
    for group, chosen in groups(dataset, rows).items():
        label = rows.label[chosen]
        if len(np.unique(label)) < 2:
            continue
        scores = [one[f"{split}_score"][chosen] for found in kept.values() for one in found]
        draws = bootstrap_auc(rows.user[chosen], label, np.stack(scores), resamples=RESAMPLES)
        values = np.array([auc(label, score) for score in scores])
        spread, mean, place = {}, {}, 0
        for name, found in kept.items():
            own = slice(place, place := place + len(found))
            mean[name] = values[own].mean()
            drawn = np.random.default_rng(1).integers(len(found), size=(RESAMPLES, len(found)))
            spread[name] = np.take_along_axis(draws[:, own], drawn, axis=1).mean(axis=1)
        for name in kept:
            low, high = interval(spread[name])
            lines[name][group] = f"{mean[name]:.4f} [{low:.4f}, {high:.4f}]"
            if REFERENCE in kept and name != REFERENCE and group == "new":
                low, high = interval(spread[name] - spread[REFERENCE])
                lead = mean[name] - mean[REFERENCE]
                lines[name]["lead, new"] = f"{lead:+.4f} [{low:+.4f}, {high:+.4f}]"
    for name, found in kept.items():
        for among in ("all", "new"):
            key = f"{split}_{among}"
            rank = np.concatenate([np.zeros(0), *(one[key] for one in found if key in one)])
            if len(rank):
                hit = rank <= TOP
                lines[name][f"Recall@{TOP}, {among}"] = f"{hit.mean():.4f}"
                gain = (hit / np.log2(1 + rank)).mean()
                lines[name][f"NDCG@{TOP}, {among}"] = f"{gain:.4f}"
    return pd.DataFrame(lines.values())


def main() -> None:
    """Run the benchmark from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("datasets", nargs="+", type=Path, help="folders of mmctr data import")
    parser.add_argument("--out", type=Path, required=True, help="folder that keeps the results")
    parser.add_argument("--seeds", default="1,2,3,4,5", help="by comma")
    parser.add_argument("--systems", help="by semicolon; all that the data serve if not given")
    parser.add_argument("--test", action="store_true", help="score the test split, at the very end")
    arguments = parser.parse_args()
    seeds = [int(seed) for seed in arguments.seeds.split(",")]
    names = arguments.systems.split(";") if arguments.systems else list(SYSTEMS)
    try:
        if unknown := [name for name in names if name not in SYSTEMS]:
            raise ConfigError(f"System {unknown[0]!r} is unknown: choose of {'; '.join(SYSTEMS)}.")
        arguments.out.mkdir(parents=True, exist_ok=True)
        for folder in arguments.datasets:
            dataset = Dataset.load(folder)
            for name in names:
                for seed in seeds[:1] if name in UNTRAINED else seeds:
                    done = _file(arguments.out, dataset, name, seed, ".json").exists()
                    if serves(name, dataset.catalog) and not done:
                        measure(name, dataset, seed, arguments.out, ranked=seed == seeds[0])
            split = "test" if arguments.test else "valid"
            print(f"{dataset.name}, {split}: {json.dumps(_counts(dataset, split))}")
            print(table(dataset, arguments.out, seeds, split).to_string(index=False, na_rep="-"))
    except MMCTRError as error:
        sys.exit(str(error))


def _counts(dataset: Dataset, split: str) -> dict[str, int]:
    rows = dataset.split(split)
    return {name: int(rows.label[own].sum()) for name, own in groups(dataset, rows).items()}


def _candidates(
    dataset: Dataset, rows: Impressions, row: int, candidates: np.ndarray
) -> Impressions:
    """One row for each candidate, as if it had been shown then."""
    asked = replace(rows.select(np.full(len(candidates), row)), target=candidates)
    if rows.levels is None:
        return asked
    return replace(asked, levels=dataset.popularity.levels(candidates, asked.time))


def _file(folder: Path, dataset: Dataset, name: str, seed: int, suffix: str) -> Path:
    return folder / f"{dataset.name}-{name.replace(' ', '-').replace(',', '')}-seed{seed}{suffix}"


if __name__ == "__main__":
    main()
