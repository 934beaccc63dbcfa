import logging

import pytest

from sparse_bench.config import TrainerConfig
from sparse_bench.streams import Streams
from sparse_bench.training import forecast
from sparse_bench.training.forecast import Forecast, duration
from sparse_bench.training.progress import Progress
from tests.toy import ToyTask


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (59.4, "59 s"), (59.6, "1 min 0 s"), (200, "3 min 20 s"), (7500, "2 h 5 min"), (273600, "3 d 4 h")],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("settings", "left"),
    [
        # Six batches an epoch, one a second. The seventh, when six are timed, is the first of the second epoch: of its
        # nine epochs left, one batch is done.
        (TrainerConfig(epochs=10), "53 s"),
        (TrainerConfig(epochs=10, steps=20), "13 s"),
        (TrainerConfig(epochs=10, steps=20, accumulate=2), "26 s"),
    ],
)
def test_the_estimate_is_logged_once(
    settings: TrainerConfig, left: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    clock = iter(range(100))
    monkeypatch.setattr(forecast.time, "monotonic", lambda: float(next(clock)))
    monkeypatch.setattr(forecast, "BATCHES", 6)
    told = Forecast("toy (id)", ToyTask(), Streams(0), settings)
    with caplog.at_level(logging.INFO):
        for number in range(1, 12):
            told.batch_done(Progress(epoch=number // 7, batch=number % 7 + number // 7, step=number))
    assert caplog.messages == [f"toy (id): about {left} of training left, 1 s a batch"]


def test_a_short_run_has_no_estimate(caplog: pytest.LogCaptureFixture) -> None:
    told = Forecast("toy (id)", ToyTask(), Streams(0), TrainerConfig(epochs=2))
    with caplog.at_level(logging.INFO):
        for number in range(12):
            told.batch_done(Progress(step=number))
    assert not caplog.messages
