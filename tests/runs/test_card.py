"""The card says what the run says, and its code runs."""

import json
import re
import shutil

import huggingface_hub
import pytest

from mmctr.runs.run import Run
from mmctr.training.config import configs
from tests.forks import PROCESSES


@pytest.fixture
def saved(tiny_run, tmp_path):
    """The tiny run's model in a folder of its own."""
    tiny_run.model().save_pretrained(tmp_path / "saved")
    return tmp_path / "saved"


def test_the_card_says_what_the_run_says(tiny, tiny_run, saved):
    card = huggingface_hub.ModelCard.load(saved / "README.md")
    assert card.data.library_name == "mmctr"
    values = dict(re.findall(r"^\| ([^|]+) \| ([\d.]+) \|$", card.text, re.MULTILINE))
    metrics = tiny_run.summary["metrics"]
    low, high = metrics["auc_interval"]
    for name, value in {
        "AUC": metrics["auc"],
        "AUC, 95% interval from": low,
        "AUC, 95% interval to": high,
        "GAUC": metrics["gauc"],
        "logloss (nats)": metrics["logloss"],
        "AUC of oracle": tiny_run.summary["reference_auc"]["oracle"],
    }.items():
        assert float(values[name]) == pytest.approx(value, abs=5e-7), name
    assert tiny.fingerprint in card.text
    assert "simulated" in card.text
    assert tiny_run.summary["item_embedding_sha256"] in card.text
    assert str(tiny.folder.parent) not in card.text, "no paths of the machine"
    parameters = json.loads(re.search(r"```json\n(.*?)```", card.text, re.DOTALL)[1])
    assert configs(**parameters["model"], **parameters["training"])
    assert parameters["strategy"] == "v4"


def scored(code, pipe):
    """Run the code of a card, and send how many probabilities it gives."""
    names = {}
    exec(code, names)
    pipe.send(len(names["probability"]))


def test_the_code_on_the_card_runs(tiny, saved):
    code = re.search(r"```python\n(.*?)```", (saved / "README.md").read_text(), re.DOTALL)[1]
    code = code.replace('"NAME"', repr(str(saved))).replace('"FOLDER"', repr(str(tiny.folder)))
    ours, theirs = PROCESSES.Pipe()
    process = PROCESSES.Process(target=scored, args=(code, theirs))
    process.start()
    theirs.close()
    assert ours.recv() == len(tiny.split("test"))
    process.join()


def test_a_run_of_an_earlier_version_has_a_card(tiny_run, tmp_path):
    folder = shutil.copytree(tiny_run.folder, tmp_path / "run")
    summary = json.loads((folder / "summary.json").read_text())
    for name in ("date", "versions", "git", "reference_auc", "item_embedding_sha256"):
        del summary[name]
    (folder / "summary.json").write_text(json.dumps(summary))
    assert "| AUC |" in Run.load(folder).model().card


@pytest.mark.parametrize(
    ("stated", "said"),
    [
        ({"negatives": "shown"}, ["impressions of the valid", "impressions that were not clicked"]),
        ({"negatives": "outcome"}, ["rows of the valid", "negatives: tried and not liked"]),
        (
            {"negatives": "sampled", "negatives_per_click": 3},
            ["rows of the valid", "artificial rate: 3 negatives were drawn for each click"],
        ),
        ({"negatives": "unknown"}, ["negatives: it is not known where they come from"]),
    ],
)
def test_the_card_says_where_negatives_come_from(tiny_run, tmp_path, stated, said):
    folder = shutil.copytree(tiny_run.folder, tmp_path / "run")
    summary = json.loads((folder / "summary.json").read_text())
    summary["dataset"] |= {"simulated": False} | stated
    summary["metrics"]["gauc_impression"] = 0.625
    (folder / "summary.json").write_text(json.dumps(summary))
    card = Run.load(folder).model().card
    assert all(words in card for words in said), card
    assert "| GAUC by impression | 0.625000 |" in card
    assert ("artificial" in card) == (stated["negatives"] == "sampled")
