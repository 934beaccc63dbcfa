"""The realised density is shown with the nominal one, and a run's warnings with its numbers."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure as Canvas

from sparse_bench.evidence.arms import Study, realised_note, studies_of
from sparse_bench.evidence.compare import Evidence
from sparse_bench.evidence.display import DisplayTable, density_range
from sparse_bench.evidence.ledger import ledger_csv, ledger_markdown
from sparse_bench.evidence.single_runs import Portrait
from sparse_bench.evidence.single_runs import write as write_portraits
from sparse_bench.evidence.store import WARNINGS, load, merge, read, write
from sparse_bench.evidence.tables import arms_table, density_table, differences_table
from sparse_bench.evidence.verdicts import evaluate
from sparse_bench.figures.described import dots_figure, lines_figure
from sparse_bench.figures.study import learning_curves, metric_figure
from sparse_bench.papers.claims import read_claims
from sparse_bench.papers.page import Along, Dots, Epochs, Paper, Section
from sparse_bench.site.__main__ import main
from sparse_bench.site.content import paper_content
from sparse_bench.site.report import write_report
from sparse_bench.site.runs import run_entries
from tests.evidence.by_hand import evidence, run
from tests.evidence.runs import write_run
from tests.figures.test_weights import SUMMARY

SIZE = 128 * 64 + 24 * 64**2
GUESS = "test/f1 is no better than guessing."


def plain(text: str) -> str:
    return text.replace("\N{NO-BREAK SPACE}", " ")


def column(table: DisplayTable | None, name: str) -> list[str]:
    assert table is not None
    return [plain(row[list(table.columns).index(name)]) for row in table.rows]


def write_scheme(root: Path, scheme: str, share: float, *, asked: float = 0.2, seeds: int = 3, **more: Any) -> None:
    """Runs of one width and a nominal density, with ``share`` of the weights realised."""
    for seed in range(seeds):
        metrics = {"test/f1": 0.8 + 0.01 * seed}
        weights = round(share * SIZE)
        write_run(root, scheme=scheme, density=asked, seed=seed, weights=weights, metrics=metrics, epochs=3, **more)


@pytest.fixture
def study(tmp_path: Path) -> Study:
    """SET that lost a part of its connections at the end, RigL that kept them, a dense and a narrower dense arm."""
    for scheme, share, asked in (
        ("dense", 1.0, 1.0),
        ("set", 0.14, 0.2),
        ("rigl", 0.2, 0.2),
        ("small_dense", 0.15, 0.2),
    ):
        write_scheme(tmp_path, scheme, share, asked=asked)
    (found,) = studies_of(load([tmp_path])[0].runs)
    return found


def test_what_differs_by_more_than_rounding_is_told() -> None:
    assert plain(realised_note(0.2, [0.14])) == " (realised 14 %)"
    assert plain(realised_note(0.01, [0.011, None, 0.042])) == " (realised 1.1 to 4.2 %)"
    assert plain(realised_note(0.2, [0.2, 0.2021])) == " (realised 20 to 20.2 %)"
    assert realised_note(0.2, [0.1981, 0.2019]) == realised_note(0.2, [None]) == realised_note(None, [0.1]) == ""
    assert (density_range([]), plain(density_range([0.00037]))) == ("", "0.037 %")


def test_tables_of_arms_have_both(study: Study) -> None:
    table = arms_table(study.arms, ["test/f1"])
    asked, realised = column(table, "density"), column(table, "realised density")
    by_scheme = dict(zip(column(table, "scheme"), zip(asked, realised, strict=True), strict=True))
    assert by_scheme == {
        "dense": ("100 %", "100 %"), "set": ("20 %", "14 %"), "rigl": ("20 %", "20 %"),
        "small dense": ("20 %", "15 %"),
    }  # fmt: skip
    dense = next(arm for arm in study.arms if arm.kind == "dense")
    compared = differences_table(study.arms, dense, "dense", ["test/f1"])
    assert dict(zip(column(compared, "scheme"), column(compared, "realised density"), strict=True)) == {
        "small dense": "15 %", "rigl": "20 %", "set": "14 %",
    }  # fmt: skip
    name = "F1 (test): smallest density as good as dense"
    assert sorted(column(density_table(study, ["test/f1"]), name)) == [
        "14 % (nominal 20 %)",
        "20 %",
    ]


def test_a_narrower_dense_model_among_several_widths_has_no_density_of_its_own(tmp_path: Path) -> None:
    for width in (16, 64):
        write_run(tmp_path, scheme="dense", density=1.0, width=width)
    write_run(tmp_path, scheme="small_dense", density=0.2, weights=9000)
    (found,) = studies_of(load([tmp_path])[0].runs)
    table = arms_table(found.arms, ["test/intent_f1"])
    assert dict(zip(column(table, "scheme"), column(table, "realised density"), strict=True))["small dense"] == "–"


def test_curves_over_several_widths_tell_a_range(tmp_path: Path, drawn: list[Canvas]) -> None:
    for scheme, density, arms in (
        ("dense", 1.0, {16: 8192, 64: 106_496}),
        ("random_connected", 0.01, {64: 4260, 256: 32_112}),  # 4 % and 2 % of the places
    ):
        for width, weights in arms.items():
            metrics = {"test/f1": 0.5 + density / 10}
            write_run(tmp_path, scheme=scheme, density=density, width=width, weights=weights, metrics=metrics, epochs=3)
    results, _ = load([tmp_path])
    (found,) = studies_of(results.runs)
    told = "density 1 % (realised 2 to 4 %)"
    figure = metric_figure(found, "test/f1")
    assert figure is not None
    assert told in plain(figure.alt)
    (legend,) = drawn[0].legends
    assert [plain(text.get_text()) for text in legend.get_texts()] == ["dense", told.replace(" (", "\n(")]
    drawn.clear()
    curves = learning_curves(found, results.histories, "test/f1")
    assert curves is not None
    assert [plain(axes.get_title(loc="left")) for axes in drawn[0].axes] == ["dense", told.replace(" (", "\n(")]


def test_the_command_s_lines_and_page_have_both(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], drawn: list[Canvas]
) -> None:
    write_scheme(tmp_path / "runs", "set", 0.14)
    assert main([str(tmp_path / "out"), "--runs", str(tmp_path / "runs")]) == 0
    assert "density 20 % (realised 14 %), 14,909 weights" in plain(capsys.readouterr().out)
    page = plain((tmp_path / "out/index.html").read_text())
    assert "density 20 % (realised 14 %)" in page


def sparse(seed: int, *, realised: float, asked: float = 0.2, warning: str | None = None) -> dict[str, Any]:
    """A run of ``p/x`` with a learning curve."""
    columns = {"count:density": realised, "count:sparse_layers": 9, **({WARNINGS: warning} if warning else {})}
    curves = {"test/f1": [0.1, 0.2 + seed / 100]}
    return run("p/x", seed, {"test/f1": 0.5 + seed / 100}, curves=curves, columns=columns, scheme="set", density=asked)


def lost() -> Evidence:
    """SET at two densities, one of which lost connections."""
    return evidence(*(sparse(seed, asked=a, realised=r) for a, r in ((0.1, 0.1), (0.2, 0.14)) for seed in range(2)))


SERIES = [{"label": "x", "experiment": "p/x", "where": {"density": 0.2}}]
TOLD = "realised density 14 % for 20 %"


def test_captions_of_described_figures_tell_it(drawn: list[Canvas]) -> None:
    described = {"kind": "epochs", "title": "t", "of": "test/f1", "series": SERIES}
    lines = lines_figure(Epochs.model_validate(described), lost(), paper())
    assert lines is not None
    assert f"Remarks: x: {TOLD}." in plain(lines.caption)
    described = {**described, "kind": "curve", "along": "density", "series": [{"label": "all", "experiment": "p/x"}]}
    curve = lines_figure(Along.model_validate(described), lost(), paper())
    assert curve is not None
    assert f"Remarks: all: {TOLD}." in plain(curve.caption)
    assert drawn[-1].axes[0].get_xlabel() == "nominal density"
    rows = [
        {"label": f"at {density}", "of": "test/f1", "first": {"experiment": "p/x", "where": {"density": density}}}
        for density in (0.1, 0.2)
    ]
    figure, table = dots_figure(
        Dots.model_validate({"kind": "dots", "title": "t", "axis": "a", "rows": rows}), lost(), paper()
    )
    assert figure is not None
    for caption in (figure.caption, table.caption):
        assert f"Remarks: at 0.2: {TOLD}." in plain(caption)


def test_a_portrait_s_title_tells_it(drawn: list[Canvas], tmp_path: Path) -> None:
    found = Evidence(tmp_path, lost().tables)
    run_id = str(found.tables["rasa"].runs["id"].iloc[-1])
    (tmp_path / "rasa").mkdir()
    write_portraits([Portrait("weights", "p/x", run_id, 1, SUMMARY)], tmp_path / "rasa")
    figure = {"kind": "weights", "title": "SET", "experiment": "p/x", "where": {"density": 0.2}}
    (portrait,) = paper_content(paper(figures=[figure]), found).sections[0].figures
    assert plain(portrait.title) == f"Weights after training: SET, {TOLD}"


def paper(**section: Any) -> Paper:
    described = Section.model_validate({"heading": "H", "command": "c", "experiments": ["p/x"], **section})
    return Paper(
        title="T",
        short="S",
        document="D",
        summary="",
        experiments=["p/x"],
        curves=[],
        sections=[described],
        name="rasa",
    )


def test_pages_of_runs_and_tables_of_a_paper_tell_it() -> None:
    first, *_, last = run_entries(paper(), lost().tables["rasa"])
    assert (plain(first["labels"]), plain(last["labels"])) == ("set, 10 %", "set, 20 % (realised 14 %)")
    assert dict(last["measured"])["realised density"].startswith("14")
    table = paper_content(paper(metrics=["test/f1"]), lost()).sections[0].tables[0]
    assert column(table, "density") == ["10 %", "20 %"]
    assert column(table, "realised density") == ["10 %", "14 %"]


def test_a_narrower_dense_run_is_not_said_to_be_of_full_density() -> None:
    narrow = run("p/x", 0, {"test/f1": 0.5}, columns={"count:density": 1.0}, scheme="small_dense", density=0.2)
    (entry,) = run_entries(paper(), evidence(narrow).tables["rasa"])
    assert plain(entry["labels"]) == "small dense, 20 %"
    assert "realised density" not in dict(entry["measured"])


CLAIM = """
claims:
- id: one
  where: here
  quotation: x is good
  published: good
  tests:
  - measure: MEASURE
    of: test/f1
    cases: [{first: {experiment: p/x, where: {density: 0.2}}, second: {experiment: p/x, where: {density: 0.1}}}]
    reproduced: above 0.3
    contradicted: below 0.3
"""


def claims(folder: Path, text: str) -> list[Any]:
    (folder / "p").mkdir()
    (folder / "p/claims.yaml").write_text(text)
    return list(read_claims({"p/x"}, folder))


def test_the_ledger_tells_it(tmp_path: Path) -> None:
    entries = evaluate(claims(tmp_path, CLAIM.replace("MEASURE", "difference")), lost())
    assert f"({TOLD})" in plain(ledger_markdown(entries, {"p": "Paper"}))
    assert TOLD in plain(ledger_csv(entries))


# ---- warnings ----


@pytest.fixture
def warned(tmp_path: Path) -> Path:
    """Two arms, in one of which a run carries a warning."""
    write_scheme(tmp_path, "set", 0.2, seeds=3)
    write_scheme(tmp_path, "dense", 1.0, asked=1.0, seeds=3)
    path = next(path for path in tmp_path.rglob("result.json") if json.loads(path.read_text())["seed"] == 1)
    path.write_text(json.dumps({**json.loads(path.read_text()), "warnings": [GUESS, "Something else."]}))
    return tmp_path


def test_tables_mark_runs_with_a_warning_and_say_it(warned: Path, tmp_path: Path) -> None:
    results, problems = load([warned])
    (study,) = studies_of(results.runs)
    table = arms_table(study.arms, ["test/f1"])
    assert sorted(column(table, "seeds")) == ["3", "3 (1 with a warning)"]
    assert f"Warnings: {GUESS} Something else. (1 run)." in table.caption
    dense = next(arm for arm in study.arms if arm.kind == "dense")
    compared = differences_table(study.arms, dense, "dense", ["test/f1"])
    assert compared is not None
    assert GUESS in compared.caption
    assert [(problem.reason) for problem in problems] == [GUESS, "Something else."]


def test_the_report_says_warnings_wherever_it_shows_numbers(
    warned: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], drawn: list[Canvas]
) -> None:
    out = tmp_path / "out"
    assert main([str(out), "--runs", str(warned)]) == 0
    assert re.search(f"warning: rasa/diet/[0-9a-f]{{12}}: {GUESS}\n", capsys.readouterr().out)
    page = (out / "index.html").read_text()
    assert page.count(GUESS) >= 4  # figures, learning curves, tables, list of warnings
    for name in ("summary.md", "summary.csv", "runs.csv"):
        assert GUESS in (out / name).read_text(), name


def test_the_column_is_there_only_where_a_run_has_a_warning(warned: Path, tmp_path: Path) -> None:
    write_scheme(tmp_path / "clean", "rigl", 0.2)
    table, problems = load([tmp_path / "clean"])
    write_report(table, tmp_path / "out", problems)
    assert WARNINGS not in (tmp_path / "out/runs.csv").read_text().splitlines()[0]
    assert WARNINGS not in (tmp_path / "out/summary.csv").read_text().splitlines()[0]
    # It stays when the table is read again, leaves old rows as they were, and goes with the last run that has one.
    noted, clean = evidence(sparse(0, realised=0.2, warning=GUESS)), evidence(sparse(1, realised=0.2))
    both = merge(clean.tables["rasa"], noted.tables["rasa"])
    write(both, tmp_path / "rasa")
    assert [row[WARNINGS] for row in read(tmp_path / "rasa").rows()] == [GUESS, None]
    write(merge(both, evidence(sparse(0, realised=0.2)).tables["rasa"]), tmp_path / "rasa")
    assert WARNINGS not in read(tmp_path / "rasa").runs


def test_pages_figures_and_claims_from_committed_tables_say_warnings(tmp_path: Path, drawn: list[Canvas]) -> None:
    found = evidence(*(sparse(seed, realised=0.2, warning=GUESS if seed == 1 else None) for seed in range(2)))
    content = paper_content(paper(metrics=["test/f1"], each_run={"epochs": "metric:test/f1"}), found).sections[0]
    told = f"{GUESS} (1 run)"
    assert dict(content.facts)["warnings"] == told
    arms, single = content.tables
    assert told in arms.caption
    assert column(arms, "seeds") == ["2 (1 with a warning)"]
    assert column(single, "warnings") == ["–", GUESS]
    assert [entry["warnings"] for entry in run_entries(paper(), found.tables["rasa"])] == ["", GUESS]
    figure = lines_figure(
        Epochs.model_validate({"kind": "epochs", "title": "t", "of": "test/f1", "series": SERIES}), found, paper()
    )
    assert figure is not None
    assert told in figure.caption
    claim = CLAIM.replace("MEASURE", "value").replace(", second: {experiment: p/x, where: {density: 0.1}}", "")
    entries = evaluate(claims(tmp_path, claim), found)
    assert f"(with a warning: {told})" in ledger_markdown(entries, {"p": "Paper"})
