"""Score impressions with a trained model and write the scores."""

import io
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from mmctr.data.dataset import Impressions
from mmctr.errors import RunError
from mmctr.files import atomic_path
from mmctr.model.din import DIN
from mmctr.training.batches import Batches
from mmctr.training.hardware import autocast, tuned


@torch.inference_mode()
def predict(
    model: DIN, rows: Impressions, batch_size: int = 4096, precision: str = "auto"
) -> np.ndarray:
    """Click probabilities of impressions, float32 [n]; precision as for training.

    Rows that all share one history, as the candidates for one user do, share its keys.
    """
    if not len(rows):
        return np.zeros(0, dtype=np.float32)
    was_training = model.training
    model.eval()
    start, end = rows.history_start, rows.history_end
    one_history = bool((start == start[0]).all() and (end == end[0]).all())
    batches = Batches(rows, model).in_order(batch_size, one_history=one_history)
    with tuned(model.device), autocast(model.device, precision):
        logits = [model(batch) for batch in batches]
    model.train(was_training)
    return torch.cat(logits).float().sigmoid().cpu().numpy()


def write_predictions(path: Path, rows: Impressions, probability: np.ndarray) -> None:
    """Write a CSV with a line a row: ID (row number from 0), user_id, item_id, probability.

    Raises RunError for a probability that is not a number.
    """
    wrong = np.flatnonzero(~np.isfinite(probability))
    if len(wrong):
        raise RunError(
            f"The probability of row {wrong[0]} is {probability[wrong[0]]}, expected 0 to 1: the "
            "run's weights are unusable, train the model again."
        )
    table = pd.DataFrame({"user_id": rows.user, "item_id": rows.target, "probability": probability})
    with atomic_path(path) as temporary:
        table.to_csv(temporary, index_label="ID")


def write_submission(path: Path, probability: np.ndarray) -> None:
    """Write the challenge's zip: prediction.csv with columns ID (from 0) and Task2."""
    text = io.StringIO()
    pd.DataFrame({"Task2": probability}).to_csv(text, index_label="ID")
    with (
        atomic_path(path) as temporary,
        zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as archive,
    ):
        archive.writestr("prediction.csv", text.getvalue())
