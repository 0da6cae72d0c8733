"""Splits that lie elsewhere: tables at an address of fsspec, such as s3://bucket/train.

Their files are brought over one at a time, while they are read, so that no machine needs room for
all. How a store is reached (a package such as s3fs, keys, an endpoint) is set as fsspec has it. A
file that was read through is known by its hash as long as the store says that it has not changed.
"""

import hashlib
import json
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from mmctr.errors import DataError, MMCTRError, first_line
from mmctr.files import FULL, write_json

HASHES = Path(".cache/mmctr-hashes.json")  # of a dataset's folder: by address and version
# What stores call that by which a changed file is known, the surest first.
VERSIONS = ("etag", "contentmd5", "md5hash", "generation", "mtime", "modificationtime")
VERSIONS += ("lastmodified", "modified", "modify", "updated", "created")

_hashes: dict[str, bytes] = {}  # of what this process has read


@dataclass(frozen=True)
class Address:
    """A file or a folder of files that fsspec reaches: of a path what reading a table asks for.

    folder: the dataset's. facts: what a listing says of it. copy: its bytes, while they are here.
    """

    url: str
    folder: Path
    facts: dict[str, Any] = field(default_factory=dict)
    copy: Path | None = None

    def __str__(self) -> str:
        return self.url

    @property
    def name(self) -> str:
        """The last part of it."""
        return PurePosixPath(self.url).name

    @property
    def suffix(self) -> str:
        """The ending of the name."""
        return PurePosixPath(self.url).suffix

    def is_dir(self) -> bool:
        """Whether it is a folder; over HTTP that is an address that ends in a slash."""
        return self.url.endswith("/") or (self.facts or self._asked)["type"] == "directory"

    def iterdir(self) -> Iterator["Address"]:
        """What is in a folder now."""
        with self.reaching():
            system, path = self._place
            system.invalidate_cache()
            listed = system.ls(path, detail=True)
        for facts in listed:
            if facts["name"].rstrip("/") != path.rstrip("/"):  # stores may mark a folder so
                yield Address(system.unstrip_protocol(facts["name"]), self.folder, facts)

    def open(self) -> BinaryIO:
        """Its bytes, of which no more come over than are read."""
        if self.copy:
            return self.copy.open("rb")
        with self.reaching():
            system, path = self._place
            return system.open(path, "rb")

    @contextmanager
    def brought(self) -> Iterator["Address"]:
        """The same with a copy on this machine, for a block; its hash is known from then on."""
        version = self.version  # before the bytes: of what changes meanwhile the next one differs
        with self.reaching():
            system, path = self._place
            here = tempfile.TemporaryDirectory(prefix="mmctr-")
        with here:
            copy = Path(here.name, "copy.parquet")
            with self.reaching():
                system.get_file(path, str(copy))
                with copy.open("rb") as file:
                    _hashes[version] = hashlib.file_digest(file, "sha256").digest()
            yield replace(self, copy=copy)

    @property
    def version(self) -> str:
        """The address with size and version of the file; DataError if the store tells none."""
        told = _version(self.facts) or _version(self._asked)
        if told:
            return f"{self.url} {told}"
        raise DataError(
            f"{self.url} has neither a version nor a time, by which a change of it could be seen: "
            f"bring it over into {self.folder}."
        )

    @cached_property
    def _asked(self) -> dict[str, Any]:
        with self.reaching():
            system, path = self._place
            system.invalidate_cache()
            return system.info(path)

    @cached_property
    def _place(self) -> tuple[Any, str]:
        from fsspec.core import url_to_fs

        return url_to_fs(self.url)

    @contextmanager
    def reaching(self) -> Iterator[None]:
        """Turn whatever a store raises into a sentence."""
        try:
            yield
        except MMCTRError:
            raise
        except ImportError as error:
            raise DataError(
                f"{self.url} needs a package that is not there ({first_line(error)}): install it "
                "with pip."
            ) from error
        except FileNotFoundError as error:
            raise DataError(
                f"{self.url} is not there: correct its address in {self.folder}/dataset.json, or "
                "write it anew."
            ) from error
        except PermissionError as error:
            raise DataError(
                f"{self.url} may not be read ({first_line(error)}): give this machine the keys "
                "that its store asks for."
            ) from error
        except Exception as error:  # each store has kinds of its own
            if isinstance(error, OSError) and error.errno in FULL:
                raise DataError(
                    f"{self.url} has no room in {tempfile.gettempdir()}, where it is while it is "
                    "read: free some, or name another place by TMPDIR."
                ) from error
            raise DataError(
                f"{self.url} cannot be read ({first_line(error)}): check the address and what its "
                "store asks for, then load the data again."
            ) from error


def _version(facts: dict[str, Any]) -> str | None:
    """Size and version of a file by what a store says of it; None without one."""
    told = {name.lower().replace("-", "").replace("_", ""): facts[name] for name in facts}
    found = (f"{told.get('size')} {name} {told[name]}" for name in VERSIONS if told.get(name))
    return next(found, None)


def known(files: Sequence[Address]) -> list[bytes | None]:
    """SHA-256 of the content of files of one dataset; None of those that were never read.

    The files are as a new listing has them. What this process has read is remembered.
    """
    path, stored = files[0].folder / HASHES, {}
    with suppress(OSError, ValueError, TypeError, AttributeError, RecursionError):
        told = json.loads(path.read_text(encoding="utf-8"))
        stored = {version: bytes.fromhex(content) for version, content in told.items()}
    every = stored | _hashes
    if not every:
        return [None] * len(files)  # and no store is asked for each
    versions = [file.version for file in files]
    found = {version: every[version] for version in versions if version in every}
    if not found.items() <= stored.items():
        with suppress(MMCTRError):  # it saves time and nothing else
            write_json(path, {name: content.hex() for name, content in (stored | found).items()})
    return list(map(found.get, versions))
