"""Confident learning: how many labels are wrong, as counted from probabilities of other rows.

C. Northcutt, L. Jiang and I. Chuang, "Confident Learning: Estimating Uncertainty in Dataset
Labels", Journal of Artificial Intelligence Research 70 (2021). It takes for granted that a sure
model is right. Clicks are no such labels: where one row in thirty is clicked, a calibrated model
expects hardly any click, and many true ones are counted as wrong. So the count means something
beside that of labels which follow the probabilities, and of which none is wrong.
"""

import numpy as np


def wrong_labels(label: np.ndarray, probability: np.ndarray) -> np.ndarray:
    """Expected number of wrong clicks and of wrong non-clicks, float64 [2].

    The off-diagonal of the calibrated confident joint (equations 1 to 3 of the paper) times the
    number of rows. label: 1 for a click, [n]. probability: of a click, by a model that was not
    fitted to the row, [n].
    """
    given = (np.asarray(label) != 1).astype(int)  # 0: clicked, 1: not
    belief = np.stack([probability, 1 - probability])
    sizes = np.bincount(given, minlength=2)
    # How sure the model is, on average, of rows that have a label.
    sure = [belief[j, given == j].mean() if sizes[j] else np.inf for j in range(2)]
    passes = belief >= np.array(sure)[:, None]
    # The likelier of the labels that the model is as sure of as it is of theirs.
    true = np.where(passes, belief, -1).argmax(axis=0)
    counted = passes.any(axis=0)
    joint = np.bincount(2 * given[counted] + true[counted], minlength=4).reshape(2, 2)
    wrong, right = joint[[0, 1], [1, 0]], joint.diagonal().clip(min=1)
    return sizes * wrong / (wrong + right)


def in_words(label: np.ndarray, probability: np.ndarray) -> str:
    """The count of labels as they are, and that of labels drawn by the probabilities."""
    drawn = np.random.default_rng(0).random(len(probability)) < probability
    there, chance = (wrong_labels(one, probability) for one in (label, drawn))
    return (
        f"confident learning counts {there[0]:,.0f} clicks and {there[1]:,.0f} non-clicks as "
        f"wrong; of labels drawn by the model's own probabilities, all of which are right, "
        f"{chance[0]:,.0f} and {chance[1]:,.0f}"
    )
