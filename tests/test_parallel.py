"""Two processes that train together give what one gives, and only the first one writes."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import mmctr
from mmctr import cli
from mmctr.data.dataset import Dataset
from mmctr.errors import RunError
from mmctr.model.din import DIN
from mmctr.runs import train as run_train
from mmctr.runs.run import Run
from mmctr.runs.train import resume, train
from mmctr.runs.verify import verify
from mmctr.training import parts, trainer
from mmctr.training.config import configs
from mmctr.training.prediction import predict
from tests.forks import started
from tests.runs.test_unfinished import require_equal

ROOT = Path(__file__).resolve().parents[1]
# Without dropout, of which each process would draw its own.
PARAMETERS = {"dropout": 0, "attention_dropout": 0, "identity_dropout": 0, "epochs": 2}
PARAMETERS |= {
    "batch_size": 300,
    "embedding_dim": 8,
    "heads": 2,
    "hidden": [16],
    "validations": 3,
    "patience": 9,
}
SHARED = {"shard_items": True, "batch_norm": False, "max_gradient_norm": 0.05}


def train_words(data, **parameters):
    """The words of `mmctr` that train."""
    pairs = [f"-p{name}={json.dumps(value)}" for name, value in (PARAMETERS | parameters).items()]
    return ["train", "--data", str(data), "--strategy", "v4", *pairs]


def command(data, home, *, processes, **parameters):
    """Run `python -m mmctr train` on its own or by torchrun; the finished process.

    Of two processes the second would abort at the end of its interpreter, as it does now and then.
    """
    home.mkdir(exist_ok=True)
    (home / "sitecustomize.py").write_text(
        "import atexit, os\nif os.environ.get('RANK') == '1': atexit.register(os.abort)\n"
    )
    starter = [sys.executable, "-m"]
    if processes > 1:
        starter += ["torch.distributed.run", "--nproc-per-node", str(processes)]
        starter += ["--rdzv-backend", "c10d", "--rdzv-endpoint", "localhost:0", "-m"]
    environment = os.environ | {
        "MMCTR_HOME": str(home),
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(home)]),
    }
    words = [*starter, "mmctr", *train_words(data, **parameters)]
    return subprocess.run(words, env=environment, capture_output=True, text=True, check=False)


def by_torchrun(data, home, parameters):
    """Train as people do."""
    done = command(data, home, processes=2, **parameters)
    assert done.returncode == 0, done.stderr


def forked(data, home, parameters):
    """Train in two processes as torchrun starts them, but for what they import."""
    with started(be_rank, home, train_words(data, **parameters)) as ranks:
        pass
    assert [one.exitcode for one in ranks] == [0, 0]


def be_rank(rank, port, home, words):
    """Be `mmctr` in one of two processes."""
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2"}
    os.environ |= {"MASTER_ADDR": "localhost", "MASTER_PORT": str(port)}
    os.environ |= {"TORCHELASTIC_USE_AGENT_STORE": "True", "MMCTR_HOME": str(home)}
    torch.set_num_threads(1)
    sys.argv = ["mmctr", *words]
    cli.main()


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize(
    ("start", "parameters"),
    [
        (by_torchrun, {}),
        (forked, {"row_updates": True, "batch_norm": False}),
        (forked, {"row_shards": 4, "batch_norm": False}),
        # Gradients are clipped: of rows that are elsewhere the norm counts too.
        (forked, SHARED | {"row_updates": True}),
        (forked, SHARED | {"content": "finetuned", "similarity": True, "semantic_ids": True}),
        # What the rivals add, in one: a start of two processes takes seconds.
        (
            forked,
            {
                **{"attention": "mlp", "cross_attention": 1, "quadratic_layers": 1},
                **{"click_weight": 0.4, "pairwise": 0.2, "batch_norm": False},
                "epochs": 1,  # in a second one rounding grows: two threads differ from one by 2e-4
            },
        ),
    ],
)
def test_two_processes_equal_one(tiny_folder, tmp_path, start, parameters):
    start(tiny_folder, tmp_path / "two", parameters)
    (folder,) = (tmp_path / "two" / "runs").iterdir()
    two = Run.load(folder)
    changed = configs(**PARAMETERS | parameters)
    one = train(Dataset.load(tiny_folder), "v4", *changed, tmp_path / "one")
    assert (one.summary["processes"], two.summary["processes"]) == (1, 2)
    history, reference = two.history, one.history
    assert history["epoch"].tolist() == reference["epoch"].tolist()
    np.testing.assert_allclose(history["train_loss"], reference["train_loss"], rtol=1e-5)
    # A bias before batch normalisation has no gradient but rounding, which Adam scales up, and the
    # running means that predictions use follow it. Without it rounding is left, which processors do
    # in ways of their own: up to 4e-5 was seen.
    tolerance = 1e-4 if parameters.get("batch_norm") is False else 3e-3
    assert len(two.predictions) == len(one.predictions)
    np.testing.assert_allclose(
        two.predictions["probability"], one.predictions["probability"], atol=tolerance
    )
    auc, expected = (run.summary["metrics"]["auc"] for run in (two, one))
    # Rows of almost equal probability change places.
    assert auc == pytest.approx(expected, abs=2 * tolerance)


# How a training by two processes ends again and again: which is killed, before which of its steps.
KILLED = [(1, 2), (0, 12), (1, 5), (0, 6)]


def be_rank_until_killed(rank, port, home, words, killed, last):
    """Be `mmctr` in one of two processes, one of which is killed before a step or part."""
    place, name = (parts, "predict") if words[0] == "predict" else (trainer, "update")
    real, steps = getattr(place, name), iter(range(1, 1_000_000))

    def one_step(*arguments):
        if (rank, next(steps)) == (killed, last):
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*arguments)

    setattr(place, name, one_step)
    parts.ROWS = 500
    be_rank(rank, port, home, words)


def both(home, words, killed=None, last=None):
    """Run two processes of `mmctr`; torchrun, too, ends the one that the other has left."""
    with started(be_rank_until_killed, home, words, killed, last) as ranks:
        if killed is not None:
            ranks[killed].join()
            ranks[1 - killed].terminate()
    return [one.exitcode for one in ranks]


@pytest.mark.parametrize(
    ("resumed", "changes"),
    [(False, {}), (True, {}), (True, {"shard_items": True})],
    ids=["the same command", "--resume", "shares of the tables"],
)
def test_killed_processes_end_as_if_left_alone(tiny_folder, tmp_path, resumed, changes):
    parameters = {"dropout": 0.3, "identity_dropout": 0.2, "epochs": 3, "learning_rate": 0.05}
    parameters |= changes
    words = train_words(tiny_folder, **parameters)
    assert both(tmp_path / "whole", words) == [0, 0]
    (whole,) = (tmp_path / "whole" / "runs").iterdir()
    runs = tmp_path / "killed" / "runs"
    for killed, last in KILLED[1::2] if resumed else KILLED:
        ends = both(tmp_path / "killed", words, killed, last)
        assert ends[killed] == -signal.SIGKILL
        assert ends[1 - killed] != 0
        (left,) = runs.iterdir()
        if resumed:
            words = ["train", "--resume", str(left)]
    if resumed:
        with pytest.raises(
            RunError, match=r"was begun by 2 processes, found 1: go on with torchrun"
        ):
            resume(left, Dataset.load(tiny_folder))
    assert both(tmp_path / "killed", words) == [0, 0]
    (folder,) = runs.iterdir()
    require_equal(Run.load(whole), Run.load(folder))


def test_two_processes_predict_and_verify_what_one_does(monkeypatch, tiny_run, tmp_path):
    words = ["predict", str(tiny_run.folder), "--split", "train", "--out", str(tmp_path / "2.csv")]
    ends = both(tmp_path, words, killed=1, last=2)
    assert ends[1] == -signal.SIGKILL
    assert not (tmp_path / "2.csv").exists()
    kept = {part.name for folder in tmp_path.glob(".2.csv-*") for part in folder.iterdir()}
    assert "500.npy" in kept, "the killed one's first part"
    assert both(tmp_path, words) == [0, 0]
    assert both(tmp_path, ["verify", str(tiny_run.folder)]) == [0, 0]
    monkeypatch.setattr(parts, "ROWS", 500)
    monkeypatch.setattr(sys, "argv", ["mmctr", *words[:-1], str(tmp_path / "1.csv")])
    with pytest.raises(SystemExit):
        cli.main()
    assert (tmp_path / "2.csv").read_bytes() == (tmp_path / "1.csv").read_bytes()
    assert {path.name for path in tmp_path.iterdir()} == {"1.csv", "2.csv"}


def test_processes_that_share_tables_predict_and_verify_what_one_does(tiny_folder, tmp_path):
    parameters = {"shard_items": True, "row_updates": True, "epochs": 1, "content": "finetuned"}
    assert both(tmp_path, train_words(tiny_folder, **parameters)) == [0, 0]
    (folder,) = (tmp_path / "runs").iterdir()
    assert both(tmp_path, ["verify", str(folder)]) == [0, 0]
    run, dataset = Run.load(folder), Dataset.load(tiny_folder)
    assert verify(run, dataset).differing == []
    whole = DIN.for_dataset(run.model().config, dataset, run.tensor("embedding.content"))
    learned = [one.numel() for one in whole.parameters() if one.requires_grad]
    assert run.summary["parameters"] == sum(learned)
    out = tmp_path / "2.csv"
    # Five parts for two processes: one answers the other at the end.
    assert both(tmp_path, ["predict", str(folder), "--split", "train", "--out", str(out)]) == [0, 0]
    expected = predict(run.model(), dataset.train)
    assert len(expected) > 4 * 500
    np.testing.assert_allclose(pd.read_csv(out)["probability"], expected, atol=1e-6)


def test_shares_of_tables_start_from_no_run(tiny_run, tmp_path):
    words = ["train", "--from", str(tiny_run.folder), "-p", "shard_items=true"]
    assert both(tmp_path, words) == [1, 1]
    assert not (tmp_path / "runs").exists()


def test_a_wrong_parameter_is_one_sentence_of_the_first_process(tiny_folder, tmp_path):
    done = command(tiny_folder, tmp_path, processes=1, heads=0)
    assert done.returncode == 1
    assert done.stderr.startswith(
        "mmctr: Parameter 'heads' is 0, expected greater than or equal to 1"
    )
    assert not (tmp_path / "runs").exists()


def be_rank_elsewhere(rank, port, home, words, change):
    """Be `mmctr` in one of two processes, of which the second has surroundings of its own."""
    with (home / f"told-{rank}.txt").open("wb") as told:
        os.dup2(told.fileno(), sys.stderr.fileno())
    if rank == 1:
        change()
    be_rank(rank, port, home, words)


def older():
    """As where an earlier version is installed."""
    mmctr.__version__ = "0.0.1"


def other_code():
    """As where somebody has changed the library."""
    run_train.source_hash = lambda: "f" * 64


def other_data():
    """As where the data were not brought up to date."""
    load = Dataset.load

    def stale(*arguments):
        dataset = load(*arguments)
        vars(dataset)["fingerprint"] = "0" * 16
        return dataset

    Dataset.load = stale


def a_day_late():
    """As where nobody sets the clock."""
    now = time.time
    time.time = lambda: now() - 86_400


def with_elsewhere(home, words, change):
    """How two processes end, and what each of them says."""
    home.mkdir(exist_ok=True)
    with started(be_rank_elsewhere, home, words, change) as ranks:
        pass
    told = [(home / f"told-{rank}.txt").read_text() for rank in range(2)]
    return [one.exitcode for one in ranks], told


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (older, r"mmctr 0\.0\.1, .* 0\.1\.0"),
        (other_code, r"code f{16}, .* [0-9a-f]{16}"),
        (other_data, r"data 0{16}, .* [0-9a-f]{16}"),
    ],
)
def test_processes_of_several_versions_say_so(tiny_folder, tmp_path, change, found):
    ends, told = with_elsewhere(tmp_path, train_words(tiny_folder), change)
    assert ends == [1, 1]
    for said in told:
        assert re.fullmatch(
            rf"mmctr: Process 1 on \S+ has {found}: give all processes the same\.\n", said
        )
    assert not list(tmp_path.glob("runs/*"))


def test_a_clock_that_is_late_is_told_and_changes_nothing(tiny_folder, tmp_path):
    ends, told = with_elsewhere(tmp_path / "late", train_words(tiny_folder), a_day_late)
    assert ends == [0, 0]
    assert re.fullmatch(
        r"mmctr: the clock of process 1 on \S+ is 864\d\d s behind that of process 0 on \S+: "
        r"the dates of what it writes are wrong; set that machine's clock\.\n",
        told[1],
    )
    assert both(tmp_path / "right", train_words(tiny_folder)) == [0, 0]
    late, right = ((tmp_path / name / "runs") for name in ("late", "right"))
    require_equal(*(Run.load(next(runs.iterdir())) for runs in (late, right)))
