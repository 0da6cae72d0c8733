"""Whatever a file holds, it is loaded as it is or refused in one sentence."""

import os
import pickle
import re
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import mmctr
from mmctr.data.dataset import Dataset
from mmctr.data.importing.recipe import Recipe
from mmctr.data.importing.steps import import_dataset
from mmctr.errors import MMCTRError
from mmctr.runs.run import Run
from tests.fuzz import datasets, kills, runs
from tests.fuzz.cases import KINDS, MUTATIONS, Case, run

SEEDS = st.integers(0, 2**32 - 1)
EXAMPLES = {"command": 25, "dataset": 90, "log": 60, "run": 80}
# Cases that were lost when they were found; each names what was mended.
FOUND = [
    Case("dataset", ("repeat_column",), 45),  # KeyError: two columns of one name
    Case("dataset", ("not_utf8",), 470),  # ArrowException: titles that are not UTF-8
    Case("dataset", ("flipped_bytes", "drop_row", "drop_row"), 117),  # UnicodeDecodeError: a name
    Case("dataset", ("drop_row", "rename_column", "wrong_endian"), 835),  # a line break in a name
    Case("dataset", ("flipped_bytes",), 996),  # a damaged page, whose column was not named
    Case("dataset", ("damaged_metadata", "damaged_metadata"), 40907),  # RecursionError
    Case("dataset", ("odd_metadata",), 3),  # UnicodeDecodeError: what pandas notes beside a table
    Case("dataset", ("odd_covers",), 0),  # IsADirectoryError: a folder named 4.jpg
    # Told of an empty folder for a split, which is met first; the catalog was expected to be named.
    Case("dataset", ("folder_for_file", "folder_for_file"), 1),
    Case("log", ("unsigned_number",), 293),  # ArrowInvalid: ratings above 2^53
    Case("log", ("repeat_column",), 128),  # one of two columns was taken
    Case("log", ("not_utf8",), 186),  # titles were written that nothing reads back
    Case("log", ("beyond_catalog", "retype_column"), 313),  # ArrowNotImplementedError: lists as ids
    Case("run", ("json_text",), 109),  # RecursionError: deeply nested JSON
    Case("run", ("history_lines",), 1),  # text where a number belongs
    Case("run", ("tensor_other_form",), 6),  # weights in float16 were taken
    Case("run", ("predictions_table",), 64),  # predictions that are missing
    Case("run", ("tensor_other_values",), 90),  # weights that are NaN
    Case("run", ("json_key_gone",), 140),  # KeyError: a summary without gauc
    Case("run", ("json_other_value",), 86),  # TypeError: a measure that is no number
    Case("run", ("json_huge_number",), 2838),  # OverflowError: 10^30 parameters
    Case("run", ("json_huge_number",), 3961),  # OverflowError: max_history of 2^64
    Case("run", ("tensor_other_values",), 2868),  # NaN was predicted and written
]


@pytest.mark.parametrize("case", FOUND, ids=lambda case: f"{case.kind}-{case.names[0]}-{case.seed}")
def test_what_was_lost_once_is_not_lost_again(case):
    assert run(case) in ("loaded", "refused")


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_spoilt_input_is_loaded_as_it_is_or_refused(kind):
    @settings(max_examples=EXAMPLES[kind])
    @given(names=st.lists(st.sampled_from(MUTATIONS[kind]), min_size=1, max_size=3), seed=SEEDS)
    def holds(names, seed):
        assert run(Case(kind, tuple(names), seed)) in ("loaded", "refused")

    holds()


@pytest.mark.parametrize("kind", ["dataset", "log", "run"])
def test_sound_input_is_loaded(kind):
    verdicts = [run(Case(kind, (), seed)) for seed in range(12)]
    # A random log may have a user who clicked everything, or no clicks left for a split.
    assert verdicts.count("loaded") >= (7 if kind == "log" else 12), verdicts


def test_trainings_that_run_at_once_lose_nothing():
    assert kills.at_once(0) >= 2  # `make soak` does many, and kills at random moments


UNSAFE = (
    r"\bpickle\b|\bdill\b|\bjoblib\b|\bshelve\b|\bmarshal\b|torch\.(load|save)\b|read_pickle"
    r"|allow_pickle\s*=\s*True|\beval\(|\bexec\(|yaml\.load\b|np\.load\((?!.*allow_pickle=False)"
)


def test_the_package_reads_nothing_that_can_run_code():
    root = Path(mmctr.__file__).parent
    files = [*root.rglob("*.py"), *(root.parent / "notebooks").glob("*.ipynb")]
    found = [
        f"{path.name}: {line.strip()}"
        for path in files
        for line in path.read_text(encoding="utf-8").splitlines()
        if re.search(UNSAFE, line) and ".eval()" not in line
    ]
    assert len(files) > 30
    assert not found


class Payload:
    """Makes a folder when it is unpickled."""

    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


@pytest.mark.parametrize("form", ["pickle", "torch"])
@pytest.mark.parametrize("name", [runs.WEIGHTS, runs.CONFIG, runs.HISTORY, runs.PREDICTIONS])
def test_a_malicious_run_runs_nothing(tmp_path, form, name):
    trap = tmp_path / "sprung"
    folder = runs.write_run(tmp_path / "run", [], 0)
    if form == "torch":
        torch.save(Payload(trap), folder / name)
    else:
        (folder / name).write_bytes(pickle.dumps(Payload(trap)))
    with pytest.raises(MMCTRError, match=name):
        run = Run.load(folder)
        _ = run.history, run.predictions, run.model()
    assert not trap.exists()
    pickle.loads(pickle.dumps(Payload(trap)))
    assert trap.exists(), "the trap works"


@pytest.mark.parametrize("name", ["train", "item_info", "item_feature", "truth"])
def test_a_malicious_dataset_runs_nothing(tmp_path, name):
    trap = tmp_path / "sprung"
    data = datasets.write_dataset(tmp_path / "data", [], 3)
    path = data / f"{name}.parquet"
    path.write_bytes(pickle.dumps(Payload(trap)))
    for nested in data.glob(f"*/{name}.parquet"):
        nested.unlink()
    with pytest.raises(MMCTRError, match=name):
        Dataset.load(data)
    with pytest.raises(MMCTRError, match=name):
        import_dataset([path], [path], None, data / "out", Recipe())
    assert not trap.exists()
