"""The files that a name stands for, and what kind of table each holds."""

import codecs
from pathlib import Path

import pyarrow as pa

from mmctr.errors import DataError

BLANK = b"\xef\xbb\xbf \t\r\n"
KINDS = {
    **dict.fromkeys((".csv", ".tsv", ".txt"), "csv"),
    **dict.fromkeys((".json", ".jsonl", ".ndjson"), "json"),
    **dict.fromkeys((".parquet", ".pq"), "parquet"),
}
COMPRESSED = {".gz": "gzip", ".zst": "zstd", ".zstd": "zstd"}


def files_of(name: Path) -> list[Path]:
    """The files that a name stands for: one, those of a pattern, or the parts in a folder.

    Of a folder what begins with a dot or underscore is left out (_SUCCESS, checksums), and so is
    what has another ending than its tables. Raises DataError if there is none.
    """
    if name.is_file():
        return [name.resolve()]
    if name.is_dir():
        found = [path for path in name.rglob("*") if path.is_file() and _is_part(path, name)]
    else:
        pattern = name.absolute()
        places = Path(pattern.anchor).glob(str(pattern.relative_to(pattern.anchor)))
        found = [path for path in places if path.is_file()]
    if not found:
        raise DataError(
            f"{name} is no file, no folder of tables and no pattern that fits one: name a CSV, "
            "JSON Lines or Parquet table."
        )
    return sorted(path.resolve() for path in found)


def is_utf8(path: Path) -> bool:
    """Whether a file, unpacked, is text in UTF-8, as far as it can be read."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        with pa.input_stream(str(path), COMPRESSED.get(path.suffix.lower())) as file:
            while block := file.read(1 << 20):
                if "\0" in decoder.decode(block):
                    return False
        return decoder.decode(b"", final=True) == ""
    except UnicodeDecodeError:
        return False
    except OSError:  # DuckDB tells of a damaged one
        return True


def start_of(path: Path) -> bytes:
    """How a file begins, unpacked; DuckDB tells of a damaged one."""
    try:
        with pa.input_stream(str(path), COMPRESSED.get(path.suffix.lower())) as file:
            return file.read(1 << 16)
    except OSError:
        return b"?"


def _is_part(path: Path, folder: Path) -> bool:
    inside = path.relative_to(folder).parts
    return not any(part.startswith((".", "_")) for part in inside) and _suffix(path) in KINDS


def _suffix(path: Path) -> str:
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] in COMPRESSED:
        suffixes.pop()
    return suffixes[-1] if suffixes else ""


def kind_of(path: Path, start: bytes) -> str:
    """By the ending, or, if that says nothing, by the first bytes."""
    if kind := KINDS.get(_suffix(path)):
        return kind
    json = start.lstrip(BLANK).startswith((b"{", b"[{"))
    return "parquet" if start.startswith(b"PAR1") else "json" if json else "csv"
