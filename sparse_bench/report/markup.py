"""The little Markdown that this project's own tables are written in, as HTML.

Headings, paragraphs, lists, tables, fenced code; in a line: code, bold, italic and links. Anything else stays text.
"""

import html
import re
from collections.abc import Sequence

from sparse_bench.report.tables import DisplayTable

_RULE = re.compile(r"\|?\s*:?-+:?\s*(\|\s*:?-+:?\s*)*\|?")
_LINK = re.compile(r"\[([^\]]+)\]\(([^)\s]+)\)")
_CODE = re.compile(r"`([^`]+)`")


def to_html(text: str, *, deeper: int = 1) -> str:
    """Markdown as HTML.

    Args:
        text: the document.
        deeper: how many levels a heading goes down, below the headings of the page around it.
    """
    lines, parts, place = text.splitlines(), [], 0
    while place < len(lines):
        line = lines[place].strip()
        if not line:
            place += 1
        elif line.startswith("```"):
            end = next((i for i in range(place + 1, len(lines)) if lines[i].strip().startswith("```")), len(lines))
            parts.append(f"<pre><code>{html.escape(chr(10).join(lines[place + 1 : end]))}</code></pre>")
            place = end + 1
        elif match := re.match(r"(#{1,5})\s+(.*)", line):
            level = min(6, len(match[1]) + deeper)
            parts.append(f"<h{level}>{inline(match[2])}</h{level}>")
            place += 1
        elif line.startswith("|") and place + 1 < len(lines) and _RULE.fullmatch(lines[place + 1].strip()):
            end = place
            while end < len(lines) and lines[end].strip().startswith("|"):
                end += 1
            parts.append(_table([line.strip() for line in lines[place:end]]))
            place = end
        elif re.match(r"[-*] ", line):
            items: list[str] = []
            while place < len(lines) and lines[place].strip():
                item = lines[place].strip()
                if re.match(r"[-*] ", item):
                    items.append(item[2:])
                else:
                    items[-1] += f" {item}"
                place += 1
            parts.append("<ul>" + "".join(f"<li>{inline(item)}</li>" for item in items) + "</ul>")
        else:
            end = place
            while end < len(lines) and lines[end].strip() and not re.match(r"#{1,5} |\||```", lines[end].strip()):
                end += 1
            end = max(end, place + 1)
            parts.append(f"<p>{inline(' '.join(line.strip() for line in lines[place:end]))}</p>")
            place = end
    return "\n".join(parts)


def inline(text: str) -> str:
    """Code, bold, italic and links of one line. A link that leads out of the pages becomes its text."""
    pieces = _CODE.split(text)
    for number, piece in enumerate(pieces):
        escaped = html.escape(piece, quote=False)
        if number % 2:
            pieces[number] = f"<code>{escaped}</code>"
            continue
        escaped = _LINK.sub(lambda match: match[1], escaped)
        escaped = re.sub(r"\*\*(.+?)\*\*", r"<strong>\1</strong>", escaped)
        pieces[number] = re.sub(r"(?<!\w)[*_](?=\S)(.+?)(?<=\S)[*_](?!\w)", r"<em>\1</em>", escaped)
    return "".join(pieces)


def table_html(table: DisplayTable) -> str:
    """A table that scrolls sideways in its own box."""
    numeric = table.numeric or [False] * len(table.columns)
    cells = [[html.escape(cell, quote=False) for cell in row] for row in table.rows]
    return _table_html([html.escape(column, quote=False) for column in table.columns], cells, numeric)


def _table(lines: Sequence[str]) -> str:
    head, rule, *body = [_cells(line) for line in lines]
    numeric = [cell.strip().endswith(":") for cell in rule]
    return _table_html([inline(c) for c in head], [[inline(cell) for cell in row] for row in body], numeric)


def _cells(line: str) -> list[str]:
    """Cells of a line; a bar behind a backslash is part of its cell."""
    inner = line.strip().removeprefix("|").removesuffix("|")
    return [cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", inner)]


def _table_html(columns: Sequence[str], rows: Sequence[Sequence[str]], numeric: Sequence[bool]) -> str:
    def cell(tag: str, text: str, place: int) -> str:
        right = ' class="right"' if place < len(numeric) and numeric[place] else ""
        scope = ' scope="col"' if tag == "th" else ""
        return f"<{tag}{scope}{right}>{text}</{tag}>"

    head = "".join(cell("th", text, place) for place, text in enumerate(columns))
    body = "".join(f"<tr>{''.join(cell('td', text, i) for i, text in enumerate(row))}</tr>\n" for row in rows)
    opening = '<div class="table" tabindex="0" role="region" aria-label="Table, scrolls sideways"><table>'
    return f"{opening}<thead><tr>{head}</tr></thead>\n<tbody>\n{body}</tbody></table></div>"
