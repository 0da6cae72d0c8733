"""Counts of wrong labels, against the paper's definitions in a loop and against labels made."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmctr.data.confident import in_words, wrong_labels


def counted(label, probability):
    """The calibrated confident joint row by row, in the words of the paper's equations."""
    given = [0 if one == 1 else 1 for one in label]
    belief = [(p, 1 - p) for p in probability]
    threshold = {}
    for j in (0, 1):
        own = [b[j] for b, i in zip(belief, given, strict=True) if i == j]
        threshold[j] = np.mean(own) if own else np.inf
    joint = {(i, j): 0 for i in (0, 1) for j in (0, 1)}
    for b, i in zip(belief, given, strict=True):
        sure = [j for j in (0, 1) if b[j] >= threshold[j]]
        if sure:
            joint[i, max(sure, key=lambda j: b[j])] += 1
    result = []
    for i in (0, 1):
        right, wrong = max(joint[i, i], 1), joint[i, 1 - i]
        result.append(given.count(i) * wrong / (right + wrong))
    return result


@given(
    st.lists(
        st.tuples(st.sampled_from([0.0, 1.0]), st.sampled_from(np.linspace(0, 1, 41).tolist())),
        min_size=1,
        max_size=60,
    )
)
def test_the_count_is_that_of_a_loop(rows):
    label, probability = map(np.array, zip(*rows, strict=True))
    assert wrong_labels(label, probability) == pytest.approx(counted(label, probability))


def test_flipped_labels_of_a_sure_model_are_counted():
    """Where clicks can be told for certain the count is right: 50 and 120 labels are wrong."""
    rng = np.random.default_rng(0)
    truth = np.repeat([1.0, 0.0], [1000, 3000])
    probability = np.where(truth == 1, 0.95, 0.05) + rng.normal(0, 0.01, 4000)
    label = truth.copy()
    label[:120], label[-50:] = 0, 1
    assert wrong_labels(label, probability) == pytest.approx([50, 120])


@pytest.mark.parametrize("rate", [0.03, 0.25])
def test_a_rare_click_is_no_error(rate):
    """Of calibrated labels many clicks are counted, and the sentence says that it is by chance."""
    rng = np.random.default_rng(1)
    probability = rng.beta(2, 2 / rate - 2, 100_000)
    label = (rng.random(len(probability)) < probability).astype(np.float32)
    clicks, _ = wrong_labels(label, probability)
    assert clicks > 0.2 * label.sum()
    words = in_words(label, probability).replace(",", "").split()
    there, _, by_chance, _ = (int(word) for word in words if word.isdigit())
    assert there == pytest.approx(clicks, abs=0.5)
    assert by_chance == pytest.approx(there, rel=0.1)
