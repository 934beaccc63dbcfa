"""The folder of what can be fetched or made again: corpora, compiled kernels, measured choices between ways to compute.

SPARSE_BENCH_CACHE   the folder itself
XDG_CACHE_HOME       on Linux, the folder that it lies in, instead of ``~/.cache``
SPARSE_BENCH_DATA    the folder of the corpora alone
"""

import os
from pathlib import Path

from platformdirs import user_cache_dir

CACHE_VARIABLE = "SPARSE_BENCH_CACHE"
CORPORA_VARIABLE = "SPARSE_BENCH_DATA"


def cache_root() -> Path:
    """The folder, existing or not: ``$SPARSE_BENCH_CACHE``, else the user's cache folder for this project.

    Raises:
        RuntimeError: it would lie in the user's home, and there is none.
    """
    # Where there is no home, both the library and a "~" that a user wrote leave it to be resolved here.
    return Path(os.environ.get(CACHE_VARIABLE) or user_cache_dir("sparse_bench", appauthor=False)).expanduser()


def corpora_folder() -> Path:
    """The folder that holds the corpora, existing or not: ``$SPARSE_BENCH_DATA``, else :func:`cache_root`.

    Raises:
        RuntimeError: as :func:`cache_root`.
    """
    given = os.environ.get(CORPORA_VARIABLE)
    return Path(given).expanduser() if given else cache_root()
