"""Processes that begin with the library imported, which takes longer than most of them work.

Each is forked from one that has imported it and done nothing else.
"""

import multiprocessing
import os
from contextlib import contextmanager

PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(
    [
        "mmctr.report.notebook",
        "plotly.offline",
        "torch._dynamo",
    ]
)


@contextmanager
def started(be, *arguments, processes=2):
    """Processes for one group, which a block is with: be(number, port, *arguments)."""
    from torch.distributed import TCPStore

    store = TCPStore("localhost", 0, is_master=True, wait_for_workers=False)
    ranks = [
        PROCESSES.Process(target=be, args=(number, store.port, *arguments))
        for number in range(processes)
    ]
    for rank in ranks:
        rank.start()
    yield ranks
    for rank in ranks:
        rank.join()


def together(work, *arguments, processes=3):
    """Have processes of one group do some work: work(number, *arguments)."""
    with started(be_rank, processes, work, arguments, processes=processes) as ranks:
        pass
    assert [rank.exitcode for rank in ranks] == [0] * processes


def be_rank(number, port, processes, work, arguments):
    """Be one of the processes."""
    import torch
    import torch.distributed as dist

    torch.set_num_threads(1)
    store = dist.TCPStore("localhost", port, is_master=False)
    dist.init_process_group("gloo", rank=number, world_size=processes, store=store)
    work(number, *arguments)
    dist.barrier()
    os._exit(0)
