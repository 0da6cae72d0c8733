"""A folder that may not be written or is full: one sentence, and earlier runs stay."""

import ctypes
import json
import os
import resource
import shutil
import subprocess
import sys

import pytest

from mmctr.runs.run import Run

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="limits as Linux has them")
# Several command lines in one process: most of a second goes into starting it.
MAIN = """
import contextlib, io, json, sys
from mmctr.cli import main
ended = []
for words in json.loads(sys.argv[1]):
    sys.argv = ["mmctr", *words]
    said = io.StringIO()
    with contextlib.redirect_stderr(said):
        try:
            main()
        except SystemExit as end:
            print("" if end.code else "mmctr: it went well", end="", file=sys.stderr)
    ended.append(said.getvalue())
print(json.dumps(ended))
"""
SMALL = [word for name in ("epochs=1", "hidden=[8]", "batch_size=128") for word in ("-p", name)]
PR_CAPBSET_DROP, CAP_DAC_OVERRIDE = 24, 1


def as_anybody():
    """Root may write everywhere, unless it gives that right up."""
    if os.geteuid() == 0:
        ctypes.CDLL(None).prctl(PR_CAPBSET_DROP, CAP_DAC_OVERRIDE)


def with_little_room():
    """No file may grow beyond 20 kB: a full disk, for one process."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))


def call(home, *lines, before=None, code=MAIN):
    """The last thing that `mmctr` says to each command line."""
    done = subprocess.run(
        [sys.executable, "-c", code, json.dumps([[str(word) for word in line] for line in lines])],
        capture_output=True,
        text=True,
        env=dict(os.environ, MMCTR_HOME=str(home)),
        preexec_fn=before,
    )
    assert done.returncode == 0, done.stderr  # a traceback would end it
    return [said[said.rindex("mmctr: ") :] for said in json.loads(done.stdout.splitlines()[-1])]


@pytest.fixture
def home(tiny_run, tmp_path):
    """A home that keeps an earlier run."""
    shutil.copytree(tiny_run.folder, tmp_path / "home" / "runs" / "earlier")
    (tmp_path / "home" / "data").mkdir()
    (tmp_path / "home" / "reports").mkdir()
    return tmp_path / "home"


def commands(home, data):
    """Command lines that write below `home`."""
    run = home / "runs" / "earlier"
    return [
        ("train", "--data", data, "--strategy", "v1", *SMALL),
        ("data", "demo"),
        ("search", "--data", data, "--strategy", "v1", "--trials", 1),
        ("report", "--data", data, "--strategies", "v1", "--seeds", 1),
        ("predict", run, "--data", data, "--out", home / "data" / "out.csv"),
    ]


def require_sentences(home, said):
    for sentence in said:
        assert "\n" not in sentence.strip() and sentence.strip().endswith("."), sentence
        assert str(home) in sentence
    assert Run.load(home / "runs" / "earlier").model()
    assert not list(home.rglob(".*")), "nothing half-written is left"


def test_a_folder_that_may_not_be_written_is_named(home, tiny_folder):
    for folder in ("data", "runs", "reports"):
        (home / folder).chmod(0o555)
    said = call(home, *commands(home, tiny_folder), before=as_anybody)
    require_sentences(home, said)
    assert all("Permission denied" in sentence for sentence in said), said
    assert [path.name for path in (home / "runs").iterdir()] == ["earlier"]


def test_a_full_disk_is_told(home, tiny_folder):
    # What predict writes here is smaller than the limit.
    said = call(home, *commands(home, tiny_folder)[:-1], before=with_little_room)
    require_sentences(home, said)


# At its tenth step, which is after the first validation.
VANISHES = (
    """
import shutil
from mmctr.files import home
from mmctr.training import trainer
real, steps = trainer.update, 0
def update(*arguments):
    global steps
    steps += 1
    if steps == 10:
        shutil.rmtree(home() / "runs")
    return real(*arguments)
trainer.update = update
"""
    + MAIN
)


def test_a_folder_that_vanishes_while_training_costs_nothing(home, tiny_folder):
    (said,) = call(home, commands(home, tiny_folder)[0], code=VANISHES)
    assert said == "mmctr: it went well"
    (folder,) = (home / "runs").iterdir()
    assert Run.load(folder).model()
