"""The loss of a batch: of each row, and of clicks against negatives."""

import torch
from torch import Tensor
from torch.nn import functional as F

from mmctr import parallel
from mmctr.model.rivals import pairwise_loss
from mmctr.training.config import TrainConfig


def batch_loss(logits: Tensor, label: Tensor, config: TrainConfig) -> Tensor:
    """Cross-entropy, and in the share that config.pairwise says the loss of pairs of a batch.

    logits, label: float [n], this process's part of the batch; the mean over processes of what it
    returns, and of its gradients, is the whole batch's loss.
    """
    losses = F.binary_cross_entropy_with_logits(
        logits,
        label,
        weight=1 - (1 - config.click_weight) * label if config.click_weight != 1 else None,
        reduction="sum",
    )
    number, processes = parallel.share()
    # Parts of a batch may differ by a row, and gradients are averaged over processes.
    loss = losses / len(label)
    if processes > 1:
        loss = losses * processes / parallel.total(losses.new_tensor(len(label)))
    if not config.pairwise:
        return loss
    parts = [(logits, label)]
    if processes > 1:
        # Clicks meet the negatives of all processes; each has the gradient of its own rows alone.
        parts = [
            tuple(tensor.to(logits.device) for tensor in part)
            for part in parallel.gathered((logits.detach(), label))
        ]
        parts[number] = (logits, label)
    of_pairs = pairwise_loss(*map(torch.cat, zip(*parts, strict=True)))
    of_pairs = processes * of_pairs - (processes - 1) * of_pairs.detach()
    return (1 - config.pairwise) * loss + config.pairwise * of_pairs
