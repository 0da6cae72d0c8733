"""Covers of any format, from a folder or a table, copied under the items' numbers."""

import shutil
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

from mmctr.data import schema
from mmctr.data.importing.items import Items
from mmctr.data.importing.labels import text
from mmctr.data.importing.recipe import Recipe
from mmctr.data.importing.sources import Source, id_text, quoted
from mmctr.errors import DataError


def copy_covers(
    covers: Path | Source, items: Items, recipe: Recipe, folder: Path
) -> dict[str, int]:
    """Copy the covers of items; how many were found, are missing and left over.

    covers: a folder whose files are named by item id, at any depth, with or without an ending; or
    a table of the id and a path (seen from the table's folder) or the picture's bytes. What is no
    picture of a format that extraction decodes is left over.
    """
    number = {name: n for n, name in enumerate(items.ids.to_pylist(), start=1)}
    folder.mkdir()
    found: set[int] = set()
    left_over = 0
    pictures = _of_folder(covers) if isinstance(covers, Path) else _of_table(covers, recipe)
    for names, picture in pictures:
        item = next((number[name] for name in names if name in number), None)
        suffix = _suffix(picture) if item is not None and item not in found else None
        if suffix is None:
            left_over += 1
            continue
        found.add(item)
        target = folder / f"{item}{suffix}"
        if isinstance(picture, bytes):
            target.write_bytes(picture)
        else:
            shutil.copyfile(picture, target)
    if not found:
        name, first = (covers.name if isinstance(covers, Source) else covers), items.ids[0]
        raise DataError(
            f"{name} has a cover for 0 of {len(items):,} items: expected pictures that are named "
            f"by item id, such as {first}.jpg, or a table of such ids and pictures."
        )
    missing = len(items) - len(found)
    return {"covers": len(found), "without_cover": missing, "covers_left_over": left_over}


def _of_folder(folder: Path) -> Iterator[tuple[list[str], Path]]:
    """Each file of a folder with the ids that it may be named by."""
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        if not any(part.startswith(".") for part in path.relative_to(folder).parts):
            yield [path.name, path.stem], path


def _of_table(source: Source, recipe: Recipe) -> Iterator[tuple[list[str], Path | bytes]]:
    key = recipe.covers_id_column or recipe.items_id_column or recipe.item_column
    source.require(key)
    others = [name for name in source.columns if name != key]
    pictures = {name: f"{quoted(name)}" for name in others if source.kind(name) == "BLOB"}
    for name in others:  # as Hugging Face's datasets have pictures
        if source.columns[name].startswith("STRUCT") and "bytes" in source.columns[name]:
            pictures[name] = f"{quoted(name)}.bytes"
    paths = {
        name: text(source, name) for name in others if source.kind(name) in ("VARCHAR", "JSON")
    }
    if not pictures and not paths:
        raise DataError(
            f"{source.name} has no column of pictures, only {', '.join(source.columns)}: expected "
            "paths or bytes beside the item id."
        )
    chosen = next(
        iter({**pictures, **{n: p for n, p in paths.items() if "path" in n}, **paths}.values())
    )
    sql = f"SELECT {id_text(source, key)} AS id, {chosen} AS picture FROM {{source}} ORDER BY id"
    base = Path(source.name).parent
    rows = (row for batch in source.batches(sql, 256) for row in batch.to_pylist())
    for row in rows:
        name, picture = row["id"], row["picture"]
        if isinstance(picture, str):
            path = base / picture
            picture = path if path.is_file() else None
        yield [name] if name is not None and picture is not None else [], picture


def _suffix(picture: Path | bytes) -> str | None:
    """The ending for a picture of a format that is decoded; None for any other file."""
    from PIL import Image

    try:
        with Image.open(BytesIO(picture) if isinstance(picture, bytes) else picture) as image:
            return schema.COVER_FORMATS.get(image.format)
    except Exception:  # Pillow's readers raise nearly anything
        # A damaged picture is kept as what its name says, so that extraction can tell of it.
        named = picture.suffix.lower() if isinstance(picture, Path) else ""
        return named if named in schema.COVER_SUFFIXES else None
