"""What is wrong with a Spark cluster is one sentence."""

import importlib.util
from pathlib import Path
from types import SimpleNamespace

import duckdb
import pytest

import mmctr
from mmctr.data.importing.cluster import Cluster, cluster, reason, require_workers
from mmctr.data.importing.recipe import Recipe
from mmctr.data.importing.steps import import_dataset
from mmctr.errors import MMCTRError
from tests.data.importing.logs import ITEMS

HERE = "a", mmctr.__version__, duckdb.__version__, True


@pytest.fixture
def pyspark_there(monkeypatch):
    """As where PySpark is installed, as long as it is not imported."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)


def test_without_pyspark_nothing_is_made(tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    for name in ("log", "items"):
        ITEMS.to_parquet(tmp_path / f"{name}.parquet")
    tables = [tmp_path / "log.parquet"], [tmp_path / "items.parquet"], None
    with pytest.raises(MMCTRError, match="needs PySpark: install it with pip install 'pyspark>=4"):
        import_dataset(*tables, tmp_path / "place" / "out", Recipe.of(), on_spark=True)
    assert not any((tmp_path / "place").iterdir())


@pytest.mark.parametrize(
    ("home", "told"), [("", "none on the path"), ("/nowhere", r"none at JAVA_HOME \(/nowhere\)")]
)
def test_without_java_it_says_so(tmp_path, monkeypatch, pyspark_there, home, told):
    monkeypatch.setenv("JAVA_HOME", home)
    monkeypatch.setenv("PATH", str(tmp_path))
    with (
        pytest.raises(MMCTRError, match=f"needs Java, and found {told}: install Java 17"),
        cluster(None, tmp_path, 1.0),
    ):
        pass


@pytest.mark.parametrize(
    ("worker", "told"),
    [
        (("b", "none", "none", True), "worker on b lacks mmctr: install mmctr "),
        (("b", HERE[1], "none", True), "worker on b lacks duckdb: install duckdb "),
        (("b", "0.0.1", HERE[2], True), "worker on b has 0.0.1 of mmctr: install mmctr "),
        (("b", *HERE[1:3], False), "worker on b does not see /data, or may not write to it: "),
    ],
)
def test_a_worker_that_is_not_as_here_is_named(worker, told):
    pytest.importorskip("pyspark")
    answers = SimpleNamespace(collect=lambda: [HERE, worker, HERE])
    tasks = SimpleNamespace(map=lambda look: answers)
    context = SimpleNamespace(defaultParallelism=2, parallelize=lambda things, parts: tasks)
    place = Path("/data/.out.tmp/.import")
    found = Cluster(SimpleNamespace(sparkContext=context), place, 1.0, Path("words.txt"))
    with pytest.raises(MMCTRError) as error:
        require_workers(found)
    assert told in str(error.value)


def test_a_reason_is_what_spark_said_last(tmp_path):
    words = tmp_path / "words.txt"
    words.write_text(
        "WARN Utils: nothing\nERROR Context: Error: early\n"
        "ERROR Backend: it was killed. Reason: All masters are unresponsive! Giving up.\n"
        "Exception: a stopped SparkContext.\n  at org.apache.spark\n"
    )
    assert reason(ValueError("no"), words) == "All masters are unresponsive! Giving up"
    assert reason(ValueError("no\nmore"), tmp_path / "none.txt") == "no"
