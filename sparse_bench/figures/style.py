"""Style of figures, and their forms as SVG files and as parts of a page.

Every figure is drawn twice: wide for files and screens, compact for phones. In a page each colour becomes a CSS
variable, so that figures follow the light or dark theme.
"""

import io
import re
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure as Canvas
from matplotlib.text import Text

INK = "#1b1f24"
MUTED = "#5c6670"
RULE = "#d8dce1"
PAPER = "#ffffff"
#: Any two of these hues, INK and MUTED included, differ under simulated red-, green- and blue-blindness.
SERIES = ("#1f77d0", "#d47a00", "#6a1b9a", "#00a88a", "#ef5a47", "#4d4a00")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
SMALL_DENSE_MARKER = "d"

#: Colours that a page may replace: name of the CSS variable → colour on a light and on a dark page.
THEME: dict[str, tuple[str, str]] = {
    "ink": (INK, "#e8eaed"),
    "muted": (MUTED, "#a2abb5"),
    "rule": (RULE, "#3a414a"),
    "paper": (PAPER, "#1c2026"),
    "series-1": (SERIES[0], "#8fd0ff"),
    "series-2": (SERIES[1], "#e69500"),
    "series-3": (SERIES[2], "#b57bff"),
    "series-4": (SERIES[3], "#1f9e78"),
    "series-5": (SERIES[4], "#e8553c"),
    "series-6": (SERIES[5], "#f5e663"),
}

_FONT = "DejaVu Sans"
#: ``Any``, because matplotlib's type of these names differs between its versions.
_RC: Any = {
    "font.family": "sans-serif",
    "font.sans-serif": [_FONT],
    "font.size": 9.5,
    "text.color": INK,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "axes.titlesize": 9.5,
    "axes.titlelocation": "left",
    "axes.titlepad": 8,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": RULE,
    "grid.linewidth": 0.7,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "ytick.major.size": 0,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "legend.handlelength": 2.6,
    "lines.linewidth": 1.7,
    "lines.markersize": 5,
    "figure.facecolor": PAPER,
    "axes.facecolor": "none",
    "figure.constrained_layout.w_pad": 0.08,
    "figure.constrained_layout.h_pad": 0.08,
    "svg.fonttype": "none",
    # Names inside an SVG are hashes; with a fixed salt the same figure gives the same bytes.
    "svg.hashsalt": "sparse_bench",
}
#: Inches between an axis title and the edge of the canvas: browsers set text slightly wider than it is measured.
_EDGE = 0.05


@dataclass(frozen=True)
class Figure:
    """A finished figure.

    Attributes:
        name: stem of the file names.
        title: a few words.
        caption: plain text that explains what is drawn and how each number was computed.
        alt: the content in words, for readers who cannot see the figure.
        svg: the wide drawing, a complete SVG document.
        compact_svg: the compact drawing.
    """

    name: str
    title: str
    caption: str
    alt: str
    svg: str
    compact_svg: str

    def inline(self, *, compact: bool) -> str:
        """The drawing for the body of an HTML page: with theme variables, and ids that are unique in the page."""
        prefix = f"{self.name}-{'c' if compact else 'w'}-"
        return _inline(self.compact_svg if compact else self.svg, prefix, self.alt)


def render(
    name: str,
    title: str,
    caption: str,
    alt: str,
    draw: Callable[[Canvas, bool], None],
    *,
    height: float = 3.7,
    compact_height: float | None = None,
) -> Figure:
    """Draw a figure in both forms.

    Args:
        name: stem of the file names.
        title: a few words.
        caption: plain text.
        alt: the content in words.
        draw: draws on an empty canvas; its second argument is true for the compact form.
        height: height of the wide form in inches.
        compact_height: height of the compact form in inches; None: a fifth more than the wide form's.
    """
    with mpl.rc_context():
        mpl.rcdefaults()  # a user's matplotlibrc must not change a figure
        mpl.rcParams.update(_RC)
        wide = Canvas(figsize=(7.4, height), layout="constrained")
        draw(wide, False)
        _fix_layout(wide)
        compact = Canvas(figsize=(3.9, compact_height or 1.2 * height), layout="constrained")
        draw(compact, True)
        _fix_layout(compact)
        return Figure(name, title, caption, alt, _svg(wide), _svg(compact))


def write_figures(folder: Path, figures: Sequence[Figure]) -> list[Path]:
    """Write the wide drawings into ``folder``, and remove those of earlier figures. Return the files written."""
    written = {folder / f"{figure.name}.svg": figure.svg for figure in figures}
    for path in folder.glob("*--*.svg"):
        if path not in written:
            path.unlink()
    for path, svg in written.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(svg, encoding="utf-8")
    return list(written)


def file_stem(*parts: str) -> str:
    """A file name from free text: lower case, words joined by a hyphen, parts by two hyphens."""
    return "--".join(re.sub(r"[^a-z0-9.]+", "-", part.lower()).strip("-") for part in parts if part)


def theme_css() -> str:
    """CSS declarations of the figure colours, for the light theme and the system's dark theme."""

    light = " ".join(f"--figure-{name}: {colour};" for name, (colour, _) in THEME.items())
    dark = " ".join(f"--figure-{name}: {colour};" for name, (_, colour) in THEME.items())
    return f":root {{ {light} }}\n@media (prefers-color-scheme: dark) {{ :root {{ {dark} }} }}"


def _fix_layout(canvas: Canvas) -> None:
    """Compute the layout once; otherwise it would be computed again for every file."""
    canvas.draw_without_rendering()
    titles = [axis.label for axes in canvas.axes for axis in (axes.xaxis, axes.yaxis)] + canvas.texts
    titles += [child for axes in canvas.axes for child in axes.get_children() if isinstance(child, Text)]
    while any(_wrap(title, canvas) for title in titles):
        canvas.draw_without_rendering()  # a further line of text makes the axes smaller and moves their centre
    canvas.set_layout_engine("none")


def _wrap(title: Text, canvas: Canvas) -> bool:
    """Break a title that leaves the canvas into lines. Return whether the title changed."""
    text = title.get_text()
    box, margin = title.get_window_extent(), _EDGE * canvas.dpi
    low, high, end = (box.x0, box.x1, canvas.bbox.x1) if title.get_rotation() == 0 else (box.y0, box.y1, canvas.bbox.y1)
    outside = max(margin - low, high - (end - margin))
    if not text or outside <= 0:
        return False
    sides = 2 if title.get_horizontalalignment() == "center" else 1  # a centred title gets shorter at both ends
    letters = max(map(len, text.splitlines())) * (1 - sides * outside / (high - low))
    title.set_text(textwrap.fill(text, max(1, int(letters)), break_long_words=False))
    return title.get_text() != text


def _svg(canvas: Canvas) -> str:
    buffer = io.StringIO()
    # savefig would draw everything once more before it writes.
    FigureCanvasSVG(canvas).print_svg(buffer, metadata={"Date": None, "Creator": None})
    FigureCanvasAgg(canvas)
    # Names of clip paths are hashes of floats, whose last bits differ between machines; numbers replace them.
    text = buffer.getvalue()
    for number, name in enumerate(dict.fromkeys(re.findall(r'<clipPath id="(\w+)"', text)), start=1):
        text = text.replace(name, f"clip{number}")
    return text


def _inline(svg: str, prefix: str, alt: str) -> str:
    body = svg[svg.index("<svg") :]
    body = re.sub(r"<metadata>.*?</metadata>", "", body, flags=re.DOTALL)
    opening, rest = body.split(">", 1)
    viewbox = re.search(r'viewBox="[^"]*"', opening)
    assert viewbox is not None, "matplotlib writes a viewBox"
    label = alt.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;")
    rest = re.sub(r'\bid="', f'id="{prefix}', rest)
    rest = re.sub(r'xlink:href="#', f'href="#{prefix}', rest)
    rest = re.sub(r"url\(#", f"url(#{prefix}", rest)
    for variable, (colour, _) in THEME.items():
        rest = rest.replace(colour, f"var(--figure-{variable}, {colour})")
    rest = rest.replace(f"'{_FONT}'", f"var(--figure-font, '{_FONT}')")
    return f'<svg role="img" aria-label="{label}" {viewbox.group()}>{rest}'.rstrip()
