"""Where the tests run Triton's kernels: on a GPU if there is one, else in Triton's interpreter, on the CPU.

``tests/conftest.py`` chooses the interpreter.
"""

import numpy as np
import pytest
import torch

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


def skip_without_triton() -> None:
    """Call before a test module imports a kernel."""
    triton = pytest.importorskip("triton", reason="triton is not installed: pip install 'sparse_bench[triton]'")
    from sparse_bench.kernels import SparseStructure
    from sparse_bench.kernels.gpu import gpu_linear

    one = torch.ones(1, 1, device=DEVICE)
    try:
        gpu_linear(one, SparseStructure(one.bool()), one[0], None)
    except Exception as error:  # Triton 3.6's interpreter makes loop bounds of arrays, as NumPy 2.4 no longer allows
        if DEVICE.type == "cpu" and "only 0-dimensional arrays" in str(error):
            reason = f"the interpreter of triton {triton.__version__} does not work with numpy {np.__version__}"
            pytest.skip(reason, allow_module_level=True)
        raise
