"""The kernels that run the notebooks of a report, and what papermill does meanwhile."""

import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar
from weakref import WeakSet

import torch
from ipykernel.kernelspec import get_kernel_dict
from jupyter_client import AsyncKernelManager
from jupyter_client.kernelspec import KernelSpec
from papermill.engines import NBClientEngine, NotebookExecutionManager, papermill_engines

from mmctr.files import home
from mmctr.report.forked import ForkedKernel


class OwnKernel(AsyncKernelManager):
    """A kernel of the Python that runs now, with the threads that pages made side by side leave it.

    Jupyter would look for one named python3 in JUPYTER_PATH and the user's folders first, where
    that of another environment may stand.
    """

    every: ClassVar[WeakSet["OwnKernel"]] = WeakSet()

    def __init__(self, **options: object) -> None:
        super().__init__(**options)
        self.every.add(self)

    @property
    def kernel_spec(self) -> KernelSpec:
        """How this Python starts a kernel; no file says it."""
        # As many whatever else runs, because sums of floats depend on it.
        threads = max(1, torch.get_num_threads() // at_once())
        # A kernel works in the folder of the notebooks, not where the report is made.
        env = {"OMP_NUM_THREADS": str(threads), "MMCTR_HOME": str(home())}
        return KernelSpec(**get_kernel_dict(), env=env)

    async def _async_launch_kernel(self, kernel_cmd: list[str], **options: Any) -> None:
        """As jupyter_client wants it overridden: forked with the library imported, where it can."""
        kernel = None
        if sys.platform == "linux" and not torch.cuda.is_available():
            with suppress(OSError):  # then it imports for itself
                folder = options.get("cwd") or Path.cwd()
                kernel = ForkedKernel(kernel_cmd, options["env"], str(folder))
        if kernel is None:
            await super()._async_launch_kernel(kernel_cmd, **options)
            return
        local = self.provisioner
        local.process, local.pid, local.pgid = kernel, kernel.pid, kernel.pid
        self._reconcile_connection_info(local.connection_info)

    @classmethod
    def kill_all(cls) -> None:
        """End all kernels at once, whatever they do."""
        for kernel in tuple(cls.every):
            if kernel.has_kernel:
                kernel.provisioner.process.kill()


class WritesAtTheEnd(NBClientEngine):
    """papermill's own engine would write the whole notebook before and after each cell.

    That takes more time than all else it does, and nobody reads them: a page that was cut off is
    made anew.
    """

    name = "mmctr"

    @classmethod
    def execute_managed_notebook(
        cls, nb_man: NotebookExecutionManager, kernel_name: str, **options: Any
    ) -> None:
        """Execute it; its end, a failure too, is written by whoever called."""
        place, nb_man.output_path = nb_man.output_path, None
        try:
            super().execute_managed_notebook(nb_man, kernel_name, **options)
        finally:
            nb_man.output_path = place


papermill_engines.register(WritesAtTheEnd.name, WritesAtTheEnd)


def at_once() -> int:
    """How many pages are made side by side: two where two cores are, one where a GPU is shared."""
    return 1 if torch.cuda.is_available() else min(2, os.cpu_count() or 1)
