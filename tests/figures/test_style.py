"""Colours, file names, and drawings in a page."""

import itertools
import re

import numpy as np
import pytest
from matplotlib.figure import Figure as Canvas

from sparse_bench.figures import style

#: How colours look to readers without one kind of cone (Machado, Oliveira and Fernandes 2009, severity 1).
BLINDNESS = {
    "none": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}
LINES = ["ink", "muted", *(f"series-{number}" for number in range(1, 7))]


def linear(colour: str) -> np.ndarray:
    channels = np.array([int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5)])
    return np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)


def lab(rgb: np.ndarray) -> np.ndarray:
    """CIE L*a*b* of linear sRGB, D65."""
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    xyz = to_xyz @ np.clip(rgb, 0, 1) / np.array([0.9505, 1.0, 1.089])
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def luminance(colour: str) -> float:
    return float(linear(colour) @ [0.2126, 0.7152, 0.0722])


@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
@pytest.mark.parametrize("blindness", BLINDNESS)
def test_any_two_lines_stay_apart(theme: int, blindness: str) -> None:
    seen = [lab(np.array(BLINDNESS[blindness]) @ linear(style.THEME[name][theme])) for name in LINES]
    # A distance of about 2 is just noticeable.
    assert min(np.linalg.norm(a - b) for a, b in itertools.combinations(seen, 2)) > 15


@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
@pytest.mark.parametrize("name", LINES)
def test_lines_stand_out_from_the_paper(theme: int, name: str) -> None:
    levels = sorted(luminance(style.THEME[colour][theme]) + 0.05 for colour in (name, "paper"))
    assert levels[1] / levels[0] >= (4.5 if name in ("ink", "muted") else 2.9)  # text; graphics


def test_file_stems() -> None:
    assert style.file_stem("weights", "rasa/diet", "", "test/intent_f1") == "weights--rasa-diet--test-intent-f1"
    assert style.file_stem("A ../B") == "a-..-b"


def test_a_drawing_in_a_page_is_themed_labelled_and_has_names_of_its_own() -> None:
    def draw(canvas: Canvas, compact: bool) -> None:
        axes = canvas.add_subplot()
        axes.plot([1, 2], [3, 4], color=style.SERIES[0], marker="o")
        axes.set_title("compact" if compact else "wide")

    figure = style.render("name", "Title", "Caption", 'a < b & "c"', draw)
    wide, compact = figure.inline(compact=False), figure.inline(compact=True)
    assert wide.startswith('<svg role="img" aria-label="a &lt; b &amp; &quot;c&quot;" viewBox="')
    assert wide.endswith("</svg>")
    assert "var(--figure-series-1, #1f77d0)" in wide
    assert "var(--figure-font, 'DejaVu Sans')" in wide
    assert "<metadata>" not in wide
    assert 'id="name-w-axes_1"' in wide
    assert 'id="name-c-axes_1"' in compact
    assert 'href="#name-w-' in wide
    assert "var(" not in figure.svg  # programs that draw files need not know CSS variables
    assert (">wide<" in wide, ">compact<" in compact) == (True, True)


def test_a_reader_s_own_settings_do_not_change_a_figure(monkeypatch: pytest.MonkeyPatch) -> None:
    import matplotlib as mpl

    def draw(canvas: Canvas, compact: bool) -> None:
        canvas.add_subplot().plot([1, 2])

    first = style.render("name", "", "", "", draw)
    monkeypatch.setitem(mpl.rcParams, "lines.dash_capstyle", "round")
    monkeypatch.setitem(mpl.rcParams, "axes.linewidth", 5.0)
    monkeypatch.setitem(mpl.rcParams, "axes.unicode_minus", False)
    monkeypatch.setitem(mpl.rcParams, "axes.facecolor", "red")
    again = style.render("name", "", "", "", draw)
    assert again == first
    assert mpl.rcParams["axes.linewidth"] == 5.0


def test_the_title_of_an_axis_that_leaves_the_canvas_is_wrapped() -> None:
    long, canvases = "share of the right next words in the text that it was trained on", []

    def draw(canvas: Canvas, compact: bool) -> None:
        canvases.append(canvas)
        upper, lower = canvas.subplots(2, 1)
        upper.set_ylabel(long)
        lower.set_xlabel(long)
        lower.set_ylabel("short")
        lower.set_yticks([0, 1], ["a long name of an arm", "another"])

    style.render("name", "", "", "", draw)
    wide, compact = canvases
    assert wide.axes[1].get_xlabel() == long
    for canvas in canvases:
        canvas.draw_without_rendering()  # writing a file has moved the titles: it has another resolution
        titles = [canvas.axes[0].yaxis.label, canvas.axes[1].xaxis.label, canvas.axes[1].yaxis.label]
        assert [title.get_text().replace("\n", " ") for title in titles] == [long, long, "short"]
        for title in titles:
            box = title.get_window_extent()
            assert min(box.x0, box.y0, canvas.bbox.x1 - box.x1, canvas.bbox.y1 - box.y1) >= 0
    assert "\n" in compact.axes[1].get_xlabel()
    assert "\n" in compact.axes[0].get_ylabel()


def test_names_in_a_drawing_hash_no_float_that_another_machine_may_round_otherwise() -> None:
    def draw(canvas: Canvas, shift: float) -> None:
        canvas.set_layout_engine("none")
        for place in (0.1, 0.6):
            axes = canvas.add_axes((place + shift, 0.2, 0.3, 0.6))
            axes.plot([0, 1], [0, 1])

    first, second = (
        style.render("name", "title", "", "", lambda canvas, compact, shift=shift: draw(canvas, shift)).svg
        for shift in (0.0, 1e-15)
    )
    assert re.findall(r'<clipPath id="(\w+)"', first) == ["clip1", "clip2"]
    assert set(re.findall(r"url\(#(\w+)\)", first)) == {"clip1", "clip2"}
    assert first == second
