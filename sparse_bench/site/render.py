"""Renders templates, tables and Markdown as HTML, and figures for the body of a page."""

import html
from importlib.resources import files
from typing import Any

import jinja2
from markdown_it import MarkdownIt
from markupsafe import Markup

from sparse_bench.evidence.display import DisplayTable
from sparse_bench.evidence.verdicts import VERDICTS
from sparse_bench.figures.style import Figure, theme_css

_STYLES = ("page.css", "site.css")
_TABLE = '<div class="table" tabindex="0" role="region" aria-label="Table, scrolls sideways"><table>'


def environment() -> jinja2.Environment:
    """The Jinja environment with the templates and the styles of all pages."""
    found = jinja2.Environment(
        loader=jinja2.PackageLoader("sparse_bench.site"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    styles = [files("sparse_bench.site").joinpath(name).read_text(encoding="utf-8") for name in _STYLES]
    found.globals["css"] = Markup("\n".join([theme_css(), *styles]))
    found.globals["verdicts"] = VERDICTS
    return found


def figure_parts(figure: Figure) -> dict[str, Any]:
    """The values of a figure that a template needs."""
    return {
        "name": figure.name,
        "title": figure.title,
        "caption": unbroken(figure.caption),
        "wide": Markup(figure.inline(compact=False)),
        "compact": Markup(figure.inline(compact=True)),
    }


def table_parts(table: DisplayTable) -> tuple[Markup, str]:
    """A table as HTML that scrolls sideways in its own box, and its caption."""
    numeric = table.numeric or [False] * len(table.columns)

    def cells(tag: str, texts: Any, scope: str = "") -> str:
        pairs = zip(texts, numeric, strict=True)
        right = {True: ' class="right"', False: ""}
        return "".join(f"<{tag}{scope}{right[bool(n)]}>{html.escape(t, quote=False)}</{tag}>" for t, n in pairs)

    def body(line: int, row: Any) -> str:
        parts = []
        for place, (text, right) in enumerate(zip(row, numeric, strict=True)):
            shade = table.shades.get((line, place))
            names = [*(["right"] if right else []), *([f"shade-{shade}"] if shade is not None else [])]
            classes = ' class="' + " ".join(names) + '"' if names else ""
            inner, target = html.escape(text, quote=False), table.links.get((line, place))
            inner = inner if target is None else f'<a href="{html.escape(target)}">{inner}</a>'
            parts.append(f"<td{classes}>{inner}</td>")
        return "".join(parts)

    rows = "".join(f"<tr>{body(line, row)}</tr>\n" for line, row in enumerate(table.rows))
    head = cells("th", table.columns, ' scope="col"')
    text = f"{_TABLE}<thead><tr>{head}</tr></thead>\n<tbody>\n{rows}</tbody></table></div>"
    return Markup(text), unbroken(table.caption)


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
