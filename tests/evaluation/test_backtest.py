"""A backtest is what training window after window gives, and a killed one goes on where it was."""

import shutil
from dataclasses import replace

import nbformat
import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import roc_auc_score

from mmctr.content.fusion import item_embeddings
from mmctr.errors import DataError, MMCTRError, RunError
from mmctr.evaluation import backtest as backtests
from mmctr.evaluation.backtest import COLD, POPULARITY, STALE, WARM, Backtest, backtest
from mmctr.evaluation.windows import windows
from mmctr.files import alone
from mmctr.model.din import DIN
from mmctr.report.execution import recorded
from mmctr.report.make import make_page
from mmctr.report.pages import FIGURE
from mmctr.training.config import configs
from mmctr.training.prediction import predict
from mmctr.training.trainer import fit
from tests.captions import require_true_captions
from tests.data.folders import load_changed
from tests.evaluation.timed import timed

FIXED = {"seed": 3, "epochs": 2, "validations": 1, "embedding_dim": 4, "heads": 1, "hidden": [8]}
FIXED |= {"batch_size": 64, "learning_rate": 0.01}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """The log, split by date; do not change it."""
    return timed(tmp_path_factory.mktemp("log"))


@pytest.fixture(scope="module")
def tested(dataset, tmp_path_factory):
    """A backtest of three windows; do not change it."""
    return backtest(dataset, "v1", tmp_path_factory.mktemp("runs") / "b", count=3, fixed=FIXED)


def trained(data, embedding, weights=None, fresh=None):
    """A model as the backtest should train it, step by step."""
    model_config, config = configs(**FIXED)
    torch.manual_seed(FIXED["seed"])
    model = DIN.for_dataset(model_config, data, embedding)
    if weights is not None:
        own = model.embedding.id.weight.detach().clone()
        model.load_state_dict(weights, strict=False)
        model.embedding.id.weight.data[fresh] = own[fresh]
    torch.manual_seed(FIXED["seed"])
    progress = fit(model, data, config)
    return model, progress


def test_every_start_is_what_training_by_hand_gives(tested, dataset):
    embedding = item_embeddings(dataset, "v1")
    planned, warm, found = windows(dataset, 3), None, tested.auc.query("group == 'all'")
    clicked = np.zeros(dataset.catalog.n_items + 1)
    for number, window in enumerate(planned, start=1):
        whole, newest = window.datasets()
        rows = whole.split("test")
        models = {COLD: trained(whole, embedding)[0]}
        if number == 1:
            models[WARM], stale = models[COLD], models[COLD].learned_state()
            known = models[COLD].embedding.known
        else:
            models[WARM] = trained(newest, embedding, warm, clicked == 0)[0]
        models[STALE] = DIN.for_dataset(configs(**FIXED)[0], whole, embedding)
        models[STALE].load_state_dict(stale, strict=False)
        if known is not None:
            models[STALE].embedding.known.copy_(known)
        warm, clicked = models[WARM].learned_state(), whole.train_clicks()
        scores = {name: predict(model, rows) for name, model in models.items()}
        scores[POPULARITY] = clicked[rows.target]
        expected = {name: roc_auc_score(rows.label, score) for name, score in scores.items()}
        part = found[found["window"] == number].set_index("system")["auc"]
        assert part.to_dict() == pytest.approx(expected)
        assert list(part.index) == [COLD, WARM, STALE, POPULARITY]
    trainings = tested.training.set_index(["window", "start"])
    assert trainings.loc[(3, WARM), "rows"] == len(newest.train)
    assert trainings.loc[(3, COLD), "rows"] == len(whole.train)
    assert (trainings["epochs"] <= 2).all() and (trainings["seconds"] > 0).all()
    assert {path.name for path in tested.folder.iterdir()} == {
        "backtest.json",
        *(f"window-{number}.json" for number in (1, 2, 3)),
    }


def test_what_was_hidden_from_the_first_model_stays_hidden(dataset, tmp_path, monkeypatch):
    """With identities hidden, items that were first clicked later are unknown to an old model."""
    seen = []
    scored = backtests.predict
    monkeypatch.setattr(
        backtests, "predict", lambda m, *rest, **kw: seen.append(m) or scored(m, *rest, **kw)
    )
    hiding = FIXED | {"identity_dropout": 0.2, "epochs": 1}
    backtest(dataset, "ids", tmp_path / "b", count=2, fixed=hiding)
    clicks = [window.clicks >= 1 for window in windows(dataset, 2)]
    assert (clicks[0] != clicks[1]).any()
    known = [model.embedding.known.numpy().tolist() for model in seen]
    first, second = (one.tolist() for one in clicks)
    assert known == [first, first, first, second, second, first]


def without_seconds(tested):
    return [
        window | {"training": [t | {"seconds": 0} for t in window["training"]]}
        for window in tested.windows
    ]


@pytest.mark.parametrize("trainings", [1, 2])
def test_a_killed_backtest_goes_on(tested, dataset, tmp_path, monkeypatch, trainings):
    """Of five trainings the next one is interrupted."""
    done = []

    def interrupted(*arguments):
        if len(done) == trainings:
            raise KeyboardInterrupt
        done.append(1)
        return fit(*arguments)

    folder = tmp_path / "b"
    with monkeypatch.context() as patch:
        patch.setattr(backtests, "fit", interrupted)
        with pytest.raises(KeyboardInterrupt):
            backtest(dataset, "v1", folder, count=3, fixed=FIXED)
    kept = Backtest.load(folder).windows
    assert len(kept) == (trainings + 1) // 2
    again = backtest(dataset, "v1", folder, count=3, fixed=FIXED)
    assert again.windows[: len(kept)] == kept, "seconds and all: they were not tested again"
    assert without_seconds(again) == without_seconds(tested)


def test_weights_that_are_damaged_are_one_sentence(dataset, tmp_path, monkeypatch):
    def kill(*_, **__):
        raise KeyboardInterrupt

    folder, count = tmp_path / "b", iter(range(9))
    with monkeypatch.context() as patch:
        patch.setattr(backtests, "fit", lambda *a: kill() if next(count) else fit(*a))
        with pytest.raises(KeyboardInterrupt):
            backtest(dataset, "v1", folder, count=2, fixed=FIXED)
    (folder / "window-1.safetensors").write_bytes(b"no weights")
    with pytest.raises(RunError, match=r"window-1\.safetensors cannot be read .*: delete") as error:
        backtest(dataset, "v1", folder, count=2, fixed=FIXED)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("strategy", "count", "fixed", "message"),
    [
        ("ids", 3, {}, "is a backtest with strategy v1, not ids: choose another folder with --out"),
        ("v1", 2, {}, "is a backtest with windows 3, not 2"),
        ("v1", 3, {"seed": 4}, r"is a backtest with parameters \{.*'seed': 3.*\}, not \{.*: 4"),
        ("v9", 3, {}, "Strategy 'v9' is unknown"),
        ("v2", 3, {}, "Strategy 'v2' needs image features"),
        ("v1", 3, {"heads": "many"}, "Parameter 'heads' is 'many', expected a valid integer"),
        ("v1", 3, {"rows": 9}, "Found rows=9, expected none: windows cut the rows by time"),
        ("v1", 99, {}, r"Window \d+ of 99 has .* choose fewer windows"),
    ],
)
def test_what_cannot_be_tested_is_one_sentence(tested, dataset, strategy, count, fixed, message):
    with pytest.raises(MMCTRError, match=message) as error:
        backtest(dataset, strategy, tested.folder, count=count, fixed=FIXED | fixed)
    assert "\n" not in str(error.value)
    assert Backtest.load(tested.folder).windows == tested.windows


def test_other_data_are_another_backtest(tested, dataset, tmp_path):
    other = replace(dataset)
    vars(other)["fingerprint"] = "another"
    with pytest.raises(RunError, match=r"is a backtest with dataset \w+, not another"):
        backtest(other, "v1", tested.folder, count=3, fixed=FIXED)
    timeless = load_changed(tmp_path / "timeless", {})
    with pytest.raises(DataError, match="has no column time"):
        backtest(timeless, "ids", tmp_path / "b", count=3, fixed=FIXED)
    assert not (tmp_path / "b").exists()


def test_one_process_at_a_time(tested, dataset):
    with alone(tested.folder), pytest.raises(MMCTRError, match="is being tested by another"):
        backtest(dataset, "v1", tested.folder, count=3, fixed=FIXED)


def test_damaged_folders_are_one_sentence(tested, tmp_path):
    with pytest.raises(RunError, match="is not a readable backtest"):
        Backtest.load(tmp_path / "nowhere")
    copy = shutil.copytree(tested.folder, tmp_path / "copy")
    (copy / "window-2.json").write_text("{")
    with pytest.raises(RunError, match="is not a readable backtest"):
        Backtest.load(copy)


def test_groups_are_measured_as_by_hand_and_lack_what_they_lack():
    rng = np.random.default_rng(0)
    clicks = np.repeat([0, 0, 1, 4, 5, 90], 20)
    user, label = rng.integers(0, 12, 120), rng.integers(0, 2, 120).astype(np.float32)
    label[clicks == 0] = 0
    scores = {"a": rng.random(120), "b": label + 2 * rng.random(120)}
    table = pd.DataFrame(backtests.measured(user, label, clicks, scores))
    groups = {"all": clicks >= 0, "new": clicks < 1, "cold": (clicks > 0) & (clicks < 5)}
    for group, rows in (groups | {"warm": clicks >= 5}).items():
        for name, score in scores.items():
            (found,) = table.query("group == @group and system == @name").to_dict("records")
            assert (found["rows"], found["clicks"]) == (rows.sum(), label[rows].sum())
            numbers = [v for key, v in found.items() if key[:3] in ("auc", "low", "hig", "dif")]
            if group == "new":
                assert np.isnan(numbers).all()
                continue
            expected = roc_auc_score(label[rows], score[rows])
            beside = expected - roc_auc_score(label[rows], scores["a"][rows])
            assert (found["auc"], found["difference"]) == pytest.approx((expected, beside))
            assert found["low"] < expected < found["high"]
            if name == "a":
                assert numbers[3:] == [0, 0, 0]
            else:
                assert 0 < found["difference_low"] < beside < found["difference_high"]


def scripted(*windows):
    """A backtest of given numbers: of each window the AUCs of warm and stale beside a cold 0.8."""
    lines = []
    for number, (warm, stale, seconds) in enumerate(windows, start=1):
        lines.append({"window": number, "from": f"2024-0{number}-01T00:00:00"})
        lines[-1]["training"] = [
            {"start": start, "rows": 10, "epochs": 1.0, "samples": 10, "seconds": took}
            for start, took in ((COLD, 10.0), (WARM, seconds))
        ]
        lines[-1]["auc"] = [
            {"group": group, "rows": 9, "clicks": 3, "system": system, "auc": 0.8 + change}
            | {"low": 0.7, "high": 0.9, "difference": change}
            | {"difference_low": change - 0.003, "difference_high": change + 0.003}
            for group in ("all", "new")
            for system, change in ((COLD, 0.0), (WARM, warm), (STALE, stale), (POPULARITY, -0.1))
        ]
    return Backtest(None, {}, lines)


def test_the_verdict_says_how_much_and_whether_it_could_be_chance():
    found = scripted((0, 0, 10.0), (0.001, -0.02, 4.0), (0.002, -0.04, 2.0))
    # Two windows of half-width 0.003: half as much as the root of the sum of their squares.
    half = 0.003 * 2**0.5 / 2
    interval = f"{0.0015 - half:+.4f} to {0.0015 + half:+.4f}"
    assert found.change(WARM) == f"+0.0015 (95% interval {interval}, which could be chance)"
    assert found.change(STALE) == "-0.0300 (95% interval -0.0321 to -0.0279)"
    assert found.change(WARM, "cold") == "unknown"
    assert "takes 30% of the time (3.0 s for a window instead of 10.0 s)" in found.verdict
    assert "in the last window by -0.0400" in found.verdict
    assert found.summary.columns.tolist()[3:] == [
        COLD,
        WARM,
        STALE,
        POPULARITY,
        f"{COLD} (s)",
        f"{WARM} (s)",
    ]
    assert found.summary[WARM].tolist() == pytest.approx([0.8, 0.801, 0.802])
    assert "test more windows" in scripted((0, 0, 1.0)).verdict


def test_the_page_shows_the_backtest(tested, dataset, tmp_path, monkeypatch):
    monkeypatch.setenv("MMCTR_HOME", str(tmp_path))
    shutil.copytree(tested.folder, tmp_path / "runs" / "b")
    page = make_page("10_backtest", dataset, {}, tmp_path / "reports" / "b")
    executed = nbformat.read(page.parent / "notebooks" / "10_backtest.ipynb", as_version=4)
    require_true_captions(executed)
    shown = [output for cell in executed.cells for output in cell.get("outputs", [])]
    assert sum(FIGURE in output.get("data", {}) for output in shown) == 4
    last = tested.summary.iloc[-1]
    assert recorded(executed)["auc"] == pytest.approx({n: last[n] for n in (COLD, WARM, STALE)})
    text = page.read_text(encoding="utf-8")
    assert tested.verdict.split(".")[0] in text
