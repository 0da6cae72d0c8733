"""The model card of a run: what whoever finds the model must know of it."""

import json
from typing import Any

from mmctr.data.erroneous import Exclusion
from mmctr.data.wording import stated

CARD = """---
library_name: mmctr
tags: [click-through-rate]
---
# {data}, strategy {strategy}
A Deep Interest Network for click-through-rate prediction (arXiv 2504.18961), trained with mmctr.
{warning}
## How well it predicts
On {rows} of the valid split, which also chose the best epoch:

| metric | value |
|---|---|
{metrics}
{caveat}
## What it was trained on
{facts}

## How to use it
```python
from mmctr.data.dataset import Dataset
from mmctr.model.din import DIN
from mmctr.training.prediction import predict

model = DIN.from_pretrained("NAME")  # of a model on the hub, or of a folder
dataset = Dataset.load("FOLDER")  # the model's own items, in their order
probability = predict(model, dataset.split("test"))
```

It knows the items of its training data only, by their row numbers: on other items its predictions
mean nothing. The weights hold the items' tags, popularity levels and embeddings, so that the terms
of the data hold for the weights too.

## Parameters
```json
{parameters}
```
"""
SIMULATED = """
**The clicks are simulated: its figures prove nothing about real ones.**
"""


def run_card(config: dict[str, Any], summary: dict[str, Any]) -> str:
    """Markdown with a run's data, metrics and parameters; no paths of the machine."""
    data, metrics = summary["dataset"], summary["metrics"]
    low, high = metrics["auc_interval"]
    by_impression = metrics.get("gauc_impression")
    lines = {
        "AUC": metrics["auc"],
        "AUC, 95% interval from": low,
        "AUC, 95% interval to": high,
        "GAUC": metrics["gauc"],
        **({} if by_impression is None else {"GAUC by impression": by_impression}),
        "logloss (nats)": metrics["logloss"],
        "calibration error": metrics.get("calibration_error", float("nan")),
        **{f"AUC of {name}": value for name, value in summary.get("reference_auc", {}).items()},
    }
    rows, words = data.get("rows", {}), stated(data)
    facts = {
        "data": f"{data.get('name')}, fingerprint `{data['fingerprint']}`",
        "items": f"{config['sizes']['n_items']:,}",
        "rows": ", ".join(f"{name} {count:,}" for name, count in rows.items()),
        "negatives": words.negatives.removeprefix("Negatives: "),
        "strategy": f"{config['strategy']}, SHA-256 of the item embedding "
        f"`{summary.get('item_embedding_sha256')}`",
        **_left_out(config),
        **({"started from": config["origin"]["name"]} if config.get("origin") else {}),
        **({"learned from": look} if (look := first_look(summary)) else {}),
        "seed": config["training"]["seed"],
        "date": summary.get("date"),
        "versions": ", ".join(f"{k} {v}" for k, v in summary.get("versions", {}).items()),
        "git commit": commit(summary),
    }
    parameters = {name: config[name] for name in ("strategy", "model", "training")}
    return CARD.format(
        data=data.get("name"),
        strategy=config["strategy"],
        warning=SIMULATED if data.get("simulated") else "",
        rows=f"{rows['valid']:,} {words.rows}" if "valid" in rows else "all rows",
        metrics="\n".join(f"| {name} | {value:.6f} |" for name, value in lines.items()),
        caveat=f"\n{words.caveat}\n" if words.caveat else "",
        facts="\n".join(f"- {name}: {value}" for name, value in facts.items()),
        parameters=json.dumps(parameters, indent=2),
    )


def _left_out(config: dict[str, Any]) -> dict[str, str]:
    """What was excluded as erroneous, in words; empty for a run that left out nothing."""
    excluded = config.get("excluded")
    return {"left out as erroneous": Exclusion.stated(excluded).in_words()} if excluded else {}


def first_look(summary: dict[str, Any]) -> str:
    """How much of train a run learned from, in words; empty if it was all of it."""
    learned = summary.get("learned_from")
    if learned is None or learned["rows"] == learned["of"]:
        return ""
    return f"{learned['rows']:,} of {learned['of']:,} train rows: a first look"


def commit(summary: dict[str, Any]) -> str:
    """The git commit that a run was trained with, and whether the code had other changes."""
    git = summary.get("git") or {}
    return f"{git.get('commit')}{', with changes' if git.get('dirty') else ''}"
