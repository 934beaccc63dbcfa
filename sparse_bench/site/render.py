"""Renders pages from templates, and Markdown as HTML."""

from collections import Counter
from collections.abc import Sequence
from importlib.resources import files

import jinja2
from markdown_it import MarkdownIt
from markupsafe import Markup

from sparse_bench.evidence.display import setting
from sparse_bench.evidence.ledger import measured, revisions, rule_text, rule_written, seeds, verdict_text
from sparse_bench.evidence.verdicts import VERDICTS, Entry
from sparse_bench.figures.style import theme_css

_STYLES = ("page.css", "site.css")
_TABLE = '<div class="table" tabindex="0" role="region" aria-label="Table, scrolls sideways"><table>'


def environment() -> jinja2.Environment:
    """The Jinja environment with the templates and the styles of all pages."""
    found = jinja2.Environment(
        loader=jinja2.PackageLoader("sparse_bench.site"),
        autoescape=lambda name: name is None or name.endswith(".html.j2"),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    styles = [files("sparse_bench.site").joinpath(name).read_text(encoding="utf-8") for name in _STYLES]
    found.globals["css"] = Markup("\n".join([theme_css(), *styles]))
    for used in (measured, revisions, rule_text, rule_written, seeds, setting, totals, unbroken, verdict_text):
        found.filters[used.__name__] = used
    return found


def totals(entries: Sequence[Entry]) -> list[tuple[str, int]]:
    """The number of claims with each verdict that any claim has."""
    counts = Counter(entry.verdict for entry in entries)
    return [(verdict, counts[verdict]) for verdict in VERDICTS if counts[verdict]]


def markdown_html(text: str) -> Markup:
    """Markdown as HTML: headings one level deeper, links replaced by their text, HTML tags escaped."""
    reader = MarkdownIt("commonmark", {"html": False}).enable("table")
    tokens = reader.parse(text)
    for token in tokens:
        if token.type.startswith("heading"):
            token.tag = f"h{min(6, int(token.tag[1]) + 1)}"
        if token.children:
            token.children = [child for child in token.children if not child.type.startswith("link")]
    body = str(reader.renderer.render(tokens, reader.options, {}))
    body = body.replace('style="text-align:right"', 'class="right"').replace(' style="text-align:left"', "")
    return Markup(body.replace("<table>", _TABLE).replace("</table>", "</table></div>"))


def unbroken(text: str) -> str:
    """Keep each percent sign on the line of its number, by a no-break space."""
    return text.replace(" %", "\N{NO-BREAK SPACE}%")
