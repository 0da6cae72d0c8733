"""The public data, over a server on loopback: resumed, checked, whole or not at all."""

import hashlib
import http.server
import io
import re
import shutil
import tarfile
import threading
import zipfile
from collections import namedtuple

import pytest

from mmctr.data import download as module
from mmctr.data.download import COVERS, NOTICE, OPTIONAL, REQUIRED, SHA256, download
from mmctr.errors import ConfigError, DataError, MMCTRError

TRAIN = "MicroLens_1M_x1/train.parquet"
KEPT = 1 << 16  # of 70,000 bytes: what was read in full


class Server(http.server.ThreadingHTTPServer):
    """Serves bytes by name; may break off once, ignore ranges, refuse HEAD or hide sizes."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files = {name: name.encode() * 9_000 for name in (*REQUIRED, *OPTIONAL)}
        self.files[COVERS[1]] = zipped({"item_images/1.jpg": b"one", "item_images/2.png": b"two"})
        self.requests = []  # (name, Range) of every GET
        self.break_off = {}  # name: after how many bytes, once
        self.ranges = self.head = self.sizes = True
        self.version = "one"

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}/public"

    def fetched(self, name):
        return [wanted for path, wanted in self.requests if path == name]


class Handler(http.server.BaseHTTPRequestHandler):
    wbufsize = 1 << 20  # a header and its body in one piece, without TCP's delay between them

    def do_HEAD(self):
        if self.server.head:
            self._start()
        else:
            self.send_error(405)

    def do_GET(self):
        name, wanted = self.path.removeprefix("/public/"), self.headers.get("Range")
        self.server.requests.append((name, wanted))
        first = int(wanted[6:-1]) if wanted and self.server.ranges else 0
        body = self._start(first)
        if body is not None:
            self.wfile.write(body[: self.server.break_off.pop(name, len(body))])
            self.close_connection = True

    def _start(self, first=0):
        body = self.server.files.get(self.path.removeprefix("/public/"))
        if body is None or first >= len(body):
            self.send_error(404 if body is None else 416)
            return None
        self.send_response(206 if first else 200)
        if first:
            self.send_header("Content-Range", f"bytes {first}-{len(body) - 1}/{len(body)}")
        if self.server.sizes:
            self.send_header("Content-Length", str(len(body) - first))
        self.send_header("ETag", self.server.version)
        self.end_headers()
        return body[first:]

    def log_message(self, *_):
        pass


@pytest.fixture
def server(monkeypatch):
    """A running server whose checksums are the known ones."""
    with Server() as server:
        for name in SHA256:
            monkeypatch.setitem(SHA256, name, hashlib.sha256(server.files[name]).hexdigest())
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def zipped(members):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def fetch(server, out):
    """Download and return what was said."""
    said = []
    assert download(out, base_url=server.url, accept_terms=True, say=said.append) == out
    return "\n".join(said)


def require_whole(server, out):
    for name in (*REQUIRED, *OPTIONAL):
        assert (out / name).read_bytes() == server.files[name]
    assert {path.name for path in (out / "item_images").iterdir()} == {"1.jpg", "2.png"}
    known = {*REQUIRED, *OPTIONAL, COVERS[1], "item_images/1.jpg", "item_images/2.png"}
    found = {str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()}
    assert found == known  # no part and no temporary file is left


def test_all_files_come_whole_and_are_not_fetched_again(server, tmp_path):
    said = fetch(server, tmp_path / "new" / "data")
    require_whole(server, tmp_path / "new" / "data")
    assert said.startswith(NOTICE)
    total = sum(map(len, server.files.values())) + len(server.files[COVERS[1]])
    assert re.search(rf"to fetch and unpack +{total / 1e6:.1f} MB", said)
    assert "2 covers" in said
    server.requests.clear()
    assert re.search(r"to fetch and unpack +0.0 MB", fetch(server, tmp_path / "new" / "data"))
    assert server.requests == []


def test_nothing_is_asked_before_the_terms_are_accepted(tmp_path):
    said = []
    with pytest.raises(ConfigError, match="add --accept-terms"):
        download(tmp_path / "data", base_url="http://127.0.0.1:9", say=said.append)
    assert said == [NOTICE]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("sizes", [True, False])
@pytest.mark.parametrize("ranges", [True, False])
def test_a_broken_connection_keeps_its_part(server, tmp_path, ranges, sizes):
    server.break_off, server.ranges, server.sizes = {TRAIN: 70_000}, ranges, sizes
    if sizes:
        with pytest.raises(DataError, match=r"broke off .*0\.1 MB are kept in .*run again"):
            fetch(server, tmp_path)
        assert not (tmp_path / TRAIN).exists()
        (part,) = tmp_path.rglob("*.part")
        assert part.read_bytes() == server.files[TRAIN][:KEPT]
    else:  # only the checksum tells
        with pytest.raises(DataError, match="wrong SHA-256"):
            fetch(server, tmp_path)
        assert list(tmp_path.rglob("*.part")) == []
    fetch(server, tmp_path)
    require_whole(server, tmp_path)
    assert server.fetched(TRAIN) == [None, f"bytes={KEPT}-" if sizes else None]


def test_a_part_of_another_version_is_not_joined(server, tmp_path):
    server.break_off = {TRAIN: 70_000}
    with pytest.raises(DataError, match="broke off"):
        fetch(server, tmp_path)
    server.version = "two"
    fetch(server, tmp_path)
    require_whole(server, tmp_path)
    assert server.fetched(TRAIN) == [None, None]


def test_a_part_that_is_longer_than_its_file_is_started_anew(server, tmp_path):
    server.break_off = {TRAIN: 70_000}
    with pytest.raises(DataError, match="broke off"):
        fetch(server, tmp_path)
    (part,) = tmp_path.rglob("*.part")
    part.write_bytes(bytes(len(server.files[TRAIN]) + 1))
    fetch(server, tmp_path)
    require_whole(server, tmp_path)


def test_a_finished_part_needs_no_request(server, tmp_path):
    server.break_off = {TRAIN: 70_000}
    with pytest.raises(DataError, match="broke off"):
        fetch(server, tmp_path)
    (part,) = tmp_path.rglob("*.part")
    part.write_bytes(server.files[TRAIN])
    fetch(server, tmp_path)
    require_whole(server, tmp_path)
    assert server.fetched(TRAIN) == [None]


def test_a_server_without_head_is_asked_by_get(server, tmp_path):
    server.head = False
    fetch(server, tmp_path)
    require_whole(server, tmp_path)


def test_a_wrong_checksum_removes_the_file(server, tmp_path):
    server.files[TRAIN] += b"more"
    with pytest.raises(
        DataError, match=r"train\.parquet came with a wrong SHA-256 and was removed"
    ):
        fetch(server, tmp_path)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


@pytest.mark.parametrize(("name", "what"), [(TRAIN, "SHA-256"), ("item_emb.parquet", "size")])
def test_a_file_changed_here_is_neither_taken_nor_overwritten(server, tmp_path, name, what):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_bytes(b"mine")
    with pytest.raises(
        DataError, match=rf"not the published file \({what} differs\): move it away"
    ):
        fetch(server, tmp_path)
    assert (tmp_path / name).read_bytes() == b"mine"


def test_a_missing_file_is_an_error_and_an_optional_one_is_said(server, tmp_path):
    for name in (*OPTIONAL, COVERS[1]):
        del server.files[name]
    said = fetch(server, tmp_path / "a")
    for name in (*OPTIONAL, "item_images"):
        assert re.search(rf"{name} +is not offered there, left out", said)
    del server.files[TRAIN]
    with pytest.raises(DataError, match=r"train\.parquet is not there \(404\).*--base-url"):
        fetch(server, tmp_path / "b")


def test_a_server_that_does_not_answer_is_a_sentence(tmp_path):
    with pytest.raises(DataError, match=r"could not be reached .*run again"):
        download(tmp_path, base_url="http://127.0.0.1:9", accept_terms=True, say=str)
    with pytest.raises(DataError, match="could not be reached"):
        download(tmp_path, base_url="no address", accept_terms=True, say=str)


def test_no_space_is_seen_before_the_first_byte(server, tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10**9, 10**9 - 10**6, 10**6))
    with pytest.raises(MMCTRError, match=r"has 1\.0 MB free, the download needs 1\.\d MB"):
        fetch(server, tmp_path)
    assert server.requests == []


def test_a_disk_that_fills_up_keeps_the_part(server, tmp_path, monkeypatch):
    def full(_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(module.os, "fsync", full)
        with pytest.raises(
            MMCTRError, match=r"\(No space left on device\): free some space.*resume"
        ):
            fetch(server, tmp_path)
    fetch(server, tmp_path)
    require_whole(server, tmp_path)
    assert server.fetched(TRAIN) == [None]


def test_a_folder_that_cannot_be_written_is_named(server, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(MMCTRError, match=r"file/data.* could not be written"):
        fetch(server, tmp_path / "file" / "data")


def archive_with_link(kind):
    """A zip or tar whose member 1.jpg is a symbolic link."""
    buffer = io.BytesIO()
    if kind == "zip":
        link = zipfile.ZipInfo("1.jpg")
        link.external_attr = 0o120777 << 16
        with zipfile.ZipFile(buffer, "w") as archive:
            archive.writestr(link, "/etc/passwd")
    else:
        link = tarfile.TarInfo("1.jpg")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        with tarfile.open(fileobj=buffer, mode="w") as archive:
            archive.addfile(link)
    return buffer.getvalue()


def tarred(name):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        member = tarfile.TarInfo(name)
        member.size = 3
        archive.addfile(member, io.BytesIO(b"one"))
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (zipped({"1.jpg": b"one", "../2.jpg": b"two"}), "'../2.jpg', which leaves the folder"),
        (zipped({"a/../../2.jpg": b"two"}), "leaves the folder"),
        (zipped({"/2.jpg": b"two"}), "leaves the folder"),
        (zipped({"C:\\2.jpg": b"two"}), "leaves the folder"),
        (zipped({"..\\2.jpg": b"two"}), "leaves the folder"),
        (archive_with_link("zip"), "'1.jpg', which is a link"),
        (tarred("../2.jpg"), "leaves the folder"),
        (tarred("/2.jpg"), "leaves the folder"),
        (archive_with_link("tar"), "'1.jpg', which is a link"),
        (zipped({"read.me": b""}), "holds no covers"),
        (zipped({"1.jpg": b"o" * 99}).replace(b"ooo", b"ouo"), "cannot be unpacked"),
    ],
)
def test_unsafe_and_damaged_archives_are_refused(server, tmp_path, content, fault):
    out = tmp_path / "data"
    server.files[COVERS[1]] = content
    with pytest.raises(DataError, match=re.escape(fault)):
        fetch(server, out)
    assert [path.name for path in tmp_path.iterdir()] == ["data"]
    assert {path.name for path in out.iterdir() if path.is_dir()} == {"MicroLens_1M_x1"}
    assert list(tmp_path.rglob("*.jpg")) == []


def test_a_tar_is_unpacked(server, tmp_path):
    server.files[COVERS[2]] = tarred("covers/1.jpg")
    del server.files[COVERS[1]]
    fetch(server, tmp_path)
    assert (tmp_path / "item_images" / "1.jpg").read_bytes() == b"one"


def test_a_tar_is_unpacked_by_a_python_without_filters(server, tmp_path, monkeypatch):
    """As of Debian 12, 3.11.2."""
    extract = tarfile.TarFile.extractall

    def without_filters(file, path, members=None, *, numeric_owner=False):
        extract(file, path, members, numeric_owner=numeric_owner)

    monkeypatch.delattr(tarfile, "data_filter", raising=False)
    monkeypatch.setattr(tarfile.TarFile, "extractall", without_filters)
    server.files[COVERS[2]] = tarred("covers/1.jpg")
    del server.files[COVERS[1]]
    fetch(server, tmp_path)
    assert (tmp_path / "item_images" / "1.jpg").read_bytes() == b"one"


FAKE_RAR = """#!/bin/sh
case "$1" in
    lb) printf '{names}' ;;
    lt) printf '{kinds}' ;;
    x) for last; do :; done; mkdir -p "$last/item_images"; {make} "$last/item_images/1.jpg" ;;
esac
"""


@pytest.mark.parametrize(
    ("names", "kinds", "make", "fault"),
    [
        ("item_images/1.jpg\\n", "Type: File\\n", "echo one >", None),
        ("1.jpg\\n../2.jpg\\n", "", "echo one >", "'../2.jpg', which leaves the folder"),
        ("/1.jpg\\n", "", "echo one >", "leaves the folder"),
        ("1.jpg\\n", "      Target: /etc\\n", "echo one >", "is a link"),
        ("1.jpg\\n", "", "ln -s /etc", "is a link"),
        ("1.jpg\\n", "", "echo no rar >&2; exit 3;", r"cannot be unpacked \(no rar\)"),
    ],
)
def test_a_rar_is_unpacked_by_a_program_that_is_there(
    server, tmp_path, monkeypatch, names, kinds, make, fault
):
    program = tmp_path / "bin" / "unrar"
    program.parent.mkdir()
    program.write_text(FAKE_RAR.format(names=names, kinds=kinds, make=make))
    program.chmod(0o755)
    for name in ("mkdir", "ln"):
        (program.parent / name).symlink_to(shutil.which(name))
    monkeypatch.setenv("PATH", str(program.parent))
    server.files[COVERS[0]] = b"Rar!"
    out = tmp_path / "some data"
    if fault is None:
        assert "1 covers" in fetch(server, out)
        assert (out / "item_images" / "1.jpg").read_text() == "one\n"
        assert server.fetched(COVERS[1]) == []
    else:
        with pytest.raises(DataError, match=fault):
            fetch(server, out)
        assert {path.name for path in out.iterdir() if path.is_dir()} == {"MicroLens_1M_x1"}


def test_a_rar_without_a_program_stays_packed(server, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    server.files[COVERS[0]] = b"Rar!"
    said = fetch(server, tmp_path / "data")
    assert re.search(r"No program for rar was found.*unpack .*item_images by hand", said)
    assert (tmp_path / "data" / COVERS[0]).exists()
    assert not (tmp_path / "data" / "item_images").exists()


def test_a_second_download_into_the_folder_is_refused(server, tmp_path, monkeypatch):
    out, refused, fetch_file = tmp_path / "data", [], module._fetch

    def meanwhile(session, file):
        with pytest.raises(MMCTRError, match=f"{out} is being downloaded by another process"):
            download(out, base_url=server.url, accept_terms=True, say=refused.append)
        fetch_file(session, file)

    monkeypatch.setattr(module, "_fetch", meanwhile)
    fetch(server, out)
    assert refused
    assert not list(out.rglob(".lock"))
