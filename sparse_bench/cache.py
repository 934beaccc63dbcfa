"""The cache folder, for files that can be made again: corpora, compiled kernels, measured choices of kernels.

SPARSE_BENCH_CACHE   the cache folder itself
XDG_CACHE_HOME       on Linux, its parent folder, instead of ``~/.cache``
SPARSE_BENCH_DATA    another folder for the corpora
"""

import os
from pathlib import Path

from platformdirs import user_cache_dir

CACHE_VARIABLE = "SPARSE_BENCH_CACHE"
CORPORA_VARIABLE = "SPARSE_BENCH_DATA"


def cache_root() -> Path:
    """The cache folder, which may not exist: ``$SPARSE_BENCH_CACHE``, else the user's cache folder for this project.

    Raises:
        RuntimeError: it would be in the user's home, and there is none.
    """
    # platformdirs, and users too, may leave a "~" in the path, which needs a home directory.
    return Path(os.environ.get(CACHE_VARIABLE) or user_cache_dir("sparse_bench", appauthor=False)).expanduser()


def corpora_folder() -> Path:
    """The folder of the corpora, which may not exist: ``$SPARSE_BENCH_DATA``, else :func:`cache_root`.

    Raises:
        RuntimeError: as :func:`cache_root`.
    """
    given = os.environ.get(CORPORA_VARIABLE)
    return Path(given).expanduser() if given else cache_root()
