"""Claims by hand: the vocabulary, the rules, and verdicts that follow the results."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from sparse_bench.config.catalog import UnknownExperimentError
from sparse_bench.evidence.compare import Evidence, SelectionError
from sparse_bench.evidence.ledger import ledger_csv, ledger_markdown, measured, rule_text, verdict_text
from sparse_bench.evidence.store import ALTERED
from sparse_bench.evidence.verdicts import evaluate
from sparse_bench.papers.claims import Document, read_claims, region
from sparse_bench.papers.schema import DescriptionError
from tests.evidence.by_hand import evidence, run
from tests.evidence.conftest import KNOWN

DIFFERENCE = """
  measure: difference
  of: test/f1
  cases: [{first: {experiment: p/x}, second: {experiment: p/y}}]
  reproduced: above 0
  contradicted: below 0
"""


def test_a_key_given_twice_is_refused(documents: Callable[..., list[Document]]) -> None:
    with pytest.raises(DescriptionError, match=r"(?s)\.yaml: .*duplicate key published"):
        documents(DIFFERENCE, extra="published: more\npublished: less")


def pair(first: list[float], second: list[float], suffix: str = "") -> list[dict[str, Any]]:
    runs = [run(f"p/x{suffix}", seed, {"test/f1": value}) for seed, value in enumerate(first)]
    return runs + [run(f"p/y{suffix}", seed, {"test/f1": value}) for seed, value in enumerate(second)]


def verdict(documents: list[Document], found: Evidence) -> str:
    (entry,) = evaluate(documents, found)
    return entry.verdict


def test_what_is_measured_beside_a_tested_claim_does_not_change_its_verdict(
    documents: Callable[..., list[Document]],
) -> None:
    beside = "beside:\n- measure: value\n  of: test/f1\n  cases: [{label: alone, first: {experiment: p/x}}]"
    claims = documents(DIFFERENCE, extra=f"published: more\n{beside}")
    (entry,) = evaluate(claims, evidence(*pair([0.80, 0.81, 0.82], [0.70, 0.71, 0.73])))
    assert (entry.verdict, entry.scale, [found.verdict for found in entry.outcomes]) == (
        "reproduced", "paper", ["reproduced", None],
    )  # fmt: skip
    text = ledger_markdown([entry], {"p": "Paper"})
    assert "|  |  | paper | alone: 0.810 ± 0.025 | 3 | not judged | – |" in text
    (entry,) = evaluate(claims, evidence(*pair([0.80, 0.81, 0.82], [])))
    assert entry.verdict == "not run", "a measurement beside it is no run of the test"
    assert [found.verdict for found in entry.shown] == ["not run", None]


def test_a_curve_that_diverged_has_no_lowest_epoch(documents: Callable[..., list[Document]]) -> None:
    claims = documents(DIFFERENCE.replace("of: test/f1", "of: valid/loss\n  epochs: lowest"))
    found = evidence(
        *(
            run("p/x", seed, curves={"valid/loss": [3.0, value, 2.0]})
            for seed, value in enumerate([1.0, math.nan, 1.0])
        ),
        *(run("p/y", seed, curves={"valid/loss": [0.5, 0.4 + seed / 10, 0.6]}) for seed in range(3)),
    )
    (entry,) = evaluate(claims, found)
    assert entry.outcomes[0].seeds == (2, 2)


def test_changing_a_result_changes_the_verdict(documents: Callable[..., list[Document]]) -> None:
    claims = documents(DIFFERENCE)
    assert verdict(claims, evidence()) == "not run"
    assert verdict(claims, evidence(*pair([0.80, 0.81, 0.82], [0.70, 0.71, 0.73]))) == "reproduced"
    assert verdict(claims, evidence(*pair([0.80, 0.81, 0.62], [0.70, 0.71, 0.73]))) == "inconclusive"
    assert verdict(claims, evidence(*pair([0.60, 0.61, 0.62], [0.70, 0.71, 0.73]))) == "contradicted"


def test_equal_values_on_a_border_contradict_nothing(documents: Callable[..., list[Document]]) -> None:
    claims = documents(DIFFERENCE.replace("above 0", "within -1 to 1").replace("below 0", "outside -1 to 1"))
    assert verdict(claims, evidence(*pair([1.0, 2.0, 3.0], [0.0, 1.0, 2.0]))) == "inconclusive"
    assert verdict(claims, evidence(*pair([1.5, 2.5, 3.5], [0.0, 1.0, 2.0]))) == "contradicted"


def test_a_single_seed_decides_nothing(documents: Callable[..., list[Document]]) -> None:
    (entry,) = evaluate(documents(DIFFERENCE), evidence(*pair([0.9], [0.1])))
    assert entry.verdict == "inconclusive"
    assert entry.outcomes[0].cases[0].problem == "a single seed has no interval"


def test_seeds_are_paired(documents: Callable[..., list[Document]]) -> None:
    # Seeds differ by far more than the arms: unpaired this would be inconclusive.
    claims = documents(DIFFERENCE)
    assert verdict(claims, evidence(*pair([0.111, 0.510, 0.911], [0.100, 0.500, 0.900]))) == "reproduced"
    lonely = [run("p/x", 0, {"test/f1": 1.0}), run("p/y", 1, {"test/f1": 0.0})]
    (entry,) = evaluate(claims, evidence(*lonely))
    problem = entry.outcomes[0].cases[0].problem
    assert (entry.verdict, problem) == ("inconclusive", "the two sides share no seed ([0] and [1])")


def test_several_arms_are_not_mixed(documents: Callable[..., list[Document]]) -> None:
    runs = pair([0.80, 0.81, 0.82], [0.70, 0.71, 0.73])
    runs.append(run("p/x", 3, {"test/f1": 0.8}, settings={"trainer.epochs": 2}))
    (entry,) = evaluate(documents(DIFFERENCE), evidence(*runs))
    assert entry.verdict == "inconclusive"
    assert "differ in trainer.epochs" in entry.outcomes[0].cases[0].problem


def test_the_paper_s_scale_goes_before_the_reduced(documents: Callable[..., list[Document]]) -> None:
    claims = documents(
        DIFFERENCE.replace("first: {experiment: p/x}", "first: {experiment: {paper: p/x, reduced: p/x_small}}").replace(
            "second: {experiment: p/y}", "second: {experiment: {paper: p/y, reduced: p/y_small}}"
        )
    )
    better, worse = ([0.80, 0.81, 0.82], [0.70, 0.71, 0.73]), ([0.60, 0.61, 0.62], [0.70, 0.71, 0.73])
    small = pair(*worse, suffix="_small")
    assert verdict(claims, evidence(*small)) == "contradicted"
    (entry,) = evaluate(claims, evidence(*small))
    assert [(found.test.scale, found.verdict) for found in entry.shown] == [
        ("paper", "not run"),
        ("reduced", "contradicted"),
    ]
    (entry,) = evaluate(claims, evidence(*pair(*better)))
    assert [(found.test.scale, found.verdict) for found in entry.shown] == [("paper", "reproduced")]
    (entry,) = evaluate(claims, evidence())
    assert [(found.test.scale, found.verdict) for found in entry.shown] == [("paper", "not run")]
    (entry,) = evaluate(claims, evidence(*small, *pair(*better)))
    assert [outcome.test.scale for outcome in entry.outcomes] == ["paper", "reduced"]
    assert (entry.verdict, [outcome.verdict for outcome in entry.outcomes]) == (
        "reproduced",
        ["reproduced", "contradicted"],
    )


BOTH = DIFFERENCE.replace("p/x}", "{paper: p/x, reduced: p/x_small}}").replace(
    "p/y}", "{paper: p/y, reduced: p/y_small}}"
)
BETTER = ([0.80, 0.81, 0.82], [0.70, 0.71, 0.73])


def test_a_single_seed_does_not_hide_what_a_smaller_scale_decides(documents: Callable[..., list[Document]]) -> None:
    small = pair(*BETTER, suffix="_small")
    (entry,) = evaluate(documents(BOTH), evidence(*pair([0.5], [0.7]), *small))
    assert [(o.test.scale, o.verdict) for o in entry.shown] == [("paper", "inconclusive"), ("reduced", "reproduced")]
    assert (entry.verdict, verdict_text(entry)) == ("reproduced", "reproduced (reduced)")
    titles = {"p": "Paper"}
    assert "| Paper | 1 | 0 | 0 | 0 | 0 | 1 | 0 | 0 | 0 | 0 | 1 |" in ledger_markdown([entry], titles)
    assert ledger_csv([entry]).splitlines()[1].startswith("p,one,more,reproduced,reduced,paper,")
    # Nor does it decide anything where the smaller scale does not either.
    unsure = pair([0.80, 0.71, 0.62], [0.70, 0.71, 0.73], suffix="_small")
    (entry,) = evaluate(documents(BOTH), evidence(*pair([0.5], [0.7]), *unsure))
    assert verdict_text(entry) == "inconclusive"


def test_intervals_that_decide_nothing_are_not_passed_over(documents: Callable[..., list[Document]]) -> None:
    unsure, small = pair([0.80, 0.71, 0.62], [0.70, 0.71, 0.73]), pair(*BETTER, suffix="_small")
    (entry,) = evaluate(documents(BOTH), evidence(*unsure, *small))
    assert verdict_text(entry) == "inconclusive"


def test_tests_at_one_scale_are_one(documents: Callable[..., list[Document]]) -> None:
    claims = documents(DIFFERENCE, DIFFERENCE.replace("test/f1", "test/f2"))

    def measured(second: list[float]) -> str:
        runs = [
            run(name, seed, {"test/f1": first[seed], "test/f2": other})
            for name, first, others in (("p/x", BETTER[0], second), ("p/y", BETTER[1], BETTER[1]))
            for seed, other in enumerate(others)
        ]
        return verdict(claims, evidence(*runs))

    assert measured([0.80, 0.81, 0.82]) == "reproduced"
    assert measured([0.80, 0.71, 0.62]) == "inconclusive"
    assert measured([0.60, 0.61, 0.62]) == "contradicted"


def test_another_corpus_is_a_scale_of_its_own(documents: Callable[..., list[Document]]) -> None:
    (document,) = documents(BOTH.replace("paper:", "stand-in:"))
    (entry,) = evaluate([document], evidence(*pair(*BETTER)))
    assert verdict_text(entry) == "reproduced (stand-in)"
    (entry,) = evaluate([document], evidence(*pair(*BETTER, suffix="_small")))
    assert [(o.test.scale, o.verdict) for o in entry.shown] == [("stand-in", "not run"), ("reduced", "reproduced")]


def test_caveats_become_notes_of_the_tests_that_they_are_about(
    documents: Callable[..., list[Document]], tmp_path: Path
) -> None:
    count = DIFFERENCE.replace("test/f1", "count:sparse_layers")
    documents(BOTH + "  note: A note.", DIFFERENCE, count.replace("p/x", "p/x_small").replace("p/y", "p/y_small"))
    path = tmp_path / "p/claims.yaml"
    text = path.read_text()

    def with_caveat(pattern: str) -> list[str]:
        path.write_text(
            text.replace("claims:", f"caveats: [{{experiments: ['{pattern}'], text: Beware.}}]\nclaims:", 1)
        )
        (document,) = read_claims(KNOWN, tmp_path)
        return [test.note for test in document.claims[0].tests]

    assert with_caveat("p/*small") == ["A note. Beware.", "", ""]
    with pytest.raises(UnknownExperimentError, match="p/z"):
        with_caveat("p/z")


def many(widths: list[int]) -> str:
    cases = [f"{{label: w{w}, first: {{where: {{width: {w}}}}}}}" for w in widths]
    return f"""
      measure: value
      of: test/f1
      experiment: p/x
      cases: [{", ".join(cases)}]
      reproduced: above 0
      contradicted: below 0
    """


def test_every_case_has_to_agree_and_one_contradicts_after_holm(documents: Callable[..., list[Document]]) -> None:
    def measured(**values: list[float]) -> Evidence:
        return evidence(
            *(
                run("p/x", seed, {"test/f1": value}, settings={"width": int(name[1:])})
                for name, found in values.items()
                for seed, value in enumerate(found)
            )
        )

    claims = documents(many([1, 2, 3]))
    good, unsure = [0.9, 1.0, 1.1], [-0.5, 0.1, 0.5]
    assert verdict(claims, measured(w1=good, w2=good, w3=good)) == "reproduced"
    assert verdict(claims, measured(w1=good, w2=good, w3=unsure)) == "inconclusive"
    # −1.0 ± 0.1 and the like: t = −17.3 on 2 degrees, p = .0017, times three below .025.
    assert verdict(claims, measured(w1=good, w2=good, w3=[-0.9, -1.0, -1.1])) == "contradicted"
    # t = −5.2, p = .018: alone below .025, not so among three.
    weak = [-0.9, -1.35, -1.8]
    assert verdict(documents(many([3])), measured(w3=weak)) == "contradicted"
    assert verdict(claims, measured(w1=good, w2=good, w3=weak)) == "inconclusive"
    # Cases that were not run keep a claim from being reproduced.
    assert verdict(claims, measured(w1=good, w2=good)) == "inconclusive"


def test_counts_are_exact(documents: Callable[..., list[Document]]) -> None:
    claims = documents(
        """
        measure: value
        of: count:sparse_layers
        experiment: p/x
        cases: [{first: {}}]
        reproduced: exactly 106496
        contradicted: outside 106496 to 106496
        """
    )

    def counted(number: int) -> Evidence:
        return evidence(run("p/x", 0, columns={"count:sparse_layers": number}))

    assert verdict(claims, counted(106_496)) == "reproduced"
    assert verdict(claims, counted(106_495)) == "contradicted"


def test_biases_are_counted_where_the_document_counts_them(documents: Callable[..., list[Document]]) -> None:
    (document,) = documents(
        """
        measure: value
        of: count:sparse_layers
        biases: 20
        experiment: p/x
        cases: [{first: {}}]
        reproduced: exactly 120
        contradicted: outside 120 to 120
        """
    )
    (entry,) = evaluate([document], evidence(run("p/x", 0, columns={"count:sparse_layers": 100})))
    assert entry.verdict == "reproduced"
    text = ledger_markdown([entry], {"p": "Paper"})
    assert "| 120 |" in text
    assert "weights in the sparse layers and 20 biases: p/x. Reproduced exactly 120" in text


def test_counts_need_no_run_of_full_length(documents: Callable[..., list[Document]]) -> None:
    count = DIFFERENCE.replace("test/f1", "count:trainable").replace("difference", "ratio").replace(" 0", " 0.5")

    def of(altered: str | None, number: int) -> list[dict[str, Any]]:
        columns = {"count:trainable": number, ALTERED: altered}
        return [run(name, number, {"test/f1": 0.5}, columns=columns) for name in ("p/x", "p/y")]

    short, narrow = (
        of("trainer.epochs: 1.0, not 500.0", 10),
        of("trainer.epochs: 1.0, not 500.0; model.width: 8, not 9", 4),
    )
    (entry,) = evaluate(documents(count), evidence(*short, *narrow))
    assert (entry.verdict, measured(entry.outcomes[0])) == ("reproduced", "1 (from runs of another length)")
    (entry,) = evaluate(documents(count), evidence(*short, *narrow, *of(None, 20)))
    assert measured(entry.outcomes[0]) == "1", "there are runs as shipped"
    assert verdict(documents(count), evidence(*narrow)) == "not run"
    assert verdict(documents(DIFFERENCE), evidence(*short)) == "not run", "a metric does depend on the length"


def test_learning_curves_are_asked_by_epoch(documents: Callable[..., list[Document]]) -> None:
    def claim(measure: str, epochs: str, reproduced: str, contradicted: str) -> list[Document]:
        second = "" if measure == "value" else ", second: {experiment: p/y}"
        return documents(
            f"""
            measure: {measure}
            of: valid/accuracy
            epochs: {epochs}
            cases: [{{first: {{experiment: p/x}}{second}}}]
            reproduced: {reproduced}
            contradicted: {contradicted}
            """
        )

    up = [[0.2, 0.4, 0.6, 0.8], [0.21, 0.41, 0.61, 0.81]]
    down = [[0.1, 0.5, 0.5, 0.7], [0.11, 0.51, 0.51, 0.71]]
    found = evidence(
        *(run("p/x", seed, curves={"valid/accuracy": curve}) for seed, curve in enumerate(up)),
        *(run("p/y", seed, curves={"valid/accuracy": curve}) for seed, curve in enumerate(down)),
    )
    for documents_, mean in (
        (claim("value", "epoch 2", "within 0 to 1", "outside 0 to 1"), 0.405),
        (claim("value", "last 2", "within 0 to 1", "outside 0 to 1"), 0.705),
        (claim("difference", "last 2", "above 0", "below 0"), 0.1),
        (claim("ratio", "epoch 1", "above 0", "below 0"), (0.2 / 0.1 + 0.21 / 0.11) / 2),
        (claim("value", "lowest", "within 0 to 1", "outside 0 to 1"), (min(up[0]) + min(up[1])) / 2),
        (
            claim("difference", "highest", "above 0", "below 0"),
            sum(max(u) - max(d) for u, d in zip(up, down, strict=True)) / 2,
        ),
    ):
        (entry,) = evaluate(documents_, found)
        interval = entry.outcomes[0].cases[0].interval
        assert interval is not None
        assert interval.mean == pytest.approx(mean)
    (entry,) = evaluate(claim("value", "last 9", "within 0 to 1", "outside 0 to 1"), found)
    assert entry.verdict == "inconclusive", "the runs are too short"
    splits = [
        run("p/x", 0, curves={"valid/accuracy": curve}, settings={"split_seed": split})
        for split, curve in enumerate(([0.2, 0.4], [0.4, 0.6]))
    ]
    (entry,) = evaluate(claim("value", "epoch 2", "within 0 to 1", "outside 0 to 1"), evidence(*splits))
    assert measured(entry.outcomes[0]) == "0.500 (n = 1)", "a seed's runs on several splits are one"


def test_a_case_may_have_an_epoch_of_its_own(documents: Callable[..., list[Document]]) -> None:
    (document,) = documents(
        """
        measure: difference
        of: valid/accuracy
        cases:
          - {label: early, epochs: epoch 1, first: {experiment: p/x}, second: {experiment: p/y}}
          - {label: late, epochs: epoch 2, first: {experiment: p/x}, second: {experiment: p/y}}
        reproduced: above 0
        contradicted: below 0
        """
    )
    runs = [run("p/x", s, curves={"valid/accuracy": [0.5 + 0.01 * s, 0.9]}) for s in (0, 1, 2)]
    runs += [run("p/y", s, curves={"valid/accuracy": [0.6, 0.8 - 0.01 * s]}) for s in (0, 1, 2)]
    (entry,) = evaluate([document], evidence(*runs))
    means = [case.interval.mean for case in entry.outcomes[0].cases if case.interval is not None]
    assert means == [pytest.approx(-0.09), pytest.approx(0.11)]
    assert "p/x − p/y at epoch 1; p/x − p/y at epoch 2. Reproduced above 0" in rule_text(entry.outcomes[0].test)


def test_a_rule_older_than_its_runs_says_so(documents: Callable[..., list[Document]]) -> None:
    for extra, written in (("", "post hoc"), (f"\nregistered: {'a' * 40}", "before the runs")):
        entries = evaluate(documents(DIFFERENCE, extra=f"published: more{extra}"), evidence())
        assert f"| {written} |" in ledger_markdown(entries, {"p": "Paper"})
    with pytest.raises(DescriptionError, match="registered"):
        documents(DIFFERENCE, extra="published: more\nregistered: yesterday")


def test_a_benchmark_is_a_single_number(documents: Callable[..., list[Document]], tmp_path: Path) -> None:
    claims = documents(
        """
        measure: ratio
        of: ms
        cases: [{first: {table: speed.csv, where: {arm: dense}}, second: {table: speed.csv, where: {arm: sparse}}}]
        reproduced: above 5
        contradicted: below 2
        """
    )
    for dense, expected in ((70, "reproduced"), (30, "inconclusive"), (15, "contradicted")):
        (tmp_path / "speed.csv").write_text(f"arm,ms\ndense,{dense}\nsparse,10\n")
        (entry,) = evaluate(claims, Evidence(tmp_path, {}))
        assert entry.verdict == expected
        assert entry.scale == "benchmark"
        said = (
            "In a benchmark, ratio of column “ms”: speed.csv (arm dense) / speed.csv (arm sparse). Reproduced above 5"
        )
        assert rule_text(entry.outcomes[0].test).startswith(said)
    assert verdict(claims, Evidence(tmp_path / "empty", {})) == "not run"


def test_names_that_results_do_not_know_are_errors(documents: Callable[..., list[Document]]) -> None:
    runs = [run("p/x", 0, {"test/f2": 1.0}), run("p/y", 0, {"test/f2": 1.0})]
    with pytest.raises(SelectionError, match=r"claim 'one': .*Unknown metric 'test/f1'. Did you mean 'test/f2'"):
        evaluate(documents(DIFFERENCE), evidence(*runs))


@pytest.mark.parametrize(
    ("text", "inside", "outside"),
    [
        ("above 0.5", (0.6,), (0.5, 0.4)),
        ("below -2", (-3.0,), (-2.0, 0.0)),
        ("within 1 to 2", (1.0, 1.5, 2.0), (0.9, 2.1)),
        ("outside 1 to 2", (0.9, 2.1), (1.0, 1.5, 2.0)),
        ("exactly 7", (7.0,), (7.1,)),
    ],
)
def test_regions(text: str, inside: tuple[float, ...], outside: tuple[float, ...]) -> None:
    found = region(text)
    assert all(found.holds(value) for value in inside)
    assert not any(found.holds(value) for value in outside)


@pytest.mark.parametrize(
    ("first", "second", "overlap"),
    [
        ("above 0", "below 0", False),
        ("above 0", "below 1", True),
        ("within 1 to 2", "outside 1 to 2", False),
        ("within 1 to 2", "outside 0 to 1.5", True),
        ("exactly 3", "outside 3 to 3", False),
    ],
)
def test_overlapping_regions(first: str, second: str, overlap: bool) -> None:
    a, b = region(first), region(second)
    assert a.overlaps(b) is b.overlaps(a) is overlap


@pytest.mark.parametrize(
    "text", ["over 1", "above", "above x", "above nan", "below 1e400", "within 2 to 1", "within 1"]
)
def test_what_is_no_region(text: str) -> None:
    with pytest.raises(ValueError, match=r"region|number"):
        region(text)


FAULTS: dict[str, tuple[str, str]] = {
    "unknown key": ("measur: value", r"claim 'one', tests.0.measur: Unknown key 'measur'. Did you mean 'measure'"),
    "unknown measure": ("measure: quotient", "Input should be 'value', 'difference' or 'ratio'"),
    "one side": ("cases: [{first: {experiment: p/x}}]", "difference needs two sides"),
    "labels": (
        "cases: [{first: {where: {a: 1}}, second: {where: {a: 2}}}, {first: {where: {a: 2}}, second: {where: {a: 3}}}]",
        "several cases need a label",
    ),
    "overlap": ("contradicted: below 1", "'above 0' and 'below 1' overlap"),
    "no region": ("reproduced: more than 0", "is not a region"),
    "epochs": ("epochs: final", "write 'epoch N', 'last N', 'lowest' or 'highest'"),
    "no experiment": ("cases: [{first: {}, second: {}}]", "no scale has an experiment or a table for every side"),
    "wrong scale": ("experiment: {paper: rasa/diet_small}", "'rasa/diet_small' has the scale reduced, not paper"),
    "reduced stand-in": ("experiment: {stand-in: rasa/diet_small}", "has the scale reduced, not stand-in"),
    "unknown scale": ("experiment: {small: p/x}", "Input should be 'paper', 'stand-in' or 'reduced'"),
    "biases": ("biases: 3", "biases are allowed only with the measure .value."),
    "unknown side": ("cases: [{first: {tabel: p/x}, second: {}}]", "Unknown key 'tabel'. Did you mean 'table'"),
}  # fmt: skip


@pytest.mark.parametrize("name", FAULTS)
def test_faults_are_named(documents: Callable[..., list[Document]], name: str) -> None:
    replacement, message = FAULTS[name]
    key = replacement.split(":")[0].replace("measur", "measure").replace("measuree", "measure")
    lines = [line for line in DIFFERENCE.strip("\n").splitlines() if not line.strip().startswith(f"{key}:")]
    with pytest.raises(DescriptionError, match=message):
        documents("\n".join([*lines, f"  {replacement}"]))


def test_faults_of_a_claim(documents: Callable[..., list[Document]]) -> None:
    with pytest.raises(DescriptionError, match="needs either tests or 'untestable'"):
        documents()
    with pytest.raises(DescriptionError, match="either a quotation or a paraphrase"):
        documents(DIFFERENCE, extra="published: more\nparaphrase: too")
    with pytest.raises(DescriptionError, match=r"Unknown key 'publishd'. Did you mean 'published'"):
        documents(DIFFERENCE, extra="published: more\npublishd: more")
    with pytest.raises(UnknownExperimentError, match=r"Unknown experiment 'p/z'.*Valid choices: p/x"):
        documents(DIFFERENCE.replace("p/y", "p/z"))


def test_two_claims_of_one_name(documents: Callable[..., list[Document]], tmp_path: Path) -> None:
    documents(DIFFERENCE)
    text = (tmp_path / "p/claims.yaml").read_text()
    (tmp_path / "p/claims.yaml").write_text(text + text.split("claims:\n")[1])
    with pytest.raises(DescriptionError, match="Two claims have the id 'one'"):
        read_claims(KNOWN, tmp_path)


def test_rules_in_words(documents: Callable[..., list[Document]]) -> None:
    (document,) = documents(DIFFERENCE.replace("above 0", "above -0.02").replace("below 0", "below -0.02"))
    (test,) = document.claims[0].tests
    (resolved,) = test.resolved()
    expected = "At the paper's scale, difference in F1 (test): p/x − p/y."
    assert rule_text(resolved) == f"{expected} Reproduced above −0.02, contradicted below −0.02."


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"measure": "ratio", "epochs": "last 1"}, "ratio of F1 (test), last epoch: p/x / p/y."),
        ({"measure": "ratio", "epochs": "last 5"}, "ratio of F1 (test), mean of the last 5 epochs: p/x / p/y."),
        ({"measure": "ratio", "epochs": "epoch 8"}, "ratio of F1 (test), epoch 8: p/x / p/y."),
        ({"measure": "ratio", "epochs": "lowest"}, "ratio of F1 (test), lowest of all epochs: p/x / p/y."),
        ({"of": "count:groups.all_layers.active"}, "difference in weights in the group all layers: p/x − p/y."),
        (
            {"of": "count:groups.all_layers.size"},
            "difference in places for weights in the group all layers: p/x − p/y.",
        ),
    ],
)
def test_what_a_rule_compares(documents: Callable[..., list[Document]], changed: dict[str, str], said: str) -> None:
    test = yaml.safe_load(DIFFERENCE) | changed
    (resolved,) = documents(yaml.safe_dump(test, sort_keys=False))[0].claims[0].tests[0].resolved()
    assert rule_text(resolved).startswith(f"At the paper's scale, {said} Reproduced")


def test_the_ledger_shows_every_claim(documents: Callable[..., list[Document]]) -> None:
    titles = {"p": "Paper"}
    entries = evaluate(documents(DIFFERENCE), evidence(*pair([0.80, 0.81, 0.82], [0.70, 0.71, 0.73])))
    text = ledger_markdown(entries, titles)
    assert "| Paper | 1 | 0 | 0 | 0 | 0 | 1 | 0 | 1 | 0 | 0 | 0 |" in text
    assert "| Paper | “x is better” | here | more | paper | +0.097 ± 0.014 | 3 | reproduced | post hoc |" in text
    header, row = ledger_csv(entries).splitlines()
    columns = "document,claim,published,claim_verdict,claim_scale,scale,rule,verdict,case,mean,low,high,seeds"
    assert header.startswith(columns)
    assert row.startswith("p,one,more,reproduced,paper,paper,")
    not_run = evaluate(documents(DIFFERENCE), evidence())
    assert "| not run | – | not run | post hoc |" in ledger_markdown(not_run, titles)
    untestable = evaluate(documents(extra="published: more\nuntestable: no data"), evidence())
    assert "| – | no data | – | not testable | – |" in ledger_markdown(untestable, titles)
    assert ledger_csv(untestable).splitlines()[1].startswith("p,one,more,not testable,")


def test_notes_and_revisions_of_what_is_not_testable_are_told(documents: Callable[..., list[Document]]) -> None:
    extra = "published: more\nuntestable: no data\nnote: A word about it.\nrevised: it was reproduced."
    text = ledger_markdown(evaluate(documents(extra=extra), evidence()), {"p": "Paper"})
    assert "- **one** Not testable: no data. A word about it. Revised: it was reproduced.\n" in text


def test_what_is_measured_beside_an_untestable_claim_is_shown_and_decides_nothing(
    documents: Callable[..., list[Document]],
) -> None:
    beside = "beside:\n- measure: value\n  of: test/f1\n  cases: [{first: {experiment: p/x}}]"
    claims = documents(extra=f"published: more\nuntestable: no data\n{beside}")
    (entry,) = evaluate(claims, evidence(*pair([0.80, 0.81, 0.82], [])))
    assert (entry.verdict, entry.scale, verdict_text(entry)) == ("not testable", None, "not testable")
    text = ledger_markdown([entry], {"p": "Paper"})
    assert "| here | more | – | no data | – | not testable | – |" in text
    assert "|  |  | paper | 0.810 ± 0.025 | 3 | not judged | – |" in text
    assert (
        "Not testable: no data. At the paper's scale, F1 (test): p/x. Shown with the claim; no rule judges it." in text
    )
    problem, measured = ledger_csv([entry]).splitlines()[1:]
    assert problem.endswith("no data")
    assert ",paper," in measured
    (entry,) = evaluate(claims, evidence())
    assert [found.verdict for found in entry.shown] == ["not run"]
