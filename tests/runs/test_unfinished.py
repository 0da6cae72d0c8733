"""A training that is killed at any step and resumed is bit for bit the one that was left alone."""

import contextlib
import dataclasses
import io
import os
import signal
import sys

import pytest
import torch

from mmctr import cli
from mmctr.data.dataset import Dataset
from mmctr.data.demo import write_demo
from mmctr.errors import MMCTRError, RunError
from mmctr.runs.run import Run
from mmctr.runs.train import resume, train
from mmctr.runs.unfinished import CHECKPOINT, UnfinishedRun
from mmctr.training import trainer
from mmctr.training.batches import Batches
from mmctr.training.config import configs
from tests.forks import PROCESSES
from tests.runs.conftest import with_other_ids

# Dropout, batch normalisation and the cut of the learning rate within the run are all in it.
PARAMETERS = {
    "epochs": 3,
    "batch_size": 128,
    "embedding_dim": 8,
    "heads": 2,
    "hidden": (16,),
    "dropout": 0.3,
    "patience": 4,
    "validations": 3,
    "learning_rate": 0.03,
}


def train_until_killed(data, runs, last, parameters):
    """Train, or go on with what is left; this process's step of number `last` is its end."""
    torch.set_num_threads(1)
    real, steps = trainer.update, iter(range(1, 1_000_000))

    def update(*arguments):
        if next(steps) == last:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*arguments)

    trainer.update = update
    dataset = Dataset.load(data)
    found = list(runs.glob("*-unfinished")) if runs.exists() else []
    if found:
        resume(found[0], dataset)
    else:
        train(dataset, "v1", *configs(**parameters), runs)


def stop_at(monkeypatch, step, error):
    """Have training raise an error at its step of that number, counted from 1."""
    real, steps = trainer.update, iter(range(1, 1_000_000))

    def update(*arguments):
        if next(steps) == step:
            raise error
        return real(*arguments)

    monkeypatch.setattr(trainer, "update", update)


def require_equal(first: Run, second: Run):
    """The very same weights, predictions, learning curve and metrics."""
    for name in ("model.safetensors", "predictions.parquet", "config.json"):
        assert (first.folder / name).read_bytes() == (second.folder / name).read_bytes(), name
    curves = [run.history.drop(columns="seconds") for run in (first, second)]
    assert curves[0].equals(curves[1])
    for name in ("metrics", "reference_auc", "best_epoch", "dataset"):
        assert first.summary[name] == second.summary[name]


def test_a_killed_run_ends_as_if_left_alone(one_thread, tiny, tiny_folder, tmp_path):
    parameters = PARAMETERS | {"learning_rate": 0.2}
    whole = train(tiny, "v1", *configs(**parameters), tmp_path / "whole")
    assert whole.history["learning_rate"].nunique() > 1, "a cut of the rate is to be resumed too"
    runs = tmp_path / "killed"
    # Before the first validation, after it, in the next epoch; then never.
    for last in (2, 9, 22, 10**6):
        one = PROCESSES.Process(
            target=train_until_killed, args=(tiny_folder, runs, last, parameters)
        )
        one.start()
        one.join()
        if last == 10**6:
            assert one.exitcode == 0
            continue
        assert one.exitcode == -signal.SIGKILL
        (left,) = runs.iterdir()
        with pytest.raises(RunError, match="is not a finished run"):
            Run.load(left)
    (folder,) = runs.iterdir()  # nothing unfinished is left
    require_equal(whole, Run.load(folder))


@pytest.mark.parametrize(
    "changed",
    [{"row_updates": True, "content": "finetuned"}, {"preset": "din"}, {"patience": 3}],
    ids=["rows", "din", "early stop"],
)
def test_other_trainings_resume_too(monkeypatch, one_thread, tiny, tmp_path, changed):
    parameters = configs(**PARAMETERS | changed)
    whole = train(tiny, "v1", *parameters, tmp_path / "whole")
    with monkeypatch.context() as patch:
        stop_at(patch, 10, KeyboardInterrupt())
        with pytest.raises(RunError):
            train(tiny, "v1", *parameters, tmp_path / "again")
    (left,) = (tmp_path / "again").iterdir()
    with monkeypatch.context() as patch:
        # From step 6: in the second epoch, and before patience can be at an end.
        stop_at(patch, 17, KeyboardInterrupt())
        with pytest.raises(RunError):
            resume(left, tiny)
    require_equal(whole, resume(left, tiny))


def test_fresh_negatives_are_the_same_when_resumed(monkeypatch, one_thread, tiny, tmp_path):
    drawn = dataclasses.replace(tiny)
    vars(drawn)["fingerprint"] = tiny.fingerprint
    parameters = configs(**PARAMETERS)
    shown = train(tiny, "v1", *parameters, tmp_path / "shown")
    vars(drawn)["negative_sampling"] = "uniform"
    whole = train(drawn, "v1", *parameters, tmp_path / "whole")
    assert not shown.history.equals(whole.history), "they matter"
    with monkeypatch.context() as patch:
        stop_at(patch, 17, KeyboardInterrupt())
        with pytest.raises(RunError):
            train(drawn, "v1", *parameters, tmp_path / "again")
    (left,) = (tmp_path / "again").iterdir()
    require_equal(whole, resume(left, drawn))


def test_every_step_can_be_the_last(monkeypatch, one_thread, tiny, tmp_path):
    parameters = configs(**PARAMETERS | {"epochs": 1})
    whole = train(tiny, "v1", *parameters, tmp_path / "whole")
    steps = -(-len(tiny.train) // PARAMETERS["batch_size"])
    for step in range(1, steps + 1):
        with monkeypatch.context() as patch:
            stop_at(patch, step, KeyboardInterrupt())
            with pytest.raises(RunError, match="mmctr train --resume"):
                train(tiny, "v1", *parameters, tmp_path / f"{step}")
        (left,) = (tmp_path / f"{step}").iterdir()
        require_equal(whole, resume(left, tiny))
        assert not left.exists()


def test_an_epoch_starts_in_its_middle(tiny, tiny_run):
    batches = Batches(tiny.train, tiny_run.model())
    wanted = list(batches.shuffled(100, torch.Generator().manual_seed(4)))
    for first in (0, 1, 7, len(wanted)):
        generator = torch.Generator().manual_seed(4)
        found = list(batches.shuffled(100, generator, first=first))
        assert len(found) == len(wanted) - first
        for one, other in zip(found, wanted[first:], strict=True):
            assert torch.equal(one.items[one.target], other.items[other.target])
            assert torch.equal(one.label, other.label)


def test_control_c_says_how_to_go_on(monkeypatch, capsys, one_thread, tiny_folder, tmp_path):
    monkeypatch.setenv("MMCTR_HOME", str(tmp_path))
    pairs = [word for name in ("epochs=1", "hidden=[8]", "batch_size=128") for word in ("-p", name)]

    def call(*words):
        monkeypatch.setattr(sys, "argv", ["mmctr", *map(str, words)])
        with pytest.raises(SystemExit) as end:
            cli.main()
            sys.exit(0)
        out = capsys.readouterr()
        return end.value.code or 0, out.out, out.err

    words = ["train", "--data", tiny_folder, "--strategy", "v1", "--seed", 3, *pairs]
    real, steps = trainer.update, iter(range(1, 100))

    def update(*arguments):
        if next(steps) == 8:
            os.kill(os.getpid(), signal.SIGINT)  # what the terminal sends
        return real(*arguments)

    # A shell that runs the tests in the background has it ignored.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    with monkeypatch.context() as patch:
        patch.setattr(trainer, "update", update)
        status, _, error = call(*words)
    signal.signal(signal.SIGINT, before)
    (left,) = (tmp_path / "runs").iterdir()
    last = error.strip().splitlines()[-1]
    assert (status, "Traceback" in error) == (1, False)
    assert last.endswith(f"go on with mmctr train --resume {left}.")
    status, _, error = call("train", "--resume", left, "--seed", 3)
    assert status == 1
    assert "leave out --strategy, --seed, --click-rate, --exclude and -p" in error
    status, out, _ = call("train", "--resume", left)
    assert status == 0
    resumed = Run.load(out.splitlines()[-1])
    status, out, _ = call(*words)
    require_equal(Run.load(out.splitlines()[-1]), resumed)


def test_what_cannot_be_resumed(monkeypatch, tiny, tiny_run, tmp_path):
    with pytest.raises(RunError, match="is not an unfinished run"):
        resume(tiny_run.folder, tiny)
    with pytest.raises(RunError, match="is not an unfinished run"):
        resume(tmp_path / "absent", tiny)
    stop_at(monkeypatch, 12, KeyboardInterrupt())
    with pytest.raises(RunError):
        train(tiny, "v1", *configs(**PARAMETERS), tmp_path / "runs")
    (left,) = (tmp_path / "runs").iterdir()
    other = Dataset.load(write_demo(tmp_path / "other", seed=2, items=300, users=240))
    with pytest.raises(RunError, match="choose the run's own dataset"):
        resume(left, other)
    checkpoint = left / CHECKPOINT
    sound = checkpoint.read_bytes()
    for damaged in (b"", sound[:100], sound[: len(sound) // 2]):
        checkpoint.write_bytes(damaged)
        with pytest.raises(MMCTRError, match="is damaged"):
            resume(left, tiny)
    assert UnfinishedRun.load(left).config["strategy"] == "v1"


def test_items_with_other_own_ids_are_not_gone_on_with(named_run, named, tmp_path):
    left = UnfinishedRun.begin(tmp_path, named, named_run.config).folder
    with pytest.raises(RunError, match="was trained on items with other ids than") as caught:
        resume(left, with_other_ids(named))
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == [left]


def test_seconds_add_up(monkeypatch, tiny, tmp_path):
    stop_at(monkeypatch, 12, KeyboardInterrupt())
    with pytest.raises(RunError):
        train(tiny, "v1", *configs(**PARAMETERS), tmp_path / "runs")
    (left,) = (tmp_path / "runs").iterdir()
    unfinished = UnfinishedRun.load(left)
    groups, values = unfinished.saved()
    values["seconds"]["forward"] += 1000
    unfinished.save((groups, values))
    run = resume(left, tiny)
    before, *after = run.history["seconds"]
    assert before < 1000 < min(after)
    assert run.summary["seconds"]["training"] > 1000
    assert run.summary["cost"]["seconds"]["forward"] > 1000


SMALL = [word for name in ("epochs=1", "hidden=[8]", "batch_size=128") for word in ("-p", name)]


def wait_within(words, home, pipe):
    """`mmctr` as it is, but its tenth step waits for an answer; what it says is sent at the end."""
    torch.set_num_threads(1)
    os.environ["MMCTR_HOME"] = str(home)
    sys.argv = ["mmctr", *map(str, words)]
    real, steps = trainer.update, iter(range(1, 1_000_000))

    def update(*arguments):
        if next(steps) == 10:
            pipe.send("waiting")
            pipe.recv()
        return real(*arguments)

    trainer.update = update
    with contextlib.redirect_stdout(io.StringIO()) as said:
        try:
            cli.main()
        finally:
            pipe.send(said.getvalue())


@pytest.fixture
def process(tmp_path):
    """Start `mmctr` in a process of its own that waits in the midst; killed at the end."""
    begun = []

    def start(*words):
        ours, theirs = PROCESSES.Pipe()
        begun.append(PROCESSES.Process(target=wait_within, args=(words, tmp_path, theirs)))
        begun[-1].start()
        theirs.close()
        return begun[-1], ours

    yield start
    for one in begun:
        one.kill()
        one.join()


def test_trainings_of_one_moment_have_folders_of_their_own(process, tiny_folder, tiny, tmp_path):
    words = ("train", "--data", tiny_folder, "--strategy", "v1", *SMALL)
    both = [process(*words) for _ in range(2)]
    for _, pipe in both:
        assert pipe.recv() == "waiting"
    left = list((tmp_path / "runs").iterdir())
    assert len(left) == 2
    for folder in left:
        with pytest.raises(MMCTRError, match=f"{folder} is being trained by another process: wait"):
            resume(folder, tiny)
    for _, pipe in both:
        pipe.send("go on")
    finished = {pipe.recv().splitlines()[-1] for _, pipe in both}
    for one, _ in both:
        one.join()
    assert [one.exitcode for one, _ in both] == [0, 0]
    assert finished == {str(path) for path in (tmp_path / "runs").iterdir()}
    require_equal(*map(Run.load, finished))


def test_the_same_training_goes_on_with_what_was_killed(
    process, one_thread, tiny_folder, tiny, tmp_path
):
    killed, pipe = process("train", "--data", tiny_folder, "--strategy", "v1", *SMALL)
    assert pipe.recv() == "waiting"
    killed.kill()
    killed.join()
    (left,) = (tmp_path / "runs").iterdir()
    assert UnfinishedRun.load(left).is_free(), "a lock does not outlive its process"
    assert UnfinishedRun.load(left).saved()[1]["step"] > 0
    parameters = {"epochs": 1, "hidden": (8,), "batch_size": 128}
    train(tiny, "v1", *configs(**parameters, learning_rate=0.004), tmp_path / "runs")
    assert left.exists(), "other parameters are another training"
    resumed = train(tiny, "v1", *configs(**parameters), tmp_path / "runs")
    assert not left.exists()
    require_equal(resumed, train(tiny, "v1", *configs(**parameters), tmp_path / "runs"))


def test_what_was_begun_otherwise_or_is_damaged_is_left_alone(monkeypatch, tiny, tmp_path):
    config = {"strategy": "v1", "model": {}, "training": {"seed": 1}}
    begun = UnfinishedRun.begin(tmp_path, tiny, config)
    assert UnfinishedRun.begin(tmp_path, tiny, config) != begun, "it may be just starting"
    begun.save(({"weights": {"a": torch.ones(1)}}, {"step": 1}))
    assert UnfinishedRun.begin(tmp_path, tiny, config) == begun
    assert UnfinishedRun.begin(tmp_path, tiny, config | {"strategy": "v2"}) != begun
    with monkeypatch.context() as patch:
        patch.setattr("mmctr.runs.unfinished.source_hash", lambda: "other code")
        assert UnfinishedRun.begin(tmp_path, tiny, config) != begun
    (begun.folder / CHECKPOINT).write_bytes(b"damaged")
    assert UnfinishedRun.begin(tmp_path, tiny, config) != begun


def test_shares_go_on_from_the_last_state_that_all_processes_have(monkeypatch, tiny, tmp_path):
    config = {"strategy": "v1", "model": {}, "processes": 2}
    config["training"] = {"seed": 1, "shard_items": True}
    begun = UnfinishedRun.begin(tmp_path, tiny, config)
    of_others = []
    monkeypatch.setattr("mmctr.parallel.gathered", lambda own: [own, of_others])

    def save(samples):
        begun.save(({"weights": {"a": torch.full((1,), samples)}}, {"samples": samples}))

    assert begun.saved() is None
    save(100)
    with monkeypatch.context() as patch:
        patch.setattr("mmctr.parallel.wait_for_all", killed)
        with pytest.raises(KeyboardInterrupt):
            save(200)
    for others, wanted in (([], None), ([100], 100), ([100, 200], 200), ([200], 200)):
        of_others[:] = others
        state = begun.saved()
        assert wanted == (state and state[1]["samples"])
        assert state is None or state[0]["weights"]["a"].tolist() == [wanted]
    save(300)
    of_others[:] = [300]
    assert begun.saved()[1]["samples"] == 300
    assert len(list(begun.folder.glob("checkpoint*"))) == 1, "of those before none is needed"


def killed():
    """What a process does that is killed."""
    raise KeyboardInterrupt
