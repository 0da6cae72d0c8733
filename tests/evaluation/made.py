"""Hand-made runs, whose predictions are their labels and noise."""

import numpy as np
import pandas as pd
from sklearn.metrics import roc_auc_score

from mmctr.runs.run import Run


def made_run(folder, strategy, seed, noise, rows, **model):
    """A run whose scores are the labels plus noise; its folder holds its predictions only."""
    rng = np.random.default_rng(seed + len(strategy) + ord(strategy[-1]))
    rng = rng.spawn(1)[0] if model else rng
    probability = 1 / (1 + np.exp(-(rows.label + rng.normal(0, noise, len(rows.label)))))
    auc = roc_auc_score(rows.label, probability)
    folder = folder / f"{strategy.replace(':', '-')}-{seed}{''.join(model)}"
    folder.mkdir()
    columns = {"user": rows.user, "target": 1, "label": rows.label, "probability": probability}
    pd.DataFrame(columns).to_parquet(folder / "predictions.parquet")
    sizes = {"content_width": 128, "n_items": 1000}
    return Run(
        folder=folder,
        config={"strategy": strategy, "training": {"seed": seed}, "sizes": sizes}
        | {"model": {"identity_dropout": 0.2} | model},
        summary={
            "metrics": {"auc": auc, "auc_interval": [auc - 0.1, auc + 0.1], "logloss": 0.5}
            | {"gauc": 0.6},
            "seconds": {"training": 2.0 + seed, "fusion": 1.0},
            "parameters": 10,
            "dataset": {"rows": {"valid": len(rows.label)}},
        },
    )
