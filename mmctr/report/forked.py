"""Kernels that begin with the library imported, which takes longer than most pages compute.

They are forked from a process that has imported it and done nothing else. Linux only: elsewhere a
fork is not safe of libraries that have threads.
"""

import contextlib
import gc
import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterable
from functools import cache
from importlib import import_module
from threading import Lock

PRELOADED = (
    "ipykernel.debugger",
    "ipykernel.kernelapp",
    "mmctr.report.notebook",
    "mmctr.report.widgets.attention",
    "mmctr.report.widgets.errors",
    "mmctr.report.widgets.items",
    "plotly.graph_objects",
    "sklearn.ensemble",
    "sklearn.manifold",
)
SERVE = "from mmctr.report.forked import serve; serve()"
_starting = Lock()


class Server:
    """The process that forks kernels; it ends when this one does, and its kernels with it.

    environment: that of all its kernels as far as libraries read it when they are imported, the
    number of threads among it.
    """

    def __init__(self, environment: dict[str, str]) -> None:
        self.asking = Lock()
        # ipykernel's debugger, which nobody attaches, would warn of itself.
        environment = environment | {"PYDEVD_DISABLE_FILE_VALIDATION": "1"}
        # In a session of its own: Ctrl-C is for the process that makes the report.
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-c", SERVE],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            start_new_session=True,
        )

    def fork(self, arguments: list[str], environment: dict[str, str], folder: str) -> int:
        """The process of a new kernel; OSError if there is no server any more."""
        request = {"arguments": arguments, "environment": environment, "folder": folder}
        with self.asking:
            self.process.stdin.write(json.dumps(request).encode() + b"\n")
            self.process.stdin.flush()
            if not (answer := self.process.stdout.readline()):
                raise OSError("The process that forks kernels has ended.")
        return int(answer)


class ForkedKernel:
    """What jupyter_client needs of a kernel's Popen (LocalProvisioner)."""

    stdin = stdout = stderr = None

    def __init__(self, command: list[str], environment: dict[str, str], folder: str) -> None:
        arguments = command[command.index("ipykernel_launcher") + 1 :]
        # Held, for a kernel ends with the process that forked it.
        self.server = _server(environment.get("OMP_NUM_THREADS", ""))
        self.pid = self.server.fork(arguments, environment, folder)
        self.handle = os.pidfd_open(self.pid)

    def poll(self) -> int | None:
        """None while the kernel lives, otherwise 0: nobody asks how it ended."""
        return self._ended(0)

    def wait(self) -> int:
        """Wait until it has ended."""
        return self._ended(None)

    def send_signal(self, number: int) -> None:
        """Tell the kernel."""
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.handle, number)

    def kill(self) -> None:
        """End it at once."""
        self.send_signal(signal.SIGKILL)

    def terminate(self) -> None:
        """Ask it to end."""
        self.send_signal(signal.SIGTERM)

    def _ended(self, seconds: float | None) -> int | None:
        return 0 if select.select([self.handle], [], [], seconds)[0] else None

    def __del__(self) -> None:
        with contextlib.suppress(AttributeError):  # no kernel was made
            os.close(self.handle)


def serve(preloaded: Iterable[str] = PRELOADED) -> None:
    """Import the library, then fork a kernel for each line of the standard input."""
    for name in preloaded:
        with contextlib.suppress(ImportError):  # the page says what is missing
            import_module(name)
    gc.freeze()  # what is imported stays: no kernel looks through it, and so copies it
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # of a kernel that ends nothing is left
    for line in sys.stdin.buffer:
        server, kernel = os.getpid(), os.fork()
        if kernel == 0:
            _be_kernel(server, **json.loads(line))
        print(kernel, flush=True)


def _server(threads: str) -> Server:
    with _starting:  # pages are begun side by side
        return _started(threads)


@cache
def _started(threads: str) -> Server:
    return Server(os.environ | {"OMP_NUM_THREADS": threads})


def _be_kernel(server: int, arguments: list[str], environment: dict[str, str], folder: str) -> None:
    """Run a kernel in this process, which then ends."""
    # Signals go to the whole group of a kernel.
    os.setsid()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    # Requests and answers are the server's.
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    from ipykernel.kernelapp import IPKernelApp

    IPKernelApp.launch_instance(argv=[*arguments, f"--IPKernelApp.parent_handle={server}"])
    os._exit(0)
