"""Search for parameters: an Optuna study of one dataset and strategy, scored on valid alone.

A study is a folder: study.json says what is searched, trials.db (SQLite) has every trial as soon
as it ends. A killed search goes on where it was, and proposes what it would have proposed anyway.
Trials leave no run folders: the best parameters are for training with several seeds.
"""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from mmctr.content.fusion import item_embeddings
from mmctr.data.dataset import Dataset
from mmctr.data.part import part_of_train
from mmctr.devices import find_device
from mmctr.errors import ConfigError, RunError
from mmctr.evaluation import study as studies
from mmctr.files import alone, write_json
from mmctr.model.din import DIN
from mmctr.runs.provenance import describe
from mmctr.training.config import configs
from mmctr.training.metrics import reference_aucs
from mmctr.training.trainer import fit, require_both_labels


def search(
    dataset: Dataset,
    strategy: str,
    folder: Path,
    *,
    trials: int,
    fixed: dict[str, Any],
    say: Callable[[str], object] = print,
) -> studies.Study:
    """Go on with the study in `folder`, or begin it, until it has so many trials.

    fixed: parameters that are the same in every trial, the seed among them. The first trial has the
    defaults; one that lags behind the median of the others is pruned. Reads train and valid only.
    Raises ConfigError for parameters that cannot be used or if Optuna is not installed, RunError if
    the folder is another study's or in use.
    """
    optuna = studies.import_optuna()
    _, train_config = configs(**fixed)
    if not studies.searched(fixed):
        names = ", ".join(studies.SPACE)
        raise ConfigError(
            f"Every parameter of the search is fixed: leave one of {names} out of -p."
        )
    learned = part_of_train(dataset, train_config.rows)
    require_both_labels(learned)
    device = find_device(train_config.device)
    embedding = item_embeddings(learned, strategy)

    def objective(trial: Any) -> float:
        proposed = studies.as_parameters(_propose(trial, fixed))
        model_config, train_config = configs(**fixed, **proposed)
        # Seeded as `train` does it, so that training with the best parameters is that trial again.
        torch.manual_seed(train_config.seed)
        model = DIN.for_dataset(model_config, learned, embedding).to(device)
        torch.manual_seed(train_config.seed)

        def report(record: dict[str, float]) -> None:
            trial.report(record["auc"], round(record["epoch"] * train_config.validations))
            # At the end there is nothing left to save.
            if record["epoch"] < train_config.epochs and trial.should_prune():
                raise optuna.TrialPruned

        try:
            return fit(model, learned, train_config, report).best_auc
        except ConfigError:  # it has diverged
            trial.set_user_attr("diverged", True)
            raise optuna.TrialPruned from None

    with alone(folder, "being searched by"):
        study = _begin(folder, dataset, strategy, fixed)
        # An epoch tells little of small learning rates, hence nobody is pruned within the first.
        warmup = train_config.validations
        study.optuna.pruner = optuna.pruners.MedianPruner(n_warmup_steps=warmup)
        while (number := study.done) < trials:
            # Seeded by its number, a trial is the same whether or not the search was killed.
            seed = train_config.seed + 1_000_003 * number
            study.optuna.sampler = optuna.samplers.TPESampler(seed=seed)
            study.optuna.optimize(objective, n_trials=1)
            last = study.trials.iloc[-1]
            best = "" if pd.isna(last["best"]) else f", best {last['best']:.4f}"
            say(f"{number + 1}/{trials}: {last['state']}, valid AUC {last['auc']:.4f}{best}")
    return study


def study_folder(runs: Path, dataset: Dataset, strategy: str) -> Path:
    """Where the study of a dataset and strategy is kept unless another folder is named."""
    return runs / re.sub(r"[^\w.-]", "-", f"search-{dataset.name}-{strategy}")


def _begin(folder: Path, dataset: Dataset, strategy: str, fixed: dict[str, Any]) -> studies.Study:
    """A new study, or the one that is there if it searches the very same."""
    facts = {"strategy": strategy, "fixed": fixed, "dataset": describe(dataset)}
    if (folder / studies.FACTS).exists():
        study = studies.Study.load(folder)
        there, here = _identity(study.facts), _identity(facts)
        for name in here:
            if there[name] != here[name]:
                raise RunError(
                    f"{folder} is a study with {name} {there[name]}, not {here[name]}: choose "
                    "another folder with --out."
                )
    else:
        studies.open_trials(folder)
        facts["reference_auc"] = reference_aucs(dataset, dataset.valid)
        write_json(folder / studies.FACTS, facts)
        study = studies.Study.load(folder)
    from optuna.trial import TrialState

    # Nobody else searches here, so what still runs was killed.
    for trial in study.optuna.get_trials(states=[TrialState.RUNNING]):
        study.optuna.tell(trial.number, state=TrialState.FAIL)
    if not study.done and not study.optuna.get_trials(states=[TrialState.WAITING]):
        study.optuna.enqueue_trial(_defaults(fixed), user_attrs={"defaults": True})
    return study


def _identity(facts: dict[str, Any]) -> dict[str, Any]:
    """What must be the same for a study to go on; as JSON, which knows no tuples."""
    dataset = facts["dataset"]["fingerprint"]
    identity = {"strategy": facts["strategy"], "parameters": facts["fixed"], "dataset": dataset}
    return json.loads(json.dumps(identity, sort_keys=True))


def _propose(trial: Any, fixed: dict[str, Any]) -> dict[str, Any]:
    """Values from the space, which always holds the defaults, those of a preset too."""
    for name, default in _defaults(fixed).items():
        if name in studies.RANGES:
            low, high, log = studies.RANGES[name]
            trial.suggest_float(name, min(low, default), max(high, default), log=log)
        else:
            choices = studies.CHOICES[name]
            trial.suggest_categorical(name, choices if default in choices else [*choices, default])
    return trial.params


def _defaults(fixed: dict[str, Any]) -> dict[str, Any]:
    """What the parameters that are searched are by default, as Optuna stores them."""
    model, training = configs(**fixed)
    values = model.model_dump() | training.model_dump()
    return {
        name: json.dumps(values[name]) if isinstance(values[name], tuple) else values[name]
        for name in studies.searched(fixed)
    }
