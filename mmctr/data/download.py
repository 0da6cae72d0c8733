"""Download the public MicroLens_1M_x1 files; what breaks off is kept and resumed.

Files and checksums are those of FIELD.md. BASE_URL, the MicroLens authors' public folder, was not
reachable where this was written: the code has been tried on a server on loopback only.
"""

import hashlib
import os
import re
import shutil
import stat
import subprocess
import tarfile
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from mmctr.data.schema import COVER_SUFFIXES, NESTED_FOLDER
from mmctr.errors import ConfigError, DataError, MMCTRError
from mmctr.files import alone

BASE_URL = "https://recsys.westlake.edu.cn/MicroLens_1M_MMCTR/"
NOTICE = (
    "These files belong to the MicroLens authors (MMCTR Challenge, recsys.westlake.edu.cn) and are "
    "for research. Their terms forbid offering modified copies for download: do not pass them on."
)
REQUIRED = (
    *(f"{NESTED_FOLDER}/{name}.parquet" for name in ("train", "valid", "test", "item_info")),
    "item_feature.parquet",
)
OPTIONAL = ("item_emb.parquet", "item_seq.parquet")
COVERS = ("item_images.rar", "item_images.zip", "item_images.tar")  # the first that is offered
SHA256 = {
    REQUIRED[0]: "182fba831484d931e3943557cdd1b791861b2f921d0a7ff66bb34d492be7d5b1",
    "item_feature.parquet": "a63d8cbe090a79ee18bdb51a4146a4205339cb4b3b81bcae26035c17a322fc65",
}
TIMEOUT = (15, 60)  # seconds to connect, and without a byte
# Programs for rar: how each lists names, lists kinds, how a link looks there, and how it unpacks.
_RAR_TOOLS = {
    "unar": ("lsar -nr {a}", "lsar -nr -l {a}", r"\s*\d+\. ..L", "unar -nr -q -D -o {to} {a}"),
    "unrar": ("unrar lb -p- {a}", "unrar lt -p- {a}", r"\s*Target:", "unrar x -idq -p- {a} {to}/"),
    "bsdtar": ("bsdtar -tf {a}", "bsdtar -tvf {a}", r"[^-d]|.* link to ", "bsdtar -xf {a} -C {to}"),
}


@dataclass(frozen=True)
class _File:
    name: str
    url: str
    path: Path
    part: Path
    size: int | None

    @property
    def kept(self) -> int:
        """Bytes that are here, finished or not."""
        return next((p.stat().st_size for p in (self.path, self.part) if p.exists()), 0)


def download(
    out: Path,
    *,
    base_url: str = BASE_URL,
    accept_terms: bool = False,
    say: Callable[[str], object] = print,
) -> Path:
    """Fetch what `out` lacks of the public files, unpack the covers and return `out`.

    Raises ConfigError unless the terms are accepted, DataError for a file that is not there, broke
    off or is not the published one, MMCTRError if it cannot be written or another process is at it.
    """
    import requests

    say(NOTICE)
    if not accept_terms:
        raise ConfigError(
            "Nothing was downloaded, as the terms above are not accepted: add --accept-terms."
        )
    images = out / "item_images"
    try:
        (out / NESTED_FOLDER).mkdir(parents=True, exist_ok=True)
        with alone(out, "being downloaded by"), requests.Session() as session:
            # Sizes and ranges count the bytes of the file, not of a compressed transfer.
            session.headers["Accept-Encoding"] = "identity"
            find = partial(_find, session, base_url, out)
            files = {name: find(name) for name in (*REQUIRED, *OPTIONAL)}
            covers = None
            if not images.exists():
                covers = files["item_images"] = next(filter(None, map(find, COVERS)), None)
            _announce(out, files, say)
            for file in files.values():
                if file and not file.path.exists():
                    _fetch(session, file)
            if covers:
                _unpack(covers.path, images, say)
    except OSError as error:
        raise MMCTRError(
            f"{error.filename or out} could not be written ({error.strerror or error}): free some "
            "space or choose another folder, then run again to resume."
        ) from error
    return out


def _unpack(archive: Path, folder: Path, say: Callable[[str], object]) -> None:
    """Unpack the covers of a zip, tar or rar archive as `folder`, whole or not at all.

    Raises DataError if the archive is damaged, has no covers, or a member leaves the folder or is
    a link. Without a program for rar, only says how to unpack it by hand.
    """
    temporary = folder.with_name(f".{folder.name}.unpacking")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    try:
        if zipfile.is_zipfile(archive):
            _unpack_zip(archive, temporary)
        elif tarfile.is_tarfile(archive):
            _unpack_tar(archive, temporary)
        elif tool := next(filter(shutil.which, _RAR_TOOLS), None):
            _unpack_rar(archive, temporary, tool)
        else:
            say(
                f"No program for rar was found, so the covers are still packed: install unar, "
                f"bsdtar or unrar and run again, or unpack {archive} as {folder} by hand."
            )
            return
        covers = (p.parent for p in temporary.rglob("*") if p.suffix.lower() in COVER_SUFFIXES)
        found = Counter(covers).most_common(1)
        if not found:
            raise DataError(f"{archive} holds no covers, expected pictures named by item id.")
        found[0][0].rename(folder)
        say(f"{folder}: {found[0][1]:,} covers")
    except (zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError, RuntimeError) as error:
        raise _damaged(archive, error) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _find(session: Any, base_url: str, out: Path, name: str) -> _File | None:
    """Ask the server for a file's size; None if an optional one is not there.

    Raises DataError if there is no answer, a required file is not there, or the one here differs.
    """
    import requests

    url, path = f"{base_url.rstrip('/')}/{name}", out / name
    try:
        answer = session.head(url, allow_redirects=True, timeout=TIMEOUT)
        if answer.status_code in (403, 405, 501):  # some servers answer only GET
            with session.get(url, stream=True, timeout=TIMEOUT) as answer:
                pass
        if answer.status_code == 404 and name not in REQUIRED:
            return None
        if answer.status_code == 404:
            raise DataError(f"{url} is not there (404): name the folder that has it by --base-url.")
        answer.raise_for_status()
    except requests.RequestException as error:
        raise DataError(
            f"{url} could not be reached ({_reason(error)}): check the connection "
            "and --base-url, then run again."
        ) from error
    length = answer.headers.get("Content-Length", "")
    # Named by the server's version, so that halves of two versions are never joined.
    version = answer.headers.get("Last-Modified") or answer.headers.get("ETag") or ""
    stamp = zlib.crc32(f"{url} {version} {length}".encode())
    part = path.with_name(f"{path.name}.{stamp:08x}.part")
    for other in path.parent.glob(f"{path.name}.*.part"):
        if other != part:
            other.unlink()
    # Some servers answer HEAD with a length of 0: as good as none.
    size = int(length) or None if length.isdecimal() else None
    # A file that was changed here may hold work of the user: it is never fetched over.
    if path.exists():
        is_known = name in SHA256
        if not (_is_published(name, path) if is_known else size in (None, path.stat().st_size)):
            raise DataError(
                f"{path} is not the published file ({'SHA-256' if is_known else 'size'} differs): "
                "move it away and run again to fetch it."
            )
    return _File(name, url, path, part, size)


def _announce(out: Path, files: dict[str, _File | None], say: Callable[[str], object]) -> None:
    """Say what will be fetched; MMCTRError if the disk has no room for it."""
    needed = 0
    for name, file in files.items():
        if file is None:
            say(f"{name:<36} is not offered there, left out")
            continue
        size = "of unknown size" if file.size is None else _megabytes(file.size)
        here = f", {_megabytes(file.kept)} already here" if file.kept else ""
        say(f"{name:<36} {size:>15}{here}")
        # Pictures do not compress: unpacked, they need their archive's size once more.
        needed += max((file.size or 0) - file.kept, 0) + (file.name in COVERS) * (file.size or 0)
    free = shutil.disk_usage(out).free
    say(f"{'to fetch and unpack':<36} {_megabytes(needed):>15}")
    if needed > free:
        raise MMCTRError(
            f"{out} has {_megabytes(free)} free, the download needs {_megabytes(needed)}: free "
            "some space or choose another folder with --out."
        )


def _fetch(session: Any, file: _File) -> None:
    """Fetch one file, and move it into place if its checksum is right."""
    import requests

    try:
        _resume(session, file)
    except requests.RequestException as error:
        raise DataError(
            f"{file.url} broke off ({_reason(error)}): {_megabytes(file.kept)} are kept in "
            f"{file.part}, run again to resume."
        ) from error
    if not _is_published(file.name, file.part):
        file.part.unlink()
        raise DataError(
            f"{file.url} came with a wrong SHA-256 and was removed: run again, and if it stays "
            "wrong, the published file has changed."
        )
    file.part.replace(file.path)


def _is_published(name: str, path: Path) -> bool:
    """Whether a file has the published checksum, as far as there is one."""
    with path.open("rb") as file:
        return SHA256.get(name) in (None, hashlib.file_digest(file, "sha256").hexdigest())


def _resume(session: Any, file: _File) -> None:
    """Fetch the rest of a file, or all of it where the server cannot resume."""
    import requests
    from tqdm.auto import tqdm

    start = file.kept
    if start == file.size:
        return
    wanted = {"Range": f"bytes={start}-"} if start else {}
    with session.get(file.url, headers=wanted, stream=True, timeout=TIMEOUT) as answer:
        resumed = answer.headers.get("Content-Range", "").startswith(f"bytes {start}-")
        if start and not resumed and answer.status_code in (206, 416):
            file.part.unlink()  # what is kept is no beginning of this file
            return _resume(session, file)
        answer.raise_for_status()
        start = start if answer.status_code == 206 else 0
        bar = tqdm(desc=file.name, total=file.size, initial=start, unit="B", unit_scale=True)
        with file.part.open("ab" if start else "wb") as part, bar:
            for chunk in answer.iter_content(1 << 16):
                part.write(chunk)
                bar.update(len(chunk))
            part.flush()
            os.fsync(part.fileno())
    if file.size not in (None, file.kept):
        raise requests.ConnectionError(f"found {file.kept:,} bytes, expected {file.size:,}")


def _unpack_zip(archive: Path, folder: Path) -> None:
    with zipfile.ZipFile(archive) as file:
        links = [m.filename for m in file.infolist() if stat.S_ISLNK(m.external_attr >> 16)]
        _require_safe(archive, file.namelist(), links)
        file.extractall(folder)


def _unpack_tar(archive: Path, folder: Path) -> None:
    with tarfile.open(archive) as file:
        links = [m.name for m in file if not (m.isfile() or m.isdir())]
        _require_safe(archive, file.getnames(), links)
        # Python 3.11 has filters from 3.11.4 on; what leaves the folder was refused in any case.
        safely = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
        file.extractall(folder, **safely)


def _unpack_rar(archive: Path, folder: Path, tool: str) -> None:
    names, kinds, link, extract = _RAR_TOOLS[tool]

    def run(command: str) -> list[str]:
        words = [w.format(a=archive.name, to=folder.name) for w in command.split()]
        quiet = {"stdin": subprocess.DEVNULL, "capture_output": True}
        done = subprocess.run(words, cwd=archive.parent, **quiet)
        if done.returncode:
            said = (done.stderr or done.stdout).decode(errors="replace")
            raise _damaged(archive, " ".join(said.split()))
        return done.stdout.decode(errors="replace").splitlines()

    _require_safe(archive, run(names), [line for line in run(kinds) if re.match(link, line)])
    run(extract)
    # Not every program shows every kind of link in its list.
    _require_safe(archive, [], [path.name for path in folder.rglob("*") if path.is_symlink()])


def _require_safe(archive: Path, names: Iterable[str], links: list[str]) -> None:
    """Raises DataError if a member would land outside its folder, or is a link."""
    outside = [name for name in names if re.search(r"^[/\\]|^\w:|(^|[/\\])\.\.([/\\]|$)", name)]
    if outside or links:
        name, fault = (outside[0], "leaves the folder") if outside else (links[0], "is a link")
        raise DataError(
            f"{archive} holds {name.strip()!r}, which {fault}: nothing was unpacked, do not trust "
            "this archive."
        )


def _damaged(archive: Path, reason: object) -> DataError:
    return DataError(
        f"{archive} cannot be unpacked ({reason}): delete it and run again to fetch it anew, or "
        "unpack it by hand as item_images beside it."
    )


def _reason(error: Exception) -> Exception:
    """What an error of requests, which wraps others several times over, is about."""
    inner = getattr(error, "reason", None) or next(reversed(error.args), None)
    return _reason(inner) if isinstance(inner, Exception) else error


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"
