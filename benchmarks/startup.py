"""Seconds until a wrong word is told, beside another checkout of mmctr.

    python -m benchmarks.startup ../mmctr-before

Both run as new processes of this Python, in turn; medians of nine runs after one to warm up.
"""

import os
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

RUNS = 9
HERE = Path(__file__).parents[1]
WRONG = {
    "an unknown strategy": ["train", "--strategy", "v9"],
    "a parameter that is no number": ["train", "-p", "heads=many"],
    "a folder that is not there": ["train", "--data", "nowhere"],
    "a run that is not there": ["verify", "nowhere"],
    "a strategy of a report": ["report", "--strategies", "v1,v9"],
    "a folder to extract": ["features", "extract", "nowhere"],
}


def seconds(tree: Path, words: list[str]) -> float:
    """How long the command line of a checkout takes to refuse these words."""
    code = "import sys; from mmctr.cli import main; sys.argv[0] = 'mmctr'; main()"
    environment = os.environ | {"PYTHONPATH": str(tree)}
    started = time.perf_counter()
    command = [sys.executable, "-c", code, *words]
    done = subprocess.run(command, env=environment, capture_output=True, cwd=tree)
    if done.returncode != 1:
        raise SystemExit(f"{tree}: {words} ended with {done.returncode}:\n{done.stderr.decode()}")
    return time.perf_counter() - started


def main(before: Path) -> None:
    """Print a table: seconds here, seconds there, and their ratio."""
    print(f"{'':<32}{'before (s)':>12}{'now (s)':>12}{'ratio':>10}")
    for name, words in WRONG.items():
        pairs = [(seconds(before, words), seconds(HERE, words)) for _ in range(RUNS + 1)][1:]
        there, here = (median(column) for column in zip(*pairs, strict=True))
        print(f"{name:<32}{there:>12.2f}{here:>12.2f}{there / here:>9.1f}x")


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
