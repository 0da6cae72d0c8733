"""Adam that touches only the rows of a batch, and the average of the weights it visits."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from mmctr import parallel
from mmctr.adam import PlainAdam
from mmctr.model.din import DIN
from mmctr.training.config import TrainConfig


class Adam(PlainAdam):
    """Adam (Kingma & Ba, 2015), for tables whose gradients are sparse: of some rows only.

    row_updates: of such a table only these rows change, their moments and L2 term too, so that a
    step costs what its batch names, however large the table (the rule of torch.optim.SparseAdam).
    Otherwise all rows change, as by a dense gradient, which is zero elsewhere and kept so.
    sharded: tables of which each process has other rows.
    """

    def __init__(
        self,
        groups: list[dict],
        *,
        row_updates: bool = False,
        sharded: Sequence[Tensor] = (),
        **parameters: Any,
    ) -> None:
        super().__init__(groups, **parameters)
        self.row_updates, self.sharded = row_updates, list(sharded)
        self.gradients: dict[Tensor, Tensor] = {}  # dense, of tables whose gradients are sparse

    @torch.no_grad()
    def clip(self, parameters: Iterable[Tensor], max_norm: float) -> None:
        """Scale the gradients of all parameters to a joint norm of at most max_norm.

        Every row of a table counts once, whichever process has it.
        """
        parameters = list(parameters)
        if not self.sharded:
            nn.utils.clip_grad_norm_(parameters, max_norm)
            return
        for table in self.sharded:  # several processes may have named a row
            table.grad = table.grad.coalesce()
        own = nn.utils.get_total_norm([table.grad for table in self.sharded])
        others = set(parameters) - set(self.sharded)
        rest = [one.grad for one in parameters if one in others and one.grad is not None]
        norm = (nn.utils.get_total_norm(rest) ** 2 + parallel.total(own**2)).sqrt()
        nn.utils.clip_grads_with_norm_(parameters, max_norm, norm)

    @torch.no_grad()
    def step(self) -> None:
        """Update all parameters; sparse gradients are used up."""
        filled = []
        for group in self.param_groups:
            for table in group["params"]:
                if table.grad is None or not table.grad.is_sparse:
                    continue
                gradient, table.grad = table.grad.coalesce(), None
                rows, values = gradient.indices()[0], gradient.values()
                if self.row_updates:
                    self._update_rows(table, rows, values, group)
                    continue
                if table not in self.gradients:
                    self.gradients[table] = torch.zeros_like(table)
                table.grad = self.gradients[table].index_copy_(0, rows, values)
                filled.append((table, rows))
        super().step()
        for table, rows in filled:
            table.grad.index_fill_(0, rows, 0)
            table.grad = None

    def _update_rows(self, table: Tensor, rows: Tensor, values: Tensor, group: dict) -> None:
        state = self.state[table]
        if not state:
            state["step"] = torch.zeros(())
            state |= {name: torch.zeros_like(table) for name in ("exp_avg", "exp_avg_sq")}
        state["step"] += 1
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

    def __init__(self, model: DIN, decay: float, row_updates: bool = False) -> None:
        sparse = {"embedding.id.weight", "embedding.content"} if row_updates else set()
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
    # On a GPU the number of rows would have to be waited for, and processes exchange dense ones.
    alone_on_cpu = model.device.type == "cpu" and parallel.share()[1] == 1
    model.embedding.sparse_gradients(config.row_updates or alone_on_cpu or bool(model.sharded))
    tables, network, sharded = [], [], []
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            sharded += [parameter] if name in model.sharded else []
            is_table = name.startswith("embedding.") and "projection" not in name
            (tables if is_table else network).append(parameter)
    groups = [
        {"params": tables, "weight_decay": config.embedding_l2},
        {"params": network, "weight_decay": config.network_l2},
    ]
    kind = {"row_updates": config.row_updates, "sharded": sharded}
    return Adam(groups, **kind, lr=config.learning_rate, fused=True)
