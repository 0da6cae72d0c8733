"""One piece of work by several processes that torchrun starts: each computes its part."""

import os
import socket
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import NoReturn, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

import mmctr
from mmctr.errors import MMCTRError

Result = TypeVar("Result")
LOST = ("onnection closed by peer", "onnection reset", "Broken pipe")  # as gloo and NCCL say it

LATE = 60  # seconds between clocks; processes come to where they tell theirs within a few


@contextmanager
def joined(backend: str | None = None, timeout: timedelta | None = None) -> Iterator[None]:
    """Be one of torchrun's processes for a block, each with its own GPU; alone without torchrun.

    backend and timeout: of torch.distributed, where the device's own will not do. Raises MMCTRError
    for processes of several versions, and if another process is lost.
    """
    if "WORLD_SIZE" not in os.environ:
        yield
        return
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]) % torch.cuda.device_count())
    of_device = "nccl" if torch.cuda.is_available() else "gloo"
    dist.init_process_group(backend or of_device, timeout=timeout)
    try:
        require_alike(mmctr=mmctr.__version__, PyTorch=torch.__version__)
        _compare_clocks()
        yield
        wait_for_all()  # the first process is still writing when the others are done
    except RuntimeError as error:
        if not any(sign in str(error) for sign in LOST):
            raise
        raise MMCTRError(
            f"Process {os.environ['RANK']} has lost another one: see what that one said, then "
            "start all again; they go on from what was kept."
        ) from error
    finally:
        dist.destroy_process_group()


def leave(status: int) -> NoReturn:
    """End one of torchrun's processes, at once.

    DistributedDataParallel keeps gloo's threads alive for good, with which Python's own way out
    aborts now and then, upon which torchrun kills the other processes.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def share() -> tuple[int, int]:
    """This process's number and how many there are; (0, 1) if it is alone."""
    return (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)


def in_turn(load: Callable[[], Result]) -> Result:
    """What `load` gives: first to the first process of each machine, which may leave a cache."""
    is_first = int(os.environ.get("LOCAL_RANK", 0)) == 0
    if not is_first:
        wait_for_all()
    loaded = load()
    if is_first:
        wait_for_all()
    return loaded


def of_first(load: Callable[[], Result]) -> Result:
    """What `load` gives the first process, for all: they may be on machines without its disk."""
    if share()[1] == 1:
        return load()
    loaded = [load() if share()[0] == 0 else None]
    dist.broadcast_object_list(loaded)
    return loaded[0]


def wait_for_all() -> None:
    """Return when all processes have come here."""
    if share()[1] > 1:
        dist.barrier()


def distribute(model: nn.Module, own: Iterable[str] = ()) -> nn.Module:
    """The model as it takes part in training: all processes start from the first one's weights.

    Gradients are averaged over processes, batch normalisation sees the whole batch. own: names of
    weights that are other ones in each process, and left alone.
    """
    if share()[1] == 1:
        return model
    for module in model.modules():
        if type(module) is nn.BatchNorm1d:
            module.__class__ = SharedBatchNorm
    DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(model, list(own))
    with warnings.catch_warnings():
        # What is to take the place of broadcast_buffers is not there in every version that we take.
        warnings.simplefilter("ignore", FutureWarning)
        return DistributedDataParallel(model, broadcast_buffers=False)


def total(value: Tensor) -> Tensor:
    """The sum over processes, with gradients."""
    return value if share()[1] == 1 else _Total.apply(value)


def gathered(own: Result) -> list[Result]:
    """What each process has, in the order of their numbers."""
    every = [own]
    if share()[1] > 1:
        every *= share()[1]
        dist.all_gather_object(every, own)
    return every


def require_alike(**own: str) -> None:
    """Raise MMCTRError in all processes if one has something else than the first one has.

    own: what this process has, by what it is.
    """
    (host, first), *others = gathered((socket.gethostname(), own))
    for number, (place, there) in enumerate(others, 1):
        for what in own:
            if there[what] != first[what]:
                raise MMCTRError(
                    f"Process {number} on {place} has {what} {there[what]:.16}, and process 0 on "
                    f"{host} {first[what]:.16}: give all processes the same."
                )


def _compare_clocks() -> None:
    """Say of which machine the dates will be wrong; nothing else depends on its clock."""
    told = gathered((socket.gethostname(), time.time()))
    (host, first), number = told[0], share()[0]
    place, now = told[number]
    if number > 0 and abs(now - first) > LATE:
        ahead = f"{abs(now - first):.0f} s {'ahead of' if now > first else 'behind'}"
        print(
            f"mmctr: the clock of process {number} on {place} is {ahead} that of process 0 on "
            f"{host}: the dates of what it writes are wrong; set that machine's clock.",
            file=sys.stderr,
        )


class SharedBatchNorm(nn.BatchNorm1d):
    """Batch normalisation by the mean and variance of all processes' rows.

    PyTorch's SyncBatchNorm works on GPUs only.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Normalise [n, width]."""
        if not self.training:
            return super().forward(x)
        x = x.float()
        sums = total(torch.cat([x.sum(0), x.new_tensor([len(x)])]))
        count = sums[-1].detach()
        mean = sums[:-1] / count
        deviation = x - mean
        variance = total(deviation.square().sum(0)) / count
        with torch.no_grad():
            self.num_batches_tracked += 1
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * count / (count - 1), self.momentum)
        return deviation * (variance + self.eps).rsqrt() * self.weight + self.bias


class _Total(torch.autograd.Function):
    @staticmethod
    def forward(ctx: object, value: Tensor) -> Tensor:
        result = value.clone()
        dist.all_reduce(result)
        return result

    backward = forward  # every process's result depends on this process's value
