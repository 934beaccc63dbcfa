"""The pages in a browser: figures have a size, nothing overflows, themes differ, on a desk and on a phone."""

from pathlib import Path

import pytest

from sparse_bench.site.report import Report
from tests.site.browser import brightness, find_browser, measure
from tests.site.example_site import Site

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def browser() -> str:
    return find_browser()


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390], ids=["desk", "phone"])
def test_page(browser: str, report: tuple[Path, Report], tmp_path: Path, width: int, dark: bool) -> None:
    (found,) = measure(browser, [report[0] / "index.html"], tmp_path, width, dark)
    assert found["client"] == width
    assert found["scroll"] <= width, "the page scrolls sideways"
    assert found["figures"] == len(found["shown"]) == 3
    assert all(w > 250 and h > 200 for w, h in found["shown"])
    assert found["compact"] is (width < 500)
    assert found["inside"], "text leaves its figure"
    assert found["letters"] >= 10, "letters in figures are too small to read"
    assert found["tables"]
    # On a phone the table of arms is wider than the screen, and scrolls inside its own box.
    widest = max(inner - outer for outer, inner in found["tables"])
    assert widest > 0 if width < 500 else widest >= 0
    assert (brightness(found["background"]) < 3 * 60) is dark
    assert (brightness(found["ink"]) > 3 * 128) is dark


@pytest.mark.parametrize(("width", "dark"), [(1280, False), (390, True)], ids=["desk, light", "phone, dark"])
def test_site(browser: str, example_site: Site, tmp_path: Path, width: int, dark: bool) -> None:
    found = sorted(path for path in example_site.paths if path.suffix == ".html")
    runs = [path for path in found if path.parent.name == "runs"]
    assert len(runs) == 8
    pages = [*(path for path in found if path not in runs), runs[-1]]  # runs' pages are all alike
    assert len(pages) == 6
    results = measure(browser, pages, tmp_path, width, dark)
    for page, found in zip(pages, results, strict=True):
        assert found["client"] == width, page.name
        assert found["scroll"] <= width, f"{page.name} scrolls sideways"
        assert found["figures"] == len(found["shown"]) == {"first.html": 4, "index.html": 1}.get(page.name, 0)
        assert found["compact"] is (width < 500) or not found["figures"]
        assert found["inside"], f"in {page.name} text leaves its figure"
        assert found["letters"] >= 10, f"in {page.name} letters are too small to read"
        assert (brightness(found["background"]) < 3 * 60) is dark
        assert (brightness(found["ink"]) > 3 * 128) is dark


def test_the_probe_sees_a_page_that_is_too_wide(browser: str, tmp_path: Path) -> None:
    drawing = '<div class="compact"><svg viewBox="0 0 10 10" width="600" height="10"><text y="5">a</text></svg></div>'
    page = tmp_path / "wide.html"
    page.write_text(f"<!DOCTYPE html><body><figure>{drawing}</figure></body>")
    (found,) = measure(browser, [page], tmp_path, 390, dark=False)
    assert found["scroll"] > 390
