"""Extract title and cover features of a dataset: resumable, and shared by ranks of torchrun.

Items are cut into shards of SHARD rows. A shard's file is named by a hash of all that decides its
bytes (encoder, batch size, its titles or covers) and appears whole or not at all, so a killed run
goes on where it was, and a changed title costs one shard. Shards stay in FOLDER/.extraction. On
the CPU a resumed run gives the very bytes of an uninterrupted one with as many threads.
"""

import hashlib
import json
import os
import time
from collections import Counter
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch
from tqdm.auto import tqdm

from mmctr import parallel
from mmctr.content import defaults, image, text
from mmctr.content.alike import alike, places
from mmctr.data import parquet, schema
from mmctr.data.catalog import load_catalog
from mmctr.errors import ConfigError, DataError, first_line
from mmctr.files import alone, atomic_path, existing_folder, write_json

SHARD = 512
WORK = ".extraction"
Shard = tuple[slice, Path]  # rows of item_feature.parquet, and the file with their features
COLUMNS = {text.MEDIUM: schema.TEXT_COLUMN, image.MEDIUM: schema.IMAGE_COLUMN}


@dataclass
class MediumSummary:
    """What one medium took: items encoded now and found from before, seconds by stage."""

    computed: int = 0
    reused: int = 0
    seconds: float = 0.0
    stages: dict[str, float] = field(default_factory=dict)
    errors: dict[str, int] = field(default_factory=dict)
    warning: str = ""


Result = tuple[dict[str, Any], list[Shard], MediumSummary]  # of a medium; facts of its encoder


@dataclass
class Summary:
    """What an extraction did, by medium."""

    items: int
    media: dict[str, MediumSummary]

    def __str__(self) -> str:
        lines = [f"{'items':<18} {self.items:>12,}"]
        for name, medium in self.media.items():
            lines.append(f"{name + ' encoded':<18} {medium.computed:>12,}")
            if medium.reused:
                lines.append(f"{name + ' from before':<18} {medium.reused:>12,}")
            rate = medium.computed / medium.seconds if medium.seconds else 0.0  # by all ranks
            lines.append(f"{name + ' items/s':<18} {rate:>12,.1f}")
            for stage, seconds in medium.stages.items():
                lines.append(f"{f'{name} {stage} s':<18} {seconds:>12,.1f}")
            for reason, count in sorted(medium.errors.items()):
                lines.append(f"{f'{name}: {reason}':<18} {count:>12,}")
            if medium.warning:
                lines.append(f"{name}: {medium.warning}")
        return "\n".join(lines)


def extract(
    folder: Path | str,
    *,
    text_model: str | None = defaults.TEXT_MODEL,
    image_model: str | None = defaults.IMAGE_MODEL,
    image_pretrained: str | None = defaults.IMAGE_WEIGHTS,
    pooling: str = "auto",
    device: torch.device | str = "cpu",
    batch_size: int = 64,
    workers: int | None = None,
    say: Callable[[str], object] = print,
) -> Summary:
    """Write both feature columns into item_feature.parquet; a model of None leaves a medium out.

    Unreadable media get a zero vector and a row in extraction_errors.parquet. Under torchrun each
    rank encodes its share, and rank 0 writes the files. Raises DataError for a folder without
    titles and covers, ModelNotFoundError for a model that cannot be had, ConfigError without one,
    MMCTRError if another process extracts there.
    """
    if not text_model and not image_model:
        raise ConfigError("Text and image model are both none: name at least one of them.")
    folder = existing_folder(folder)
    rank, world = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    # One lock for all ranks; they wait for the slowest, however long it takes.
    lock = alone(folder, "being extracted by") if rank == 0 else nullcontext()
    with lock, parallel.joined("gloo", timedelta(days=7)):
        path = schema.find_file(folder, "item_feature.parquet")
        if path is None:
            raise DataError(
                f"{folder} has no item_feature.parquet: choose the folder of a dataset."
            )
        catalog, table = load_catalog(folder), pq.read_table(path)
        ids = table["item_id"].to_numpy().astype(np.int64)
        speak = say if rank == 0 else lambda _: None
        inputs: dict[str, list[Any]] = {}
        # Covers first: workers are forked before the tokenizer has started its threads.
        if image_model and catalog.covers:
            inputs[image.MEDIUM] = [catalog.covers.get(item) for item in ids.tolist()]
        elif image_model:
            speak(f"{folder} has no covers in item_images, so only the titles are extracted.")
        if text_model and "item_title" in table.column_names:
            inputs[text.MEDIUM] = catalog.titles[ids].tolist()
        elif text_model:
            speak(f"{path} has no column item_title, so only the covers are extracted.")
        if not inputs:
            raise DataError(f"{folder} has no medium to extract: add item_title or item_images.")
        device = torch.device(device)
        results = {}
        for medium, values in inputs.items():
            if medium == image.MEDIUM:
                encoder = image.ImageEncoder(image_model, image_pretrained, device)
                options = {"workers": _workers(device) if workers is None else workers}
            else:
                encoder, options = text.TextEncoder(text_model, pooling, device), {}
            facts = encoder.facts | {"device": device.type, "batch_size": batch_size}
            shards = _shards(folder / WORK, medium, facts, ids, values)
            encode = partial(encoder.encode_shards, batch_size=batch_size, **options)
            own = _encode_missing(medium, encode, shards[rank::world], ids, values)
            results[medium] = facts, shards, _total(parallel.gathered(own))
            del encoder, encode
        if rank == 0:
            _merge(folder, path, table, results)
            if text.MEDIUM in results:
                _, shards, summary = results[text.MEDIUM]
                summary.warning = _alike(inputs[text.MEDIUM], ids, shards)
        return Summary(len(ids), {medium: summary for medium, (_, _, summary) in results.items()})


def _shards(
    work: Path, medium: str, facts: dict[str, Any], ids: np.ndarray, values: list[Any]
) -> list[Shard]:
    """All shards of a medium; a cover is known by name, size and time of change."""
    shards = []
    for start in range(0, len(ids), SHARD):
        rows = slice(start, min(start + SHARD, len(ids)))
        known = [_known(value) for value in values[rows]]
        key = json.dumps([facts, ids[rows].tolist(), known], sort_keys=True, default=str)
        name = hashlib.blake2b(key.encode(), digest_size=16).hexdigest()
        shards.append((rows, work / f"{medium}-{start:08d}-{name}.parquet"))
    return shards


def _known(value: str | Path | None) -> Any:
    if isinstance(value, Path):
        stat = value.stat()
        return value.name, stat.st_size, stat.st_mtime_ns
    return value


def _encode_missing(
    medium: str, encode: Callable, shards: list[Shard], ids: np.ndarray, values: list[Any]
) -> MediumSummary:
    """Encode the shards that have no file yet, writing each as soon as it is done."""
    missing = [(ids[rows], values[rows], path) for rows, path in shards if not path.exists()]
    todo = sum(len(items) for items, _, _ in missing)
    reused = sum(len(ids[rows]) for rows, _ in shards) - todo
    stages: Counter[str] = Counter()
    start = time.perf_counter()
    # A False would overrule TQDM_DISABLE.
    hidden = {"disable": True} if os.environ.get("RANK", "0") != "0" else {}
    bar = tqdm(total=reused + todo, initial=reused, desc=medium, unit=" items", **hidden)
    with bar:
        encoded = encode([part for _, part, _ in missing], advance=bar.update)
        for (items, _, path), (features, reasons, seconds) in zip(missing, encoded, strict=True):
            _write_shard(path, items, features, reasons)
            stages.update(seconds)
    return MediumSummary(todo, reused, time.perf_counter() - start, dict(stages))


def _write_shard(
    path: Path, ids: np.ndarray, features: np.ndarray, reasons: list[str | None]
) -> None:
    """One file with item, features and reason; row 0 of a dataset is padding and stays zero."""
    for row in np.flatnonzero(~np.isfinite(features).all(axis=1)):
        reasons[row] = "not finite"
    features[[reason is not None for reason in reasons] | (ids == 0)] = 0
    reasons = [None if item == 0 else reason for item, reason in zip(ids, reasons, strict=True)]
    columns = {
        "item": ids,
        "features": parquet.float_lists(features),
        "reason": pa.array(reasons, pa.string()),
    }
    with atomic_path(path) as temporary:
        pq.write_table(pa.table(columns), temporary)


def _merge(folder: Path, path: Path, table: pa.Table, results: dict[str, Result]) -> None:
    """Join the shards into item_feature.parquet, extraction_errors.parquet and dataset.json."""
    about_path, errors_path = folder / schema.ABOUT, folder / schema.EXTRACTION_ERRORS
    try:
        about = dict(json.loads(about_path.read_text("utf-8"))) if about_path.exists() else {}
    except (ValueError, TypeError, RecursionError) as error:
        raise DataError(
            f"{about_path} is damaged ({first_line(error)}): mend or delete it and run again, what "
            "was encoded is kept."
        ) from error
    metadata = dict(table.schema.metadata or {})
    encoders = json.loads(metadata.get(schema.ENCODERS, b"{}"))
    errors = {}
    if errors_path.exists():
        old = pq.read_table(errors_path)
        errors = {name: old.filter(pc.equal(old["medium"], name)) for name in COLUMNS}
    for medium in sorted(results, reverse=True):  # text, then image, as the challenge has them
        facts, shards, summary = results[medium]
        for _, shard in shards:  # ranks on other hosts may have other versions or another disk
            if not shard.exists():
                raise DataError(f"{shard} is missing: give all ranks one folder and one mmctr.")
        joined = pa.concat_tables(pq.read_table(shard) for _, shard in shards).combine_chunks()
        column, values = COLUMNS[medium], joined["features"]
        if column in table.column_names:
            table = table.set_column(table.column_names.index(column), column, values)
        else:
            table = table.append_column(column, values)
        encoders[column] = facts
        failed = joined.filter(joined["reason"].is_valid())
        names = pa.array([medium] * len(failed), pa.string())
        errors[medium] = failed.select(["item", "reason"]).add_column(1, "medium", names)
        summary.errors = dict(Counter(failed["reason"].to_pylist()))
    metadata[schema.ENCODERS] = json.dumps(encoders, default=str).encode()
    for unfinished in path.parent.glob(f".{path.name}.*"):  # of a run that was killed
        unfinished.unlink()
    with atomic_path(path) as temporary:
        pq.write_table(table.replace_schema_metadata(metadata), temporary)
    with atomic_path(errors_path) as temporary:
        pq.write_table(pa.concat_tables([errors[name] for name in sorted(errors)]), temporary)
    write_json(about_path, about | {"encoders": encoders})
    current = {shard for _, shards, _ in results.values() for _, shard in shards}
    for stale in (folder / WORK).iterdir():
        if stale.name.lstrip(".").split("-")[0] in results and stale not in current:
            stale.unlink()


def _alike(titles: list[str], ids: np.ndarray, shards: list[Shard]) -> str:
    """What is to be said of items whose titles differ, but not their vectors."""
    found, known = [], []
    for _, shard in shards:  # one by one, since all vectors of a large catalog fill the memory
        read = pq.read_table(shard).combine_chunks()
        vectors = pc.list_flatten(read["features"]).to_numpy().reshape(len(read), -1)
        found.append(places(vectors))
        known.append(read["reason"].is_null().to_numpy())
    rows = np.flatnonzero(np.concatenate(known) & (ids != 0))
    return alike([titles[row] for row in rows], np.concatenate(found)[rows])


def _total(every: list[MediumSummary]) -> MediumSummary:
    """The sum of all ranks' summaries; seconds of the slowest."""
    stages: Counter[str] = Counter()
    for one in every:
        stages.update(one.stages)
    return MediumSummary(
        sum(one.computed for one in every),
        sum(one.reused for one in every),
        max(one.seconds for one in every),
        dict(stages),
    )


def _workers(device: torch.device) -> int:
    """Decoding processes of this rank: its cores, of which a CPU encoder keeps half."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    share = (cores or 1) // int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    return max(1, min(16, share // 2 if device.type == "cpu" else share))
