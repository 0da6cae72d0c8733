"""Processes that begin with the library imported, which takes longer than most of them work.

Each is forked from one that has imported it and done nothing else.
"""

import multiprocessing

PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(
    [
        "mmctr.report.notebook",
        "plotly.offline",
        "torch._dynamo",
    ]
)
