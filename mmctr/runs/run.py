"""A run: the folder that keeps a trained model, its parameters, its metrics and its predictions."""

import hashlib
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from safetensors import SafetensorError, safe_open

from mmctr.content.fusion import available_strategies, embed, embedding_hash, vectors
from mmctr.content.strategies import FROM_CLICKS, IDS
from mmctr.data.catalog import Catalog
from mmctr.data.dataset import Dataset
from mmctr.data.erroneous import Exclusion
from mmctr.data.fields import Field, as_json
from mmctr.errors import ConfigError, DataError, MMCTRError, RunError, first_line
from mmctr.files import find, home
from mmctr.model.din import DIN
from mmctr.model.pretrained import CONFIG, WEIGHTS
from mmctr.runs import carried, forms
from mmctr.runs.card import first_look, run_card
from mmctr.runs.carried import Carried
from mmctr.runs.provenance import has_other_ids
from mmctr.training.config import changes, stated
from mmctr.training.metrics import corrected

if TYPE_CHECKING:
    from mmctr.runs.grown import Drift
# Share of the mean square, or of items with other semantic ids, by which the same embedding may
# differ.
CONTENT_TOLERANCE = 1e-2


@dataclass(frozen=True)
class Run:
    """A finished run, read from its folder."""

    folder: Path
    config: dict[str, Any]
    summary: dict[str, Any]

    @classmethod
    def load(cls, folder: Path | str) -> "Run":
        """Read a run folder; RunError if it is missing, unfinished or damaged."""
        folder = Path(folder)
        for name in (CONFIG, forms.SUMMARY, WEIGHTS, forms.HISTORY, forms.PREDICTIONS):
            if not (folder / name).is_file():
                raise RunError(
                    f"{folder} is not a finished run, {name} is missing: choose a folder that "
                    "mmctr train has written."
                )
        config = forms.read_json(folder / CONFIG, forms.ConfigForm)
        return cls(folder, config, forms.read_json(folder / forms.SUMMARY, forms.SummaryForm))

    @property
    def name(self) -> str:
        """The run's id."""
        return self.folder.name

    @property
    def address(self) -> str:
        """Its name below runs/, elsewhere its folder: `find_run` takes either."""
        below, folder = (home() / "runs").resolve(), self.folder.resolve()
        return str(folder.relative_to(below) if folder.is_relative_to(below) else folder)

    @property
    def strategy(self) -> str:
        """The strategy that made the item embeddings."""
        return self.config["strategy"]

    @property
    def seed(self) -> int:
        """The seed of training."""
        return self.config["training"]["seed"]

    @property
    def first_look(self) -> str:
        """How much of train it learned from, in words; empty if it was all of it."""
        return first_look(self.summary)

    @property
    def configuration(self) -> dict[str, Any]:
        """All that training was given but the seed: strategy, parameters, what was left out as
        erroneous (exclude, by kind), and the run that it started from (from, by name)."""
        return {"strategy": self.strategy, **self._stated, **self._besides}

    @property
    def changes(self) -> dict[str, Any]:
        """What of it differs from the defaults but for the strategy, in the fewest words: a preset,
        parameters, exclude, from."""
        return changes(self._stated) | self._besides

    @property
    def _stated(self) -> dict[str, Any]:
        return stated(self.config.get("model", {}) | self.config["training"])

    @property
    def _besides(self) -> dict[str, str]:
        left_out, origin = self.exclusion, self.config.get("origin")
        besides = {} if left_out is None else {"exclude": ",".join(left_out.kinds)}
        return besides if origin is None else besides | {"from": origin["name"]}

    @cached_property
    def history(self) -> pd.DataFrame:
        """A row each validation: epoch, train_loss, auc, logloss, learning_rate, seconds."""
        return forms.read_history(self.folder / forms.HISTORY)

    @cached_property
    def predictions(self) -> pd.DataFrame:
        """The valid split in the order of its file: user, target, label, probability."""
        return self._scored()

    @cached_property
    def valid_rows(self) -> str:
        """A hash of users, targets and labels of the valid split: the same only for the same rows.

        Predictions are not kept for it, so that many runs can be asked.
        """
        table, digest = self._scored(), hashlib.sha256()
        for name in ("user", "target", "label"):
            digest.update(table[name].to_numpy(np.float64).tobytes())
        return digest.hexdigest()[:16]

    def _scored(self) -> pd.DataFrame:
        table = forms.read_predictions(self.folder / forms.PREDICTIONS)
        wanted = self.summary["dataset"].get("rows", {}).get("valid", len(table))
        if len(table) != wanted:
            raise RunError(
                f"{self.folder / forms.PREDICTIONS} has {len(table)} rows, expected {wanted} as in "
                f"{forms.SUMMARY}: train the model again."
            )
        return table

    @cached_property
    def carried(self) -> Carried:
        """What it keeps for other catalogs; RunError if it is damaged, or older than that."""
        return carried.read(self.folder, self.config["sizes"]["n_items"], self.strategy)

    @cached_property
    def fields(self) -> tuple[Field, ...]:
        """The fields that it reads, with their vocabularies, for Dataset.load; mostly none."""
        return forms.fields_in(self.config, self.folder / CONFIG)

    @cached_property
    def exclusion(self) -> Exclusion | None:
        """The erroneous entries that it was trained without; None if nothing was left out."""
        return forms.exclusion_in(self.config, self.folder / CONFIG)

    def without_excluded(self, dataset: Dataset) -> Dataset:
        """A dataset as the run reads it: without what it excluded, unless that was done already."""
        return dataset if self.exclusion is None else self.exclusion.of(dataset)

    def model(self, in_shards: bool = False) -> DIN:
        """The trained model, on the CPU and ready to predict.

        Its card says what the run knows. in_shards: if it was trained with shard_items, each of
        torchrun's processes has its share of the items' tables again. Raises RunError unless the
        weights are those of the configuration; no memory is taken before their shapes are known to
        fit.
        """
        in_shards = in_shards and self.config["training"].get("shard_items", False)
        model = DIN.load(self.folder, self.config["model"], self.config["sizes"], in_shards)
        model.card = run_card(self.config, self.summary)
        return model

    def adapted(self, dataset: Dataset, in_shards: bool = False) -> "tuple[DIN, Drift | None]":
        """The model for the catalog of any dataset, and how far that is from the run's own.

        See `grown.adapted`, which says what is refused.
        """
        from mmctr.runs.grown import adapted

        return adapted(self, dataset, in_shards)

    def item_embeddings(self, catalog: Catalog) -> np.ndarray | None:
        """Embed a catalog as the run's own was embedded: by the strategy fitted to these items, or
        by the one that was fitted to clicks, or by the run that it started from. What the run
        excluded is unknown.
        """
        if self.exclusion is not None:
            catalog = self.exclusion.of_catalog(catalog)
        learned = "origin" in self.config or self.strategy in FROM_CLICKS
        if learned and self.carried.strategy is not None:
            return self.carried.strategy.embed(catalog)
        return None if self.strategy == IDS else embed(catalog, self.strategy)[0]

    def vectors(self, catalog: Catalog) -> np.ndarray | None:
        """What items look like to its strategy, float32 [n_items + 1, width]; None for "ids"."""
        made = self.item_embeddings(catalog)
        quantized = made is not None and made.dtype.kind == "i"
        return vectors(made, self.carried.strategy.transformer) if quantized else made

    def corrected(self, probability: np.ndarray, click_rate: float | None = None) -> np.ndarray:
        """Probabilities where a share of clicks is known, or the one that the run was trained with.

        As they are if none is known. Raises RunError for a run that does not say what share it
        learned from.
        """
        rates = self.summary.get("click_rate", {})
        known = click_rate or rates.get("known")
        if known is None:
            return probability
        if rates.get("train") is None:
            raise RunError(
                f"{self.folder} does not say what share of clicks it learned from, which a click "
                "rate is compared with: train the model again."
            )
        return corrected(probability, rates["train"], known)

    def require_fit(self, dataset: Dataset) -> None:
        """Raise RunError unless the dataset has the very items that the run was trained on.

        Their number, own ids, tags and content are compared; rows may be others, as for new
        predictions.
        """
        catalog, sizes = dataset.catalog, self.config["sizes"]
        own = f"choose the run's own dataset, {self.summary['dataset']['folder']}."
        for name, value in (("n_items", catalog.n_items), ("tags_per_item", catalog.tags.shape[1])):
            if value != sizes[name]:
                raise RunError(
                    f"{self.folder} was trained with {name} = {sizes[name]}, but {dataset.folder} "
                    f"has {value}: {own}"
                )
        if as_json(dataset.fields) != self.config.get("fields", []):
            raise RunError(
                f"{self.folder} was trained with other fields, or other values of them, than "
                f"{dataset.folder} has: {own}"
            )
        other = None
        if self.has_other_ids(catalog):
            other = "ids"
        elif not np.array_equal(self.tensor("embedding.item_tags"), catalog.tags):
            other = "tags"
        elif self.summary["dataset"]["fingerprint"] != dataset.fingerprint:
            other = "content" if self.has_other_content(catalog) else None
        if other:
            raise RunError(
                f"{self.folder} was trained on items with other {other} than those of "
                f"{dataset.folder}: {own}"
            )

    def has_other_ids(self, catalog: Catalog) -> bool:
        """Whether items have other own ids than the run's: their row numbers then mean others."""
        return has_other_ids(self.summary["dataset"], catalog)

    def has_other_content(self, catalog: Catalog) -> bool:
        """Whether the run's strategy makes other item embeddings of a catalog than the run has.

        Embeddings that training changed, and those that the catalog has no features for, pass.
        """
        finetuned = self.config["model"].get("content") == "finetuned"
        if finetuned or self.strategy not in available_strategies(catalog):
            return False
        try:
            made = self.item_embeddings(catalog)
        except (ConfigError, DataError):  # features are narrower than they were
            return True
        kept = self.tensor("embedding.content")
        if made.shape != kept.shape:
            return True
        if kept.dtype.kind == "i":
            return float((made != kept).any(axis=1).mean()) > CONTENT_TOLERANCE
        # Another machine may turn components of equal variance: products of rows stay the same.
        scale = np.square(kept).sum(axis=1).mean()
        return any(
            not np.allclose(
                (made[shift:] * made[: len(made) - shift]).sum(axis=1),
                (kept[shift:] * kept[: len(kept) - shift]).sum(axis=1),
                rtol=0,
                atol=CONTENT_TOLERANCE * scale,
            )
            for shift in (0, 1)
        )

    def content_hash(self) -> str:
        """`embedding_hash` of the item embedding that the weights hold."""
        return embedding_hash(self.tensor("embedding.content"))

    def weights_hash(self) -> str:
        """SHA-256 of the file of its weights, by which a run that starts from it knows it again."""
        with (self.folder / WEIGHTS).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    def tensor(self, name: str) -> np.ndarray:
        """One array of the weights; the others are not read."""
        try:
            with safe_open(self.folder / WEIGHTS, "np") as file:
                return file.get_tensor(name)
        except (SafetensorError, OSError) as error:
            raise RunError(
                f"{self.folder}: {WEIGHTS} has no readable {name} ({first_line(error)}): train "
                "the model again."
            ) from error


def find_run(name: Path | str) -> Run:
    """A run by its folder, or by its name below runs/; RunError if there is none or damaged."""
    for folder in (find(name), home() / "runs" / name):
        if folder.is_dir():
            return Run.load(folder)
    raise RunError(
        f"Found no run {str(name)!r}, expected a folder or the name of one below "
        f"{home() / 'runs'}: mmctr runs lists them."
    )


def readable_runs(folders: Iterable[Path]) -> list[Run]:
    """The finished runs among these folders, in their order; what cannot be read is left out."""
    runs = []
    for folder in folders:
        with suppress(MMCTRError):
            runs.append(Run.load(folder))
    return runs
