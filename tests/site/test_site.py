"""The site: what is on its pages, that it needs nothing else, and that it is the same every time."""

import posixpath
import re
from pathlib import Path

import pytest

from sparse_bench.evidence.compare import Evidence
from sparse_bench.papers.page import Finding, Paper
from sparse_bench.papers.schema import DescriptionError
from sparse_bench.site.content import findings
from sparse_bench.site.pages import build_site
from sparse_bench.site.readme import ReadmeError, with_summary
from tests.site.example_site import Site
from tests.site.test_page import Elements


def pages(site: Site) -> dict[str, str]:
    """Every page by its path below the site."""
    found = [path for path in site.paths if path.suffix == ".html"]
    return {path.relative_to(site.out).as_posix(): path.read_text(encoding="utf-8") for path in found}


def plain(text: str) -> str:
    body = re.sub(r"<[^>]+>", " ", text[text.index("<body") :])
    return re.sub(r"\s+", " ", body).replace("\N{NO-BREAK SPACE}", " ")


def test_every_file_is_written(example_site: Site) -> None:
    assert {name for name in pages(example_site) if "/" not in name} == {
        "index.html",
        "first.html",
        "first-runs.html",
        "second.html",
        "performance.html",
    }
    assert all(path.stat().st_size for path in example_site.paths)
    below = {path for path in example_site.out.rglob("*") if path.is_file()}
    assert below <= set(example_site.paths)
    names = {str(path.relative_to(example_site.out)) for path in below}
    assert {
        "data/first/runs.csv",
        "data/first/curves.csv",
        "data/first/settings.csv",
        "data/performance/speed.csv",
    } < names
    assert len([name for name in names if name.startswith("figures/first/")]) == 4
    assert (example_site.results / "README.md").is_file()


def test_pages_are_well_formed_and_need_nothing_from_elsewhere(example_site: Site) -> None:
    for name, text in pages(example_site).items():
        found = Elements(text).found
        assert not re.search(r"https?://|@import|@font-face|url\((?!#)", text), name
        assert not {tag for tag, _ in found} & {"link", "iframe", "img", "object", "embed"}, name
        scripts = [attributes for tag, attributes in found if tag == "script"]
        assert scripts == ([{}] if name == "index.html" else []), name
        ids = [attributes["id"] for _, attributes in found if "id" in attributes]
        assert len(ids) == len(set(ids)), name
        assert "prefers-color-scheme: dark" in text


def test_links_lead_somewhere(example_site: Site) -> None:
    ids = {name: {a.get("id") for _, a in Elements(text).found} for name, text in pages(example_site).items()}
    for name, text in pages(example_site).items():
        for _, attributes in Elements(text).found:
            target = attributes.get("href")
            if target is None:
                continue
            file, _, anchor = target.partition("#")
            path = posixpath.normpath(posixpath.join(posixpath.dirname(name), file)) if file else name
            assert (example_site.out / path).is_file(), f"{name}: {target}"
            assert not anchor or anchor in ids[path], f"{name}: {target}"


def test_the_overview_has_the_ledger(example_site: Site) -> None:
    text = plain(pages(example_site)["index.html"])
    for words in (
        "2 reproduced 1 not run",
        "“sparse is better” page 3 published +2 points measured, paper scale +0.020 ± 0.001 seeds: 2",
        "It is fast. page 1 published 7 times measured, benchmark 7.5 verdict reproduced (benchmark)",
        "It is good. page 2 published 0.9 measured, paper scale not run verdict not run",
        "A &lt;first&gt; paper Dropping &amp; regrowing pays. 1 reproduced",
        "8 runs",
        "Of 3 claims, 0 have a criterion that is older than its runs",
    ):
        assert words in text, words


def test_the_overview_filters_claims_by_verdict_and_paper(example_site: Site) -> None:
    text = pages(example_site)["index.html"]
    found = Elements(text).found
    assert [attributes["data-verdict"] for _, attributes in found if "data-verdict" in attributes] == [
        "reproduced", "reproduced", "not run",
    ]  # fmt: skip
    assert [attributes["data-paper"] for _, attributes in found if "data-paper" in attributes] == ["first", "second"]
    assert ("form", {"class": "filter", "id": "filter", "hidden": None}) in found, "hidden without a script"
    assert [attributes.get("name") for tag, attributes in found if tag == "select"] == ["verdict", "paper"]
    for option in ("<option>reproduced</option>", "<option>not run</option>", '<option value="first">First</option>'):
        assert option in text
    assert text[text.index("<script>") : text.index("</script>")].count("\n") <= 30


def test_a_paper_s_page_shows_ours_beside_the_published(example_site: Site) -> None:
    text = plain(pages(example_site)["first.html"])
    for words in (
        "It drops &amp; regrows. Somebody, 2019. Dropping &amp; regrowing pays. 1 reproduced",
        "dense, published",
        "Published numbers: J. G. C. Brouns",
        "dense 0.6974 0.627 ± 0.006 2",
        "transfer 0.708 – –",
        "both – – –",
        "Not run: both.",
        "first/sparse set 10 % 10 % 100 0.651 ± 0.007 30.500 ± 6.353 2 9,000",
        "experiment seed code first/dense 0 0123456789ab",
        "How close Very. calibration.md",
    ):
        assert words in text, words


def test_a_finding_is_told_only_while_the_verdicts_behind_it_hold(example_site: Site) -> None:
    first, second = example_site.papers["first"], example_site.papers["second"]
    assert findings(first, example_site.entries) == ["Dropping & regrowing pays."]
    assert findings(second, example_site.entries) == []
    fast = {"second-fast": "reproduced (benchmark)"}
    assert findings(with_finding(second, fast), example_site.entries) == ["So."]
    assert findings(with_finding(second, fast | {"second-good": "reproduced"}), example_site.entries) == []
    with pytest.raises(
        DescriptionError, match=r"second, findings: Unknown claim 'second-gut'. Did you mean 'second-good'"
    ):
        findings(with_finding(second, {"second-gut": "reproduced"}), example_site.entries)
    with pytest.raises(DescriptionError, match="Unknown verdict 'true'"):
        findings(with_finding(second, {"second-good": "true"}), example_site.entries)


def with_finding(paper: Paper, rests_on: dict[str, str]) -> Paper:
    return paper.model_copy(update={"findings": [Finding(text="So.", rests_on=rests_on)]})


def test_what_has_not_been_run_is_said(example_site: Site) -> None:
    text = plain(pages(example_site)["second.html"])
    assert "Never drawn: not run." in text
    assert "Not run: second/all." in text
    assert "To run them: make second" in text


def test_every_run_has_a_page_with_its_configuration_and_curves(example_site: Site) -> None:
    listed = pages(example_site)["first-runs.html"]
    names = re.findall(r'href="(runs/[^"]+)"', listed)
    assert len(names) == len(set(names)) == 8
    assert "token accuracy, mean over sentences (valid) 0.651" in plain(listed)
    found = {name: pages(example_site)[name] for name in names}
    assert sum(text.count('class="curve"') for text in found.values()) == 4
    sparse = next(text for name, text in found.items() if "first-sparse" in name)
    for words in (
        "first/sparse",
        "set, 10 %, seed",
        "model.width 8",
        "trainer.epochs 8",
        "epoch 1 8",
        "commit 0123456789ab",
    ):
        assert words in plain(sparse), words
    assert 'href="../first-runs.html"' in sparse
    assert 'href="../performance.html"' in sparse


def test_performance_is_shown_as_written(example_site: Site) -> None:
    text = pages(example_site)["performance.html"]
    assert '<h2 id="speed">Speed of things</h2>' in text
    assert "<p>Made by <code>bench.py</code>.</p>" in text
    assert '<td>sparse</td>\n<td class="right">7.5</td>' in text


def test_the_readme_tells_the_same(example_site: Site) -> None:
    text = (example_site.results / "README.md").read_text(encoding="utf-8")
    for words in (
        "| First | 1 | 0 | 0 | 0 | 0 | 1 |",
        "| “sparse is better” | +2 points | paper | +0.020 ± 0.001 | 2 | reproduced | post hoc |",
        "Not run. To run it: `make second`.",
        "- [Speed of things](performance/speed.md)",
    ):
        assert words in text, words
    for target in re.findall(r"\]\(([^)]+)\)", text):
        if target not in ("claims.md", "claims.csv"):  # written by the command beside it
            assert (example_site.results / target).is_file(), target


def test_the_project_s_readme_gets_its_parts_between_their_markers(example_site: Site, tmp_path: Path) -> None:
    front = tmp_path / "README.md"
    parts = ("figure", "claims", "speed")
    marked = {name: (f"<!-- {name}: written by make results -->", f"<!-- end of {name} -->") for name in parts}
    front.write_text("".join(f"About {name}.\n{begin}\nold | table\n{end}\n" for name, (begin, end) in marked.items()))
    evidence = Evidence.committed(example_site.results, example_site.papers)
    build_site(evidence, example_site.papers, example_site.entries, tmp_path / "site", front)
    text = front.read_text()
    for name, (begin, end) in marked.items():
        assert f"About {name}.\n{begin}\n" in text
        assert end in text
    assert "old | table" not in text
    assert "token accuracy +0.020 ± 0.001 | 2 | reproduced (post hoc) |" in text
    (figure,) = re.findall(r"!\[BLEU against weights\]\(([^)]+)\)\n\nHow well two widths translate\.\n", text)
    assert (tmp_path / figure).resolve().is_file()


def test_parts_of_a_readme_are_replaced_and_the_rest_stays() -> None:
    text = "Before.\n<!-- x: written by make results -->\nold\n<!-- end of x -->\nAfter.\n"
    assert with_summary(text, {"x": "new\n"}) == text.replace("old", "new")


def test_a_readme_without_markers_is_refused() -> None:
    with pytest.raises(ReadmeError, match="needs the lines"):
        with_summary("Nothing here.", {"claims": "summary"})


def test_the_same_tables_give_the_same_bytes_and_stale_figures_go(example_site: Site, tmp_path: Path) -> None:
    stale = tmp_path / "figures/first/beside--first--old.svg"
    stale.parent.mkdir(parents=True)
    stale.touch()
    evidence = Evidence.committed(example_site.results, example_site.papers)
    before = {path: path.read_bytes() for path in example_site.paths}
    again = build_site(evidence, example_site.papers, example_site.entries, tmp_path)
    assert not stale.exists()
    assert len(again) == len(before)
    for path, content in before.items():
        if example_site.out in path.parents:
            path = tmp_path / path.relative_to(example_site.out)
        assert path.read_bytes() == content, path.name


@pytest.mark.parametrize("name", ["first", "second"])
def test_every_page_leads_to_every_other(example_site: Site, name: str) -> None:
    targets = {a.get("href") for _, a in Elements(pages(example_site)[f"{name}.html"]).found}
    assert {"index.html", "first.html", "second.html", "performance.html"} <= targets
