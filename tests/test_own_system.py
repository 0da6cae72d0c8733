"""docs/architecture.md adds a system of one's own; what it says is done to a copy and trained."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
USE = """
import numpy as np
from mmctr.data.dataset import Dataset
from mmctr.runs.train import train
from mmctr.training.config import configs
from mmctr.training.prediction import Scorer, predict
import mmctr, sys
from pathlib import Path
data = Dataset.load(sys.argv[1])
small = {"epochs": 1, "embedding_dim": 8, "hidden": [8], "batch_size": 256}
run = train(data, "v4", *configs("dcnv2", **small), Path(sys.argv[2]))
rows = data.valid.select(np.arange(20))
found, scorer = predict(run.model(), rows), Scorer(run.model())
one = [scorer(rows.history(row), rows.target[row : row + 1])[0] for row in range(len(rows))]
np.testing.assert_allclose(one, found, atol=1e-5)
print(mmctr.__file__, type(run.model().attention).__name__, run.summary["metrics"]["auc"])
"""


def test_a_system_of_ones_own_is_a_few_lines(tmp_path, tiny_folder):
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    diff = re.search(r"```diff\n(.*?)```", text, flags=re.S)[1]
    assert diff.count("\n") < 60
    shutil.copytree(ROOT / "mmctr", tmp_path / "mmctr")
    for part in re.split(r"^--- ", diff, flags=re.M)[1:]:
        name, _, lines = part.partition("\n")
        path = tmp_path / name
        source = path.read_text(encoding="utf-8")
        # A run of lines that stay or go, and what comes after them.
        for old, new in re.findall(r"((?:^[ -].*\n)+)((?:^\+.*\n)+)", lines, flags=re.M):
            before = re.sub(r"^.", "", old, flags=re.M)
            after = re.sub(r"^.", "", re.sub(r"^-.*\n", "", old, flags=re.M) + new, flags=re.M)
            assert source.count(before) == 1, f"{name} has not, or not once:\n{before}"
            source = source.replace(before, after)
        path.write_text(source, encoding="utf-8")
    environment = os.environ | {"PYTHONPATH": str(tmp_path), "OMP_NUM_THREADS": "1"}
    words = [sys.executable, "-c", USE, str(tiny_folder), str(tmp_path / "runs")]
    done = subprocess.run(
        words, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    place, layer, auc = done.stdout.split()
    assert place.startswith(str(tmp_path))
    assert layer == "MeanPooling"
    assert 0 < float(auc) < 1
