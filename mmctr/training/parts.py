"""The probabilities of a long split, part by part: by several processes, and past a kill."""

import hashlib
import shutil
from pathlib import Path

import numpy as np

from mmctr import parallel
from mmctr.bars import bar_if_long
from mmctr.data.impressions import Impressions
from mmctr.errors import MMCTRError
from mmctr.files import atomic_path, writing
from mmctr.model.din import DIN
from mmctr.training.prediction import predict

ROWS = 256 * 4096  # of a part: whole batches, so that each row has the same company in any case


def predict_in_parts(
    model: DIN, rows: Impressions, out: Path, depends_on: dict[str, str]
) -> np.ndarray | None:
    """Click probabilities of all rows, float32 [n]; None for all but the first of torchrun's.

    A hidden folder beside `out` keeps each part as soon as it is computed, for one more try after a
    kill, and is deleted at the end. depends_on: what tells these probabilities from others by
    name, such as the hashes of weights and data. Raises MMCTRError if that differs between
    processes, or if the folder cannot be written, or lacks a part that another one has computed.
    """
    parallel.require_alike(**depends_on)
    told = [*depends_on.values(), str(len(rows))]
    key = hashlib.sha256("\n".join(told).encode()).hexdigest()[:16]
    folder = out.with_name(f".{out.name}-{key}")
    number, processes = parallel.share()
    with writing(out):
        folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{first}.npy" for first in range(0, len(rows), ROWS)]
    own = range(number, len(paths), processes)
    for part in bar_if_long(own, len(own), "predict"):
        if not paths[part].is_file():
            found = predict(model, rows.select(slice(part * ROWS, (part + 1) * ROWS)))
            with atomic_path(paths[part]) as temporary, temporary.open("wb") as file:
                np.save(file, found)
    model.embedding.answer_others()
    parallel.wait_for_all()
    if number > 0:
        return None
    for path in paths:
        if not path.is_file():
            raise MMCTRError(
                f"{path} is missing, though a process has written it: let all processes write to "
                "one folder, such as one that their machines share."
            )
    probability = np.concatenate([np.load(path, allow_pickle=False) for path in paths])
    shutil.rmtree(folder)
    return probability
