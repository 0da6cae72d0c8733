"""The files of a dataset and their columns.

The files are those of the MMCTR Challenge (MicroLens_1M_x1), nested as published or all in one
folder.
"""

import json
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

from mmctr.data.address import Address
from mmctr.errors import DataError, first_line

NESTED_FOLDER = "MicroLens_1M_x1"
SPLITS = ("train", "valid", "test")
FILES = (
    *(f"{split}.parquet" for split in SPLITS),
    "item_info.parquet",
    "item_feature.parquet",
    "item_emb.parquet",
    "truth.parquet",
    "fields.json",
    "item_fields.parquet",
    "user_fields.parquet",
)
FIELDS, ITEM_FIELDS, USER_FIELDS = FILES[-3:]  # of an import: what else is known of a row
MAX_TAG = 1_000_000  # tags number the rows of a table, so a huge one is an error
LEVEL_COLUMNS = ("likes_level", "views_level")
LEVELS = 11  # of each of them: 0 = unknown, 1..10
TEXT_COLUMN = "txt_emb_BERT"
IMAGE_COLUMN = "img_emb_CLIPRN50"
EXTRACTION_ERRORS = "extraction_errors.parquet"  # item, medium, reason
ERRORS = "errors.parquet"  # of mmctr data clean: what, id, kind, score, excluded
ERROR_KINDS = (
    b"mmctr.kinds"  # metadata key of it: JSON, the reason of each kind that was looked for
)
PLANTED = "planted.parquet"  # of simulated data: what, id, kind of errors that were made on purpose
NEGATIVES = b"mmctr.negatives"  # metadata key of a split whose negatives were drawn: how
Sampling = Literal["uniform", "popularity"]  # as likely as any other item, or as train clicks
# Where negatives come from: shown and not clicked, tried and not liked, drawn by the import.
NegativesFrom = Literal["shown", "outcome", "sampled", "unknown"]
ABOUT = "dataset.json"  # what a dataset was made of, and where splits are that lie elsewhere
ENCODERS = b"mmctr.encoders"  # metadata key of item_feature.parquet: JSON, facts by column
ITEM_IDS, USER_IDS = "item_ids.parquet", "user_ids.parquet"  # of an import: number, original_id
TAG_NAMES = "tags.parquet"  # of an import: tag, name
# The ending of a cover by its format in Pillow's words; formats that start programs stay out.
COVER_FORMATS = {
    "JPEG": ".jpg",
    "PNG": ".png",
    "WEBP": ".webp",
    "GIF": ".gif",
    "AVIF": ".avif",
    "BMP": ".bmp",
    "TIFF": ".tif",
    "MPO": ".mpo",
    "JPEG2000": ".jp2",
    "ICO": ".ico",
    "PPM": ".ppm",
}
COVER_SUFFIXES = (*COVER_FORMATS.values(), ".jpeg", ".tiff")
# The kinds of values that a column may hold, in the words of an error message.
INTEGER, TEXT = "whole numbers", "text"
INTEGER_LIST, FLOAT_LIST = "lists of whole numbers", "lists of numbers"
NUMBER = "numbers"
IMPRESSION_COLUMNS = {
    "user_id": INTEGER,
    "item_seq": INTEGER_LIST,
    "item_id": INTEGER,
    "likes_level": INTEGER,
    "views_level": INTEGER,
    "label": NUMBER,
    "time": INTEGER,
    "impression_id": INTEGER,
}
ITEM_COLUMNS = {
    "item_id": INTEGER,
    "item_title": TEXT,
    "item_tags": INTEGER_LIST,
    "likes_level": INTEGER,
    "views_level": INTEGER,
    TEXT_COLUMN: FLOAT_LIST,
    IMAGE_COLUMN: FLOAT_LIST,
    "held_out": INTEGER,
}
PREDICTION_COLUMNS = {"user": INTEGER, "target": INTEGER, "label": NUMBER, "probability": NUMBER}
OWN_ID_COLUMNS = {"user_id": TEXT, "item_id": TEXT}  # beside them, in the user's words
TRUTH_COLUMNS = {"split": TEXT, "row": INTEGER, "probability": NUMBER}
TOPIC_COLUMNS = {"theme": TEXT, "format": TEXT, "look": TEXT}  # and vectors; simulated data only
ERROR_COLUMNS = {"item": INTEGER, "medium": TEXT, "reason": TEXT}
NAME_COLUMNS = {"original_id": TEXT, "tag": INTEGER, "name": TEXT}  # of what an import writes
AVAILABLE = "available_since"  # of item_feature.parquet: when it came, nanoseconds since 1970
KINDS = IMPRESSION_COLUMNS | ITEM_COLUMNS | TRUTH_COLUMNS | TOPIC_COLUMNS | ERROR_COLUMNS
KINDS |= (
    PREDICTION_COLUMNS | NAME_COLUMNS | {AVAILABLE: INTEGER}
)  # every column that has a name of its own, in whatever file


def find_file(folder: Path, name: str) -> Path | Address | None:
    """Where a dataset's file is, nested as published or directly in the folder.

    A split may also be a folder of that name, with its rows in parts, or where dataset.json says:
    {"train": "s3://bucket/train"}.
    """
    candidates = (folder / NESTED_FOLDER / name, folder / name)
    split = name.removesuffix(".parquet")
    in_parts = split in SPLITS
    found = (path for path in candidates if path.is_file() or (in_parts and path.is_dir()))
    return next(found, None) or (_elsewhere(folder, split) if in_parts else None)


def about(folder: Path) -> dict[str, Any]:
    """What dataset.json says; nothing without one, DataError if it is damaged."""
    path = folder / ABOUT
    try:
        return dict(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else {}
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise DataError(f"{path} is damaged ({first_line(error)}): import it again.") from error


def _elsewhere(folder: Path, split: str) -> Path | Address | None:
    """Where dataset.json says that a split is; None if it does not."""
    said = about(folder).get(split)
    if isinstance(said, str) and "://" in said:
        return Address(said, folder)
    if said in (None, ""):
        return None
    # What cannot be a path, or may not be asked for, is as one that is not there.
    with suppress(OSError, ValueError, TypeError, RuntimeError):
        if (path := folder / Path(said).expanduser()).exists():
            return path
    raise DataError(
        f"{folder / ABOUT} has {split} {said!r:.300}, expected a path that is there or an address "
        f"such as s3://bucket/{split}: correct it."
    )
