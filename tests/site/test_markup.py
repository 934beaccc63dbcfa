"""Markdown of the project's own tables, as HTML."""

import pytest

from sparse_bench.evidence.display import DisplayTable
from sparse_bench.site.render import environment, markdown_html


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a < b & *c* d", "a &lt; b &amp; <em>c</em> d"),
        ("**bold** and `code_with_*stars*`", "<strong>bold</strong> and <code>code_with_*stars*</code>"),
        ("snake_case_name and 2 * 3 * 4", "snake_case_name and 2 * 3 * 4"),
        ("see [the script](scripts/bench.py)", "see the script"),
    ],
)
def test_a_line(text: str, expected: str) -> None:
    assert markdown_html(text) == f"<p>{expected}</p>\n"


def test_a_document() -> None:
    text = "# One\n\nTwo\nlines. <b>x</b>\n\n- a\n- b\n\n```\nx < y\n```\n\n| n | v |\n|:--|--:|\n| a\\|b | 1 |\n"
    found = markdown_html(text)
    for part in (
        "<h2>One</h2>", "<p>Two\nlines. &lt;b&gt;x&lt;/b&gt;</p>", "<li>a</li>", "<pre><code>x &lt; y\n</code></pre>",
        '<div class="table" tabindex="0" role="region"', '<th class="right">v</th>', "<td>a|b</td>",
        '<td class="right">1</td>', "</table></div>",
    ):  # fmt: skip
        assert part in found, part


def test_cells_of_a_table_have_their_shade_and_their_link() -> None:
    table = DisplayTable(
        "", ["scheme", "score"], [["a < b", "0.9"]], [False, True], {(0, 1): 9}, {(0, 1): "runs/x.html"}
    )
    markup = environment().get_template("parts.html.j2").module.cell_table(table)
    assert '<td>a &lt; b</td><td class="right shade-9"><a href="runs/x.html">0.9</a></td>' in markup
