"""The kernel that runs the notebooks of a report."""

from ipykernel.kernelspec import get_kernel_dict
from jupyter_client import AsyncKernelManager
from jupyter_client.kernelspec import KernelSpec


class OwnKernel(AsyncKernelManager):
    """A kernel of the Python that runs now.

    Jupyter would look for one named python3 in JUPYTER_PATH and the user's folders first, where
    that of another environment may stand.
    """

    @property
    def kernel_spec(self) -> KernelSpec:
        """How this Python starts a kernel; no file says it."""
        return KernelSpec(**get_kernel_dict())
