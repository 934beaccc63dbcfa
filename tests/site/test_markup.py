"""Markdown of the project's own tables, as HTML."""

import pytest

from sparse_bench.report.markup import inline, to_html


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
    assert inline(text) == expected


def test_a_document() -> None:
    text = "# One\n\nTwo\nlines.\n\n- a\n- b\n  more\n\n```\nx < y\n```\n\n| n | v |\n|:--|--:|\n| a\\|b | 1 |\n"
    assert to_html(text) == (
        "<h2>One</h2>\n<p>Two lines.</p>\n<ul><li>a</li><li>b more</li></ul>\n<pre><code>x &lt; y</code></pre>\n"
        '<div class="table" tabindex="0" role="region" aria-label="Table, scrolls sideways"><table>'
        '<thead><tr><th scope="col">n</th><th scope="col" class="right">v</th></tr></thead>\n'
        '<tbody>\n<tr><td>a|b</td><td class="right">1</td></tr>\n</tbody></table></div>'
    )


def test_a_bar_alone_is_a_paragraph() -> None:
    assert to_html("| no table\n") == "<p>| no table</p>"
