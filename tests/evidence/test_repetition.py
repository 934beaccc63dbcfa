"""Repeated runs are compared with those in the tables."""

from sparse_bench.evidence.collect import repetition
from sparse_bench.evidence.store import RunTable
from tests.evidence.by_hand import run, table


def tables(*values: tuple[float, float], status: str = "finished", metric: str = "test/f1") -> RunTable:
    """A run a seed, with its metric and its seconds."""
    rows = [
        run("p/x", seed, {metric: value}, columns={"seconds:total": seconds}, status=status)
        for seed, (value, seconds) in enumerate(values)
    ]
    return table(*rows)


def test_equal_metrics() -> None:
    found = repetition(tables((0.5, 10.0), (0.25, 10.0)), tables((0.5, 11.0), (0.25, 9.0)))
    assert found == "; 2 of them repeated, with the same metrics"


def test_the_largest_difference_is_named() -> None:
    old, new = tables((0.5, 10.0), (0.25, 10.0), (0.75, 1.0)), tables((0.4, 11.0), (0.25, 9.0), (0.76, 2.0))
    found = repetition(old, new)
    identifier = old.runs["id"].iloc[0]
    assert found == (
        "; 3 of them repeated, 1 with the same metrics; the others differ by up to 0.2 of a value "
        f"(p/x/{identifier}, test/f1)"
    )


def test_ten_digits_are_what_tables_hold() -> None:
    found = repetition(tables((0.1234567891, 10.0)), tables((0.12345678912345, 11.0)))
    assert found == "; 1 of them repeated, with the same metrics"


def test_what_is_no_repetition() -> None:
    old = tables((0.5, 10.0))
    assert repetition(old, tables((0.5, 10.0))) == ""  # the same run, read again
    assert repetition(old, tables((0.9, 11.0), status="failed")) == ""
    assert repetition(tables((0.5, 10.0), status="failed"), old) == ""
    # Nothing to compare:
    assert repetition(old, tables((0.9, 11.0), metric="test/accuracy")) == "; 1 of them repeated, with the same metrics"
