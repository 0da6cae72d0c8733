"""The benchmark of every step: sizes are those of the data, costs of a part are of the whole."""

import time
from mmap import MAP_ANONYMOUS, MAP_PRIVATE, mmap
from xml.etree import ElementTree

import numpy as np
import pytest

from benchmarks import scaling, steps

SPACE = "{http://www.w3.org/2000/svg}"


@pytest.fixture
def few(monkeypatch):
    """Less is measured than by people."""
    monkeypatch.setattr(steps, "WARM_UP", 0)
    monkeypatch.setattr(steps, "BATCHES", 2)
    monkeypatch.setattr(steps, "PREDICTED", 1000)


@pytest.mark.usefixtures("few")
def test_sizes_are_those_of_the_data(tiny, tiny_folder):
    every = sum(map(len, tiny.splits.values()))
    assert steps.load(tiny_folder).size == every
    assert steps.epoch(tiny_folder).size == len(tiny.train)
    assert steps.prediction(tiny_folder).size == len(tiny.train)
    assert steps.alignment(tiny_folder).size == tiny.train.label.sum()
    assert steps.errors(300).size == 300


def test_a_watch_tells_the_processor_from_the_clock():
    watch = steps.Watch()
    with watch.running():
        began = time.process_time()
        while time.process_time() - began < 0.05:
            pass
    once, tenfold = watch.cost(7), watch.cost(7, times=10)
    assert 0.05 <= once.seconds <= once.clock + 0.01
    assert (tenfold.seconds, tenfold.size) == (pytest.approx(10 * once.seconds), 7)


def test_memory_of_its_own_is_told_from_that_of_a_mapped_file(tmp_path):
    size, path = 1 << 27, tmp_path / "mapped"
    path.write_bytes(bytes(size))
    with (mapping := steps.Watch()).running():
        held = np.memmap(path, mode="r")
        assert not held.any()
    with (holding := steps.Watch()).running():
        held = mmap(-1, size, MAP_PRIVATE | MAP_ANONYMOUS)  # nothing that was freed before
        held.write(bytes(1) * size)
    grown = (holding.own_gb - mapping.own_gb) * 1e9
    assert 0.8 * size < grown


def test_the_steps_are_drawn_and_told_with_their_slopes(monkeypatch):
    def measured(*_):
        for number, name in enumerate(steps.NAMES):
            for size in (1e5, 1e6, 1e7):  # seconds grow with size to the power of 1, 1.1, ...
                yield name, steps.Cost(int(size), 1e-6 * size ** (1 + number / 10), 1.0, 2.0)

    monkeypatch.setattr(steps, "measured", measured)
    told, drawn = scaling.of_steps(part=1, large=False)
    lines = told.splitlines()[2:]
    assert [line.split("|")[1].strip() for line in lines] == list(steps.NAMES)
    slopes = [float(line.split("|")[4]) for line in lines]
    np.testing.assert_allclose(slopes, 1 + np.arange(len(steps.NAMES)) / 10, atol=0.01)
    figure = ElementTree.fromstring(drawn)
    texts = ["".join(one.itertext()) for one in figure.iter(f"{SPACE}text")]
    for name, slope in zip(steps.NAMES, slopes, strict=True):
        assert f"{name} {slope:.2f}" in texts
    points = list(figure.iter(f"{SPACE}circle"))
    assert len(points) == 2 * 3 * len(steps.NAMES)
    width, height = float(figure.get("width")), float(figure.get("height"))
    assert all(0 < float(point.get("cx")) < width for point in points)
    assert all(0 < float(point.get("cy")) < height for point in points)
