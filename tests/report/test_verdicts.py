"""What a verdict turns on: the level, the pairing of seeds, and the number of comparisons."""

import math
from collections.abc import Callable

import pytest

from sparse_bench.report.claims.schema import Document
from sparse_bench.report.claims.verdicts import evaluate
from sparse_bench.report.selection import Evidence
from sparse_bench.report.statistics import Interval, p_above, p_below
from tests.report.evidence import evidence, run

Documents = Callable[..., list[Document]]

DIFFERENCE = """
  measure: difference
  of: test/f1
  cases: [{first: {experiment: p/x}, second: {experiment: p/y}}]
  reproduced: above 0
  contradicted: below 0
"""


def value(*places: int, reproduced: str = "above 0", contradicted: str = "below 0") -> str:
    """A rule on one number, a case for each place."""
    cases = [f"{{label: at {place}, first: {{where: {{place: {place}}}}}}}" for place in places]
    return f"""
      measure: value
      of: test/f1
      experiment: p/x
      cases: [{", ".join(cases)}]
      reproduced: {reproduced}
      contradicted: {contradicted}
    """


def found_at(**values: list[float]) -> Evidence:
    """Runs with these values by seed; at1: those at the place 1."""
    return evidence(
        *(
            run("p/x", seed, {"test/f1": one}, settings={"place": int(name.removeprefix("at"))})
            for name, found in values.items()
            for seed, one in enumerate(found)
        )
    )


def with_t(t: float) -> list[float]:
    """Three values whose t against 0 is this, on two degrees of freedom."""
    spread = math.sqrt(3) / t
    return [1 - spread, 1.0, 1 + spread]


def verdict(documents: list[Document], found: Evidence) -> str:
    (entry,) = evaluate(documents, found)
    return entry.verdict


def interval(documents: list[Document], found: Evidence) -> Interval:
    (entry,) = evaluate(documents, found)
    measured = entry.outcomes[0].cases[0].interval
    assert measured is not None
    return measured


@pytest.mark.parametrize(("t", "decided"), [(4.35, True), (4.25, False), (3.0, False)])
def test_the_whole_interval_of_95_percent_has_to_lie_in_the_region(
    documents: Documents, t: float, decided: bool
) -> None:
    """t(0.975, 2) = 4.303: one-sided p of .0245 decides, .0256 and .0477 do not."""
    values = with_t(t)
    negative = [-one for one in values]
    assert verdict(documents(value(1)), found_at(at1=values)) == ("reproduced" if decided else "inconclusive")
    assert verdict(documents(value(1)), found_at(at1=negative)) == ("contradicted" if decided else "inconclusive")


def test_both_borders_of_a_region_have_to_be_cleared(documents: Documents) -> None:
    claims = documents(value(1, reproduced="within 0 to 9", contradicted="outside 0 to 9"))
    assert verdict(claims, found_at(at1=with_t(5.0))) == "reproduced"
    assert verdict(claims, found_at(at1=with_t(3.0))) == "inconclusive", "the lower border"
    assert verdict(claims, found_at(at1=[9 - one for one in with_t(3.0)])) == "inconclusive", "the upper border"
    assert verdict(claims, found_at(at1=[-one for one in with_t(5.0)])) == "contradicted"
    assert verdict(claims, found_at(at1=[9 + one for one in with_t(5.0)])) == "contradicted"
    assert verdict(claims, found_at(at1=[9 + one for one in with_t(3.0)])) == "inconclusive"


@pytest.mark.parametrize("others", [{}, {"at1": [0.5], "at3": [0.5]}], ids=["not run", "a single seed"])
def test_cases_without_a_measurement_count_in_the_correction(
    documents: Documents, others: dict[str, list[float]]
) -> None:
    """t = −5.2 on 2 degrees: p = .018. Below .025 alone, and not among three comparisons, made yet or not."""
    against = [-one for one in with_t(5.2)]
    assert verdict(documents(value(2)), found_at(at2=against)) == "contradicted"
    (entry,) = evaluate(documents(value(1, 2, 3)), found_at(at2=against, **others))
    assert entry.verdict == "inconclusive"
    assert entry.outcomes[0].cases[1].p_contradicted == pytest.approx(3 * 0.0175, rel=0.01)
    # −17.3: p = .0017; three times as much is still below the level.
    assert verdict(documents(value(1, 2, 3)), found_at(at2=[-0.9, -1.0, -1.1], **others)) == "contradicted"


def test_a_scale_where_a_case_has_too_few_seeds_leaves_the_word_to_a_smaller_one(documents: Documents) -> None:
    claims = documents(value(1, 2).replace("experiment: p/x", "experiment: {paper: p/x, reduced: p/x_small}"))
    small = [
        run("p/x_small", seed, {"test/f1": one}, settings={"place": place})
        for place in (1, 2)
        for seed, one in enumerate(with_t(5.0))
    ]

    def with_second(second: list[float]) -> str:
        paper = [
            run("p/x", seed, {"test/f1": one}, settings={"place": place})
            for place, values in ((1, with_t(3.0)), (2, second))
            for seed, one in enumerate(values)
        ]
        return verdict(claims, evidence(*paper, *small))

    assert with_second([1.0]) == "reproduced"
    assert with_second(with_t(5.0)) == "inconclusive"


def sides(first: dict[int, float], second: dict[int, float]) -> Evidence:
    """Two arms with a value for each of their seeds, written in the order given."""
    return evidence(
        *(
            run(name, seed, {"test/f1": one}, curves={"valid/f1": [0.0, one]})
            for name, found in (("p/x", first), ("p/y", second))
            for seed, one in found.items()
        )
    )


#: Seeds differ by far more than arms do; the sides share the seeds 1 and 2 alone, and have them in another order.
FIRST, SECOND = {0: 0.1, 1: 0.510, 2: 0.912}, {2: 0.900, 1: 0.500, 3: 0.1}


@pytest.mark.parametrize(
    ("measure", "expected", "bound"),
    [("difference", (0.010 + 0.012) / 2, 0), ("ratio", (0.510 / 0.500 + 0.912 / 0.900) / 2, 0.9)],
)
def test_sides_are_paired_by_seed(documents: Documents, measure: str, expected: float, bound: float) -> None:
    claims = documents(DIFFERENCE.replace("difference", measure).replace(" 0", f" {bound}"))
    measured = interval(claims, sides(FIRST, SECOND))
    assert (measured.mean, measured.n) == (pytest.approx(expected), 2)
    assert verdict(documents(DIFFERENCE), sides({**FIRST, 3: 0.112}, SECOND)) == "reproduced"


def test_learning_curves_are_paired_by_seed(documents: Documents) -> None:
    claims = documents(
        DIFFERENCE.replace("difference", "share_above").replace("of: test/f1", "of: valid/f1\n  epochs: all")
    )
    # Seed by seed the first is ahead at the second of two epochs; seed 2 of the one lies behind seed 1 of the other.
    measured = interval(claims, sides({1: 0.2, 2: 0.6}, {2: 0.5, 1: 0.1}))
    assert (measured.mean, measured.half_width, measured.n) == (0.5, 0.0, 2)


def test_p_below_by_hand() -> None:
    # Mean 2, standard error 1/√3, 2 degrees of freedom; P(T > t) = ½ − t / (2 √(2 + t²)), here for t = √3 and 2 √3.
    one, two = 0.5 - 3**0.5 / (2 * 5**0.5), 0.5 - 12**0.5 / (2 * 14**0.5)
    values = [1.0, 2.0, 3.0]
    for bound, expected in ((4.0, two), (3.0, one), (2.0, 0.5), (1.0, 1 - one), (0.0, 1 - two)):
        p = p_below(values, bound)
        assert p == pytest.approx(expected), bound
        above = p_above(values, bound)
        assert above is not None
        assert p + above == pytest.approx(1.0)
    assert p_below([1.0], 2.0) is p_below([1.0, 1.0], 2.0) is None
    assert (p_below([1.0] * 3, 2.0), p_below([1.0] * 3, 1.0), p_below([1.0] * 3, 0.5)) == (0.0, 1.0, 1.0)
