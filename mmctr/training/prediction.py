"""Score impressions with a trained model and write the scores."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_linear_bn_eval

from mmctr.bars import bar_if_long
from mmctr.data.dataset import Dataset
from mmctr.data.impressions import Impressions
from mmctr.devices import autocast, number_format, tuned
from mmctr.errors import ConfigError, DataError, RunError, first_line
from mmctr.files import atomic_path
from mmctr.model.din import DIN
from mmctr.training.batches import Batches


@torch.inference_mode()
def predict(
    model: DIN, rows: Impressions, batch_size: int = 4096, precision: str = "auto"
) -> np.ndarray:
    """Click probabilities of impressions, float32 [n]; precision as for training.

    Rows that all share one history, as the candidates for one user do, share its keys. Raises
    DataError for an item that the model does not know.
    """
    if not len(rows):
        return np.zeros(0, dtype=np.float32)
    for ids in (rows.target, rows.history_items):
        _require_known(ids, model.n_items)
    was_training = model.training
    model.eval()
    start, end = rows.history_start, rows.history_end
    one_history = bool((start == start[0]).all() and (end == end[0]).all())
    batches = Batches(rows, model).in_order(batch_size, one_history=one_history)
    batches = bar_if_long(batches, -(-len(rows) // batch_size), "predict")
    with tuned(model.device), autocast(model.device, precision):
        logits = [model(batch) for batch in batches]
    model.train(was_training)
    return torch.cat(logits).float().sigmoid().cpu().numpy()


class Adaptable(Protocol):
    """A run, as this room may know one: it gives its model for the catalog of a dataset."""

    def adapted(self, dataset: Dataset) -> tuple[DIN, object]:
        """The model, and what is to be said of it."""
        ...


class Scorer:
    """Scores the candidates for one user after another, as a recommender serves them.

    All that depends on an item alone is computed once, and kept for as long as the scorer lives,
    [n_items + 1, width] each: its vector, and what it is to the attention as a target and as a
    click. They are copies: later training leaves them as they are. precision as for training.
    compiled: have torch.compile join what lies between the matrix products: on a CPU up to a fifth
    less time. The first call for each number of candidates takes seconds, and 8 are compiled.
    """

    @torch.inference_mode()
    def __init__(self, model: DIN, precision: str = "auto", compiled: bool = False) -> None:
        training, items = model.training, torch.arange(model.n_items + 1, device=model.device)
        self.precision, self.device, self.n_items = precision, model.device, model.n_items
        dtype = number_format(self.device, precision)
        model.eval()
        vectors = torch.cat([model.embedding(part).to(dtype) for part in items.split(65_536)])
        model.train(training)
        # The item vectors stand for the embedding tables, which are not copied.
        self.model = copy.deepcopy(model, {id(model.embedding): None}).eval()
        if self.model.dnn is not None:
            self.model.dnn = nn.Sequential(*_without_batch_norm(self.model.dnn))
        self.model.to(dtype)
        attention, seen = self.model.attention, vectors[:, : model.history_width]
        self.vectors, self.targets = vectors, attention.as_targets(seen)
        self.clicks, self.content = attention.as_clicks(seen), None
        if model.similarity:
            self.content = model.similarity.as_items(model.embedding.content)
        self.logits = _compiled(self._logits) if compiled else self._logits

    @classmethod
    def of(cls, run: Adaptable, dataset: Dataset, **options: Any) -> "Scorer":
        """The scorer of a run for the catalog of any dataset, new items included.

        dataset: read by Dataset.load(folder, run.fields); options: precision and compiled. Raises
        RunError for data that the run cannot serve.
        """
        return cls(run.adapted(dataset)[0], **options)

    @torch.inference_mode()
    def __call__(
        self, history: np.ndarray, candidates: np.ndarray, fields: np.ndarray | None = None
    ) -> np.ndarray:
        """Click probabilities of the candidates, float32 [n], for one user.

        history: numbers of items, int [clicks], the latest last, of which max_history are read;
        candidates: those to score, int [n]. `catalog.numbers` has the numbers of own ids. fields:
        codes of the user's and the context's fields, int [fields], unknown if not given. Raises
        DataError for what is not in the catalog, ConfigError if the compiler that compiled=True
        needs is not there.
        """
        if not len(candidates):
            return np.zeros(0, dtype=np.float32)
        ids, clicked = self._ids(candidates), self._ids(history[-self.model.config.max_history :])
        vectors, targets = self.vectors.index_select(0, ids), self.targets.index_select(0, ids)
        with tuned(self.device), autocast(self.device, self.precision):
            known = self.model.row_vectors(self._codes(fields)).expand(len(ids), -1)
            if self.content is not None:
                own, theirs = (self.content.index_select(0, one) for one in (ids, clicked))
                similar = self.model.similarity.of_one_history(own, theirs)
                known = torch.cat([similar.to(known.dtype), known], dim=1)
            logits = self.logits(vectors, targets, self.clicks.index_select(0, clicked), known)
        return logits.float().sigmoid().cpu().numpy()

    def _logits(self, vectors: Tensor, targets: Tensor, clicks: Tensor, known: Tensor) -> Tensor:
        interest = self.model.attention.of_one_history(targets, clicks)
        return self.model.score(torch.cat([vectors, interest, known], dim=1))

    def _codes(self, fields: np.ndarray | None) -> Tensor:
        sizes = self.model.field_sizes
        sizes = np.array([*sizes.get("user", ()), *sizes.get("context", ())], dtype=np.int64)
        codes = np.zeros(len(sizes), np.int64) if fields is None else np.asarray(fields, np.int64)
        if codes.shape != sizes.shape or ((codes < 0) | (codes >= sizes)).any():
            raise DataError(
                f"Found fields {codes.tolist()}, expected {len(sizes)} codes below "
                f"{sizes.tolist()}: Field.codes gives those of values."
            )
        return torch.from_numpy(codes)[None].to(self.device)

    def _ids(self, ids: np.ndarray) -> torch.Tensor:
        ids = np.asarray(ids)
        if len(ids) and ids.dtype.kind not in "iu":  # the id 0007 is not the number 7
            raise DataError(
                f"Found item {ids.tolist()[0]!r}, expected its number: catalog.numbers gives those "
                "of own ids."
            )
        _require_known(ids, self.n_items)
        return torch.from_numpy(ids.astype(np.int64)).to(self.device)


def _compiled(logits: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """The same function of vectors, targets and clicks, compiled."""
    # Imported here, because it takes seconds.
    from torch._dynamo.exc import BackendCompilerFailed

    compiled = torch.compile(logits)

    def run(vectors: Tensor, targets: Tensor, clicks: Tensor, known: Tensor) -> Tensor:
        # Products of matrices of any height are compiled to code that takes four times as long.
        for candidates in (vectors, targets, known):
            torch._dynamo.mark_static(candidates, 0)
        torch._dynamo.maybe_mark_dynamic(clicks, 0)
        try:
            return compiled(vectors, targets, clicks, known)
        except BackendCompilerFailed as error:
            raise ConfigError(
                "Scorer(compiled=True) found no compiler that works for torch.compile "
                f"({first_line(error)}): install one, such as g++, or leave compiled out."
            ) from error

    return run


def write_predictions(
    path: Path, dataset: Dataset, rows: Impressions, probability: np.ndarray
) -> None:
    """Write a CSV with a line a row: ID (row number from 0), user_id, item_id, probability.

    Users and items of the dataset have their own ids, to be joined to the tables they come from.
    Raises RunError for a probability that is not a number.
    """
    wrong = np.flatnonzero(~np.isfinite(probability))
    if len(wrong):
        raise RunError(
            f"The probability of row {wrong[0]} is {probability[wrong[0]]}, expected 0 to 1: the "
            "run's weights are unusable, train the model again."
        )
    table = pd.DataFrame(dataset.ids(rows) | {"probability": probability})
    with atomic_path(path) as temporary:
        table.to_csv(temporary, index_label="ID")


def write_submission(path: Path, probability: np.ndarray) -> None:
    """Write the challenge's zip: prediction.csv with columns ID (from 0) and Task2."""
    kind = {"method": "zip", "archive_name": "prediction.csv"}
    with atomic_path(path) as temporary:
        pd.DataFrame({"Task2": probability}).to_csv(temporary, index_label="ID", compression=kind)


def _require_known(ids: np.ndarray, n_items: int) -> None:
    """Raise DataError for a number outside 1 to n_items."""
    if len(ids) and not 1 <= ids.min() <= ids.max() <= n_items:
        wrong = ids.min() if ids.min() < 1 else ids.max()
        raise DataError(
            f"Found item number {wrong}, expected 1 to {n_items}, the rows of the catalog that the "
            "model was trained on: leave out the others."
        )


def _without_batch_norm(layers: nn.Sequential) -> list[nn.Module]:
    """Layers for prediction, each batch normalisation taken into a copy of the one before it."""
    kept: list[nn.Module] = []
    for layer in layers:
        if isinstance(layer, nn.BatchNorm1d):
            kept[-1] = fuse_linear_bn_eval(kept[-1], layer)
        else:
            kept.append(layer)
    return kept
