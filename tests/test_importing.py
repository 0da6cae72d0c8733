"""An import that is killed, interrupted or out of space leaves nothing, and can be run again."""

import os
import resource
import signal
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from mmctr.data.importing.recipe import Recipe
from mmctr.data.importing.steps import import_dataset
from tests.data.importing.logs import ITEMS

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="limits as Linux has them")
MAIN = "import sys; from mmctr.cli import main; sys.argv[0] = 'mmctr'; main()"
# A query that takes days stands for the sort of a large log: the signal comes while it runs.
IN_DUCKDB = """
import os, threading
from mmctr.data.importing import steps

def endless(source, *others):
    def send():
        while source.connection.query_progress() < 0:
            pass
        os.kill(os.getpid(), {number})

    threading.Thread(target=send, daemon=True).start()
    source.rows("SELECT count(*) FROM range(1_000_000_000_000_000) WHERE hash(range) = 1")

steps.read_log = endless
"""
AT_A_STEP = """
import os
from mmctr.data.importing import {module}
{module}.{step} = lambda *arguments, **options: os.kill(os.getpid(), {number})
"""
MOMENTS = {
    "DuckDB": IN_DUCKDB,
    "clicks": AT_A_STEP.replace("{module}", "sorting").replace("{step}", "write_events"),
    "splits": AT_A_STEP.replace("{module}", "steps").replace("{step}", "write_splits"),
}


@pytest.fixture
def tables(tmp_path):
    """A log of 60 users who click 50 of 200 items each, as Parquet and as CSV, and its items."""
    rng, folder = np.random.default_rng(0), tmp_path / "tables"
    folder.mkdir()
    log = pd.DataFrame({"user_id": np.repeat([f"a user of {n}" for n in range(60)], 50)})
    log["item_id"] = np.concatenate([rng.permutation(200)[:50] for _ in range(60)])
    log["timestamp"] = rng.integers(1_600_000_000, 1_700_000_000, len(log))
    log.to_parquet(folder / "log.parquet")
    log.to_csv(folder / "log.csv", index=False)
    pd.DataFrame({"item_id": range(200)}).to_parquet(folder / "items.parquet")
    return folder


def command(tables, out, *words, code=MAIN, log="log.parquet", items="items.parquet", **options):
    """Run the command line on these tables; its status and what it says at last."""
    command = [sys.executable, "-c", code, "data", "import", "--out", str(out)]
    command += ["--interactions", str(tables / log), "--items", str(tables / items)]
    environment = os.environ | {"TQDM_DISABLE": "1"} | options.pop("env", {})  # no bars
    options |= {"capture_output": True, "text": True, "env": environment}
    done = subprocess.run([*command, *words], **options)
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, done.stderr.rstrip().split("\n")[-1]


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_signal_leaves_no_dataset_and_hinders_no_other_import(tables, tmp_path, moment, number):
    out, whole = tmp_path / "place" / "out", tmp_path / "whole"
    code = MOMENTS[moment].replace("{number}", str(int(number))) + MAIN
    status, said = command(tables, out, code=code)
    assert not out.exists()
    if number == signal.SIGINT:
        assert (status, said) == (130, "")
        assert not any(out.parent.iterdir())
    else:
        assert status == -number
    for folder in (out, whole):
        paths = [tables / "log.parquet"], [tables / "items.parquet"]
        import_dataset(*paths, None, folder, Recipe.of())
    for path in filter(lambda path: path.is_file(), whole.rglob("*")):
        assert (out / path.relative_to(whole)).read_bytes() == path.read_bytes()


@pytest.mark.parametrize(
    ("log", "room"),
    [
        ("log.csv", 4_000),  # DuckDB keeps what it has parsed
        ("log.parquet", 600),  # the users' ids
        ("log.parquet", 16_000),  # the sorted clicks
        ("log.parquet", 40_000),  # train
    ],
)
def test_a_full_disk_is_told(tables, tmp_path, log, room):
    out = tmp_path / "place" / "out"
    limit = {"preexec_fn": lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (room, room))}
    status, said = command(tables, out, "-p", "negatives=20", log=log, **limit)
    assert status == 1
    assert said.startswith(f"mmctr: {out} could not be written (") and "File too large" in said
    assert not any(out.parent.iterdir())


def test_a_disk_without_room_to_sort_is_told(tables, tmp_path):
    """DuckDB spills what is more than its memory, and has no room for that."""
    log = pd.DataFrame({"user_id": np.arange(1_000_000) % 20, "timestamp": 1_600_000_000})
    log["item_id"] = np.arange(len(log)) * 7 % 200
    log.to_parquet(tables / "log.parquet")
    out = tmp_path / "place" / "out"
    limit = {"preexec_fn": lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (4_000, 4_000))}
    status, said = command(tables, out, "-p", "memory=0.12", **limit)
    told = "could not be written (File too large): free some space or choose a folder"
    assert (status, said) == (1, f"mmctr: {out} {told} that you may write to.")
    assert not any(out.parent.iterdir())


def test_no_extension_is_fetched(tmp_path):
    """DuckDB keeps those that it fetches in the home folder."""
    home = tmp_path / "home"
    home.mkdir()
    rows = "".join(f"ü,i{number},{number}\n" for number in range(5))
    (tmp_path / "log.csv").write_bytes(f"user_id,item_id,timestamp\n{rows}".encode("latin-1"))
    ITEMS.to_json(tmp_path / "items.jsonl", orient="records", lines=True)
    for encoding, expected in (("latin-1", 0), ("shift_jis", 1), ("no such", 1)):
        words = ["-p", f"encoding={encoding}", "-p", "negatives=1"]
        options = {
            "log": "log.csv",
            "items": "items.jsonl",
            "env": {"HOME": str(home)},
        }
        status, said = command(tmp_path, tmp_path / encoding, *words, **options)
        assert status == expected, said
        assert not status or (said.startswith("mmctr: ") and "encoding" in said), said
        assert not list(home.rglob("*"))
