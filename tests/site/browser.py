"""Pages in headless Chromium: how wide they are, and what is in their figures."""

import html
import json
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update",
    "--disable-sync", "--no-first-run", "--hide-scrollbars", "--virtual-time-budget=5000",
)  # fmt: skip

#: Runs beside frames that hold the pages, because a browser's own window cannot be as narrow as a phone.
PROBE = """
const measure = frame => {
  const page = frame.contentDocument, root = page.documentElement;
  const box = element => { const r = element.getBoundingClientRect(); return [r.width, r.height]; };
  const shown = [...page.querySelectorAll("figure svg")].filter(svg => svg.getClientRects().length);
  const texts = shown.flatMap(svg => [...svg.querySelectorAll("text")].map(text => [text, svg]));
  const style = element => page.defaultView.getComputedStyle(element);
  const ink = page.querySelector("figure svg text") || page.body;
  return {
    client: root.clientWidth, scroll: Math.max(root.scrollWidth, page.body.scrollWidth),
    figures: page.querySelectorAll("figure").length,
    shown: shown.map(box), compact: shown.every(svg => svg.parentElement.classList.contains("compact")),
    inside: texts.every(([text, svg]) => {
      const r = text.getBoundingClientRect(), s = svg.getBoundingClientRect();
      return r.left >= s.left - 1 && r.right <= s.right + 1 && r.top >= s.top - 1 && r.bottom <= s.bottom + 1; }),
    letters: Math.min(100, ...texts.map(
      ([text, svg]) => parseFloat(style(text).fontSize) * box(svg)[0] / svg.viewBox.baseVal.width)),
    tables: [...page.querySelectorAll(".table")].filter(t => t.getClientRects().length).map(
      t => [t.clientWidth, t.scrollWidth]),
    background: style(page.body).backgroundColor,
    ink: ink === page.body ? style(ink).color : style(ink).fill,
  };
};
document.body.dataset.result = JSON.stringify([...document.querySelectorAll("iframe")].map(measure));
"""


def find_browser() -> str:
    """The path of a browser; skips the test if there is none."""
    for name in ("chromium", "google-chrome"):
        path = shutil.which(name)
        if path:
            return path
    pytest.skip("needs a browser: neither chromium nor google-chrome is installed")


def measure(browser: str, pages: Sequence[Path], folder: Path, width: int, dark: bool) -> list[dict[str, Any]]:
    """Open each page in a frame of ``width`` CSS pixels, probe it, and keep a screenshot in ``folder``."""
    contents = [html.escape(page.read_text(encoding="utf-8"), quote=True) for page in pages]
    style = f"border:0;width:{width}px;height:900px"
    frames = "".join(f'<iframe style="{style}" srcdoc="{content}"></iframe>' for content in contents)
    probe = f"<script>addEventListener('load', () => {{ {PROBE} }});</script>"
    wrapper = folder / "wrapper.html"
    wrapper.write_text(f'<!DOCTYPE html><meta charset="utf-8"><body style="margin:0">{frames}{probe}</body>')
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
    results: list[dict[str, Any]] = json.loads(html.unescape(found[1]))
    return results


def brightness(colour: str) -> int:
    """Sum of the three channels of ``rgb(r, g, b)``."""
    return sum(int(channel) for channel in re.findall(r"\d+", colour)[:3])
