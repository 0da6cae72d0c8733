"""Adam that touches only the rows of a batch, and the average of the weights it visits."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.optim.swa_utils import get_ema_multi_avg_fn

from mmctr.model.din import DIN
from mmctr.training.config import TrainConfig


class Adam(torch.optim.Adam):
    """Adam (Kingma & Ba, 2015); of a table with a sparse gradient only the rows in it change.

    Their moments and L2 term change then as well, so that a step costs what its batch names,
    however large the table (the rule of torch.optim.SparseAdam).
    """

    @torch.no_grad()
    def step(self) -> None:
        """Update all parameters; sparse gradients are used up."""
        for group in self.param_groups:
            for table in group["params"]:
                if table.grad is not None and table.grad.is_sparse:
                    self._update_rows(table, group)
                    table.grad = None
        super().step()

    def _update_rows(self, table: Tensor, group: dict) -> None:
        state = self.state[table]
        if not state:
            state["step"] = torch.zeros(())
            state |= {name: torch.zeros_like(table) for name in ("exp_avg", "exp_avg_sq")}
        state["step"] += 1
        gradient = table.grad.coalesce()
        rows, values = gradient.indices()[0], gradient.values()
        weights = table[rows]
        values = values.add(weights, alpha=group["weight_decay"])
        first, second = group["betas"]
        mean = state["exp_avg"][rows].lerp_(values, 1 - first)
        square = state["exp_avg_sq"][rows].lerp_(values.square(), 1 - second)
        state["exp_avg"][rows], state["exp_avg_sq"][rows] = mean, square
        step = float(state["step"])
        rate = group["lr"] / (1 - first**step)
        scale = (square / (1 - second**step)).sqrt_().add_(group["eps"])
        table[rows] = weights.addcdiv_(mean, scale, value=-rate)


class WeightAverage:
    """A moving average of all weights that training changes, which scores better than the last.

    (Polyak & Juditsky, 1992.) decay: share of the average that stays at an update. An average of
    few updates forgets faster, so that the random weights of the start are soon gone; 0 averages
    nothing. Tables whose rows are updated singly stay out of it: it would touch every row.
    """

    def __init__(self, model: DIN, decay: float) -> None:
        table = model.embedding
        sparse = {"embedding.id.weight", "embedding.content"} if table.id.sparse else set()
        self.average = {
            name: value
            for name, value in model.learned_state().items()
            if decay and name not in sparse and value.is_floating_point()
        }
        live = model.state_dict()
        self.live = {name: live[name] for name in self.average}
        self.decay, self.updates = decay, 0

    @torch.no_grad()
    def update(self) -> None:
        """Move the average towards the model's present weights."""
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        self.updates += 1
        if self.live:
            average, live = list(self.average.values()), list(self.live.values())
            get_ema_multi_avg_fn(decay)(average, live, self.updates)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """The model has the average as its weights for as long as this lasts."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        for name, value in self.live.items():
            average = self.average[name].clone()
            self.average[name].copy_(value)
            value.copy_(average)


def make_optimizer(model: DIN, config: TrainConfig) -> Adam:
    """Adam with an L2 term for the embedding tables and one for the network."""
    model.embedding.sparse_gradients(config.row_updates)
    tables, network = [], []
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            is_table = name.startswith("embedding.") and "projection" not in name
            (tables if is_table else network).append(parameter)
    groups = [
        {"params": tables, "weight_decay": config.embedding_l2},
        {"params": network, "weight_decay": config.network_l2},
    ]
    return Adam(groups, lr=config.learning_rate, fused=True)
