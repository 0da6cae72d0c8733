"""Adam that touches only the rows of large tables that a batch has used."""

import torch
from torch import Tensor


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
            state |= {"step": torch.zeros(())}
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
