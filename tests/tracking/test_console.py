import logging

import pytest

from sparse_bench.tracking.console import ConsoleTracker, aligned


def test_values_of_two_lines_stand_below_each_other():
    first = aligned({"train/loss": 12.345678, "test/intent_f1": 0.5})
    second = aligned({"train/loss": 1e-7, "test/intent_f1": 0.25})
    assert first == "train/loss 12.346      test/intent_f1 0.5"
    assert first.index("test/") == second.index("test/")


@pytest.mark.parametrize(("quiet", "lines"), [(False, 4), (True, 2)])
def test_one_line_each_unless_quiet(info, caplog, quiet, lines):
    tracker = ConsoleTracker(quiet=quiet)
    with caplog.at_level(logging.INFO):
        tracker.start(info)
        tracker.log({"train/loss": 2.0}, step=25, epoch=0)
        tracker.log({"train/loss": 1.5, "test/intent_f1": 0.84}, step=50, epoch=1)
        tracker.finish("finished", {"test/intent_f1": 0.84, "note": "text"})
    assert len(caplog.messages) == lines
    assert "diet/0.2/3" in caplog.messages[0]
    assert caplog.messages[-1] == "finished  test/intent_f1 0.84"
    if not quiet:
        assert caplog.messages[2] == "epoch    1  step      50  train/loss 1.5         test/intent_f1 0.84"


def test_a_line_has_120_characters_and_the_metrics_of_held_out_data_first(info, caplog):
    metrics = {f"train/{number}": 1.0 for number in range(20)} | {"learning_rate": 1.0, "valid/accuracy": 0.5}
    with caplog.at_level(logging.INFO):
        ConsoleTracker().log({"train/loss": 2.0, **metrics}, step=25, epoch=1)
    (line,) = caplog.messages
    assert len(line) <= 120 - len("00:00:00 ")
    assert line.startswith("epoch    1  step      25  train/loss 2           valid/accuracy 0.5         train/0 1")
    assert line.endswith("  …")
    assert aligned({"a": 1, "b": 2}) == "a 1           b 2"
