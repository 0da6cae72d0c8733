"""Seconds and peak memory of `mmctr data import` on generated logs, maybe beside another checkout.

    python -m benchmarks.importing 10 30 --before ../mmctr-before -p memory=4

Numbers are millions of clicks: 25 a user, in the order of their time, on 100,000 items, a few of
which get most. Each import is a process of its own, the checkouts take turns. Memory is the most
that was resident, libraries included; the processors' time hardly minds what else they do.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

HERE = Path(__file__).parents[1]
ITEMS, CLICKS_OF_USER, PART = 100_000, 25, 1 << 18


def write_log(path: Path, clicks: int) -> None:
    """A log of whole numbers, CSV or Parquet by its ending; the same one each time."""
    form = pa.schema([(name, pa.int64()) for name in ("user_id", "item_id", "timestamp")])
    rng, users = np.random.default_rng(0), clicks // CLICKS_OF_USER
    kind = pa.csv.CSVWriter if path.suffix == ".csv" else pq.ParquetWriter
    with kind(path, form) as file:
        for start in range(0, clicks, PART):
            rows = min(PART, clicks - start)
            columns = [
                rng.integers(1, users + 1, rows),
                1 + (ITEMS * rng.random(rows) ** 2).astype(np.int64),
                1_600_000_000 + np.arange(start, start + rows) * 100_000_000 // clicks,
            ]
            file.write_table(pa.table(columns, schema=form))


def write_items(path: Path) -> None:
    """The items of such a log, with titles and tags."""
    ids = np.arange(1, ITEMS + 1)
    texts = {"title": [f"Title {n}" for n in ids], "tags": [f"tag {n % 50}" for n in ids]}
    pq.write_table(pa.table({"item_id": ids} | texts), path)


def imported(
    tree: Path, log: Path, items: Path, out: Path, words: list[str]
) -> tuple[float, float, float]:
    """Seconds of all processors together, seconds, and peak GB of an import by a checkout."""
    # What wait4 tells of memory starts from the peak of this process, which may hold PyTorch.
    status = out.with_suffix(".status")
    code = (
        "import atexit, shutil, sys; from mmctr.cli import main; sys.argv[0] = 'mmctr'; "
        f"atexit.register(shutil.copy, '/proc/self/status', {str(status)!r}); main()"
    )
    command = [sys.executable, "-c", code, "data", "import", "--interactions", str(log)]
    command += ["--items", str(items), "--out", str(out), *words]
    environment = os.environ | {"PYTHONPATH": str(tree), "TQDM_DISABLE": "1"}
    started = time.perf_counter()
    process = subprocess.Popen(command, env=environment, cwd=tree, stdout=subprocess.DEVNULL)
    _, ended, used = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - started
    if ended:
        raise SystemExit(f"{tree} ended with {os.waitstatus_to_exitcode(ended)}")
    peak = int(re.search(r"VmHWM:\s*(\d+) kB", status.read_text())[1])
    return used.ru_utime + used.ru_stime, seconds, peak * 1024 / 1e9


def main() -> None:
    """Print a line an import."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("millions", type=float, nargs="+", help="millions of clicks")
    parser.add_argument("--before", type=Path, help="another checkout of mmctr")
    parser.add_argument("--csv", action="store_true", help="write the log as CSV, not Parquet")
    parser.add_argument("--times", type=int, default=1, help="how often each import runs")
    parser.add_argument("-p", action="append", default=[], help="a parameter of the import")
    asked = parser.parse_args()
    words = [word for pair in asked.p for word in ("-p", pair)]
    trees = {"before": asked.before.resolve()} if asked.before else {}
    with tempfile.TemporaryDirectory() as place:
        items, out = Path(place) / "items.parquet", Path(place) / "dataset"
        write_items(items)
        for million in asked.millions:
            log = Path(place) / f"log.{'csv' if asked.csv else 'parquet'}"
            write_log(log, int(million * 1e6))
            for _ in range(asked.times):
                for name, tree in (trees | {"now": HERE}).items():
                    processor, seconds, memory = imported(tree, log, items, out, words)
                    shutil.rmtree(out)
                    told = f"{million:>6g} million clicks, {name:<6} {seconds:>7.1f} s,"
                    print(f"{told} {processor:>6.1f} of processors, {memory:.2f} GB", flush=True)


if __name__ == "__main__":
    main()
