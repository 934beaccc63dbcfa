from pathlib import Path

import pytest

from sparse_bench.tracking.base import RunInfo


@pytest.fixture
def info(tmp_path: Path) -> RunInfo:
    return RunInfo(
        id="0123456789ab",
        name="diet/0.2/3",
        experiment="rasa/diet",
        labels={"model": "diet", "dataset": "sara", "scheme": "random_connected", "density": 0.2},
        seed=3,
        config={"seed": 3, "model": {"layers": 2, "sizes": [256, 128]}, "device": None},
        folder=tmp_path / "run",
    )
