"""The page in a browser: figures have a size, nothing overflows, themes differ, on a desk and on a phone."""

import html
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from sparse_bench.report.build import Report

pytestmark = pytest.mark.browser

FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update",
    "--disable-sync", "--no-first-run", "--hide-scrollbars", "--virtual-time-budget=5000",
)  # fmt: skip

#: Runs in a frame around the page, because a browser's own window cannot be as narrow as a phone.
PROBE = """
const frame = document.querySelector("iframe"), page = frame.contentDocument, root = page.documentElement;
const box = element => { const r = element.getBoundingClientRect(); return [r.width, r.height]; };
const shown = [...page.querySelectorAll("figure svg")].filter(svg => svg.getClientRects().length);
const result = {
  client: root.clientWidth, scroll: Math.max(root.scrollWidth, page.body.scrollWidth),
  figures: page.querySelectorAll("figure").length,
  shown: shown.map(box), compact: shown.every(svg => svg.parentElement.classList.contains("compact")),
  inside: shown.every(svg => [...svg.querySelectorAll("text")].every(text => {
    const r = text.getBoundingClientRect(), s = svg.getBoundingClientRect();
    return r.left >= s.left - 1 && r.right <= s.right + 1 && r.top >= s.top - 1 && r.bottom <= s.bottom + 1; })),
  letters: Math.min(...shown.flatMap(svg => [...svg.querySelectorAll("text")].map(
    text => parseFloat(page.defaultView.getComputedStyle(text).fontSize) * box(svg)[0] / svg.viewBox.baseVal.width))),
  tables: [...page.querySelectorAll(".table")].filter(t => t.getClientRects().length).map(
    t => [t.clientWidth, t.scrollWidth]),
  background: page.defaultView.getComputedStyle(page.body).backgroundColor,
  ink: page.defaultView.getComputedStyle(page.querySelector("figure svg text")).fill,
};
document.body.dataset.result = JSON.stringify(result);
"""


@pytest.fixture(scope="module")
def browser() -> str:
    for name in ("chromium", "google-chrome"):
        path = shutil.which(name)
        if path:
            return path
    pytest.skip("needs a browser: neither chromium nor google-chrome is installed")


def measure(browser: str, page: Path, folder: Path, width: int, dark: bool) -> dict[str, Any]:
    """Open ``page`` in a frame of ``width`` CSS pixels, probe it, and keep a screenshot in ``folder``."""
    content = html.escape(page.read_text(encoding="utf-8"), quote=True)
    frame = f'<iframe style="border:0;width:{width}px;height:900px" srcdoc="{content}"></iframe>'
    probe = f"<script>addEventListener('load', () => {{ {PROBE} }});</script>"
    wrapper = folder / "wrapper.html"
    wrapper.write_text(f'<!DOCTYPE html><meta charset="utf-8"><body style="margin:0">{frame}{probe}</body>')
    command = [
        browser,
        *FLAGS,
        f"--user-data-dir={folder / 'profile'}",
        f"--window-size={max(width, 500)},900",
        f"--blink-settings=preferredColorScheme={0 if dark else 1}",
        f"--screenshot={folder / 'screenshot.png'}",
        "--dump-dom",
        wrapper.as_uri(),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    found = re.search(r'data-result="([^"]*)"', done.stdout)
    assert found is not None, done.stderr[-2000:]
    result: dict[str, Any] = json.loads(html.unescape(found[1]))
    return result


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390], ids=["desk", "phone"])
def test_page(browser: str, report: tuple[Path, Report], tmp_path: Path, width: int, dark: bool) -> None:
    found = measure(browser, report[0] / "index.html", tmp_path, width, dark)
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
    red, green, blue = (int(channel) for channel in re.findall(r"\d+", found["background"])[:3])
    assert (red + green + blue < 3 * 60) is dark
    ink = [int(channel) for channel in re.findall(r"\d+", found["ink"])[:3]]
    assert (sum(ink) > 3 * 128) is dark


def test_the_probe_sees_a_page_that_is_too_wide(browser: str, tmp_path: Path) -> None:
    drawing = '<div class="compact"><svg viewBox="0 0 10 10" width="600" height="10"><text y="5">a</text></svg></div>'
    page = tmp_path / "wide.html"
    page.write_text(f"<!DOCTYPE html><body><figure>{drawing}</figure></body>")
    found = measure(browser, page, tmp_path, 390, dark=False)
    assert found["scroll"] > 390
