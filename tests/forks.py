"""Processes that begin with the library imported, which takes longer than most of them work.

Each is forked from one that has imported it and done nothing else.
"""

import contextlib
import multiprocessing
import os
import signal
from threading import Thread

PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(
    [
        "ipykernel.debugger",
        "ipykernel.kernelapp",
        "mmctr.report.notebook",
        "mmctr.report.widgets.attention",
        "mmctr.report.widgets.errors",
        "mmctr.report.widgets.items",
        "plotly.offline",
        "sklearn.ensemble",
        "sklearn.manifold",
        "torch._dynamo",
    ]
)


class ForkedKernel:
    """What jupyter_client needs of a kernel's Popen (LocalProvisioner).

    Kernels that import for themselves are those of tests/report, of tests/browser and of the pages
    of a search and a backtest.
    """

    stdin = stdout = stderr = None

    def __init__(self, command, env, cwd=".", **_):
        self.pipe, theirs = PROCESSES.Pipe()
        arguments = command[command.index("ipykernel_launcher") + 1 :]
        arguments = arguments, env, cwd, theirs
        # A daemon: nobody waits at the end for one that a failure left.
        self.process = PROCESSES.Process(target=be_kernel, args=arguments, daemon=True)
        self.process.start()
        theirs.close()
        self.pid = self.process.pid
        self.pipe.recv()

    def poll(self):
        return self.process.exitcode

    def wait(self):
        self.process.join()
        return self.process.exitcode

    def send_signal(self, number):
        os.kill(self.pid, number)

    def kill(self):
        self.send_signal(signal.SIGKILL)

    def terminate(self):
        self.send_signal(signal.SIGTERM)


def be_kernel(arguments, environment, folder, pipe):
    """Run a kernel in this process."""
    # Signals go to the whole group of a kernel, so it needs its own before anybody asks for it.
    os.setsid()
    pipe.send(None)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    Thread(target=end_with, args=(pipe,), daemon=True).start()
    from ipykernel.kernelapp import IPKernelApp

    IPKernelApp.launch_instance(argv=arguments)


def end_with(pipe):
    """End this process when the one at the other end of the pipe has ended, however it did."""
    with contextlib.suppress(EOFError):
        pipe.recv()
    os._exit(1)
