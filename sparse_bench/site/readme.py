"""The overview in ``results/README.md``, and its summary for the project's README."""

import re
from collections.abc import Sequence
from typing import Any

from sparse_bench.errors import SparseBenchError
from sparse_bench.evidence.cell_values import is_finite
from sparse_bench.evidence.compare import Evidence
from sparse_bench.evidence.display import DisplayTable, markdown
from sparse_bench.evidence.ledger import LEDGER_CAPTION, headline_table, ledger_table, revisions, summary_table
from sparse_bench.evidence.store import FILES
from sparse_bench.evidence.tables import made_on
from sparse_bench.evidence.verdicts import Entry
from sparse_bench.papers.schema import Target
from sparse_bench.site.content import PaperContent, findings
from sparse_bench.site.table_files import FOLDER, TableFile

#: Columns of the ledger that a paper's own part omits.
_REPEATED = ("document", "where")
#: The part of the project's README between these lines is written by a command.
BEGIN, END = "<!-- results: written by make results -->", "<!-- end of results -->"

_TIME = "time / dense"
_DENSE, _FUSED = "dense, float32, two cores", "torch's fused Adam, two cores"
_MODELS, _KERNEL = "sparse_models", "kernel, density 0.2"
#: The rows of the speed table: model, density, reference, and a benchmark's file, row and column.
_SPEED: tuple[tuple[str, str, str, str, dict[str, Any], str], ...] = (
    ("DIET, 256 units", "20 %", _DENSE, _MODELS, {"model": "DIET, U = 256", "arm": _KERNEL}, _TIME),
    ("Transformer, Multi30k", "20 %", _DENSE, _MODELS, {"model": "transformer, Multi30k", "arm": _KERNEL}, _TIME),
    ("LSTM, 2,500 units", "0.1 %", _DENSE, "sparse_lstm", {"density": 0.001}, "times faster, whole model"),
    ("embeddings, 30,000 × 300", "–", _FUSED, "embeddings", {"optimizer": "adam", "arm": "exact"}, "against_fused"),
)


class ReadmeError(SparseBenchError):
    """A README lacks the lines that mark the part on results."""


def summary(contents: Sequence[PaperContent], entries: Sequence[Entry], evidence: Evidence, folder: str) -> str:
    """The headline claims, the speed table and a figure, as Markdown for the project's README.

    Args:
        contents: content of the papers' pages.
        entries: the decided claims.
        evidence: the committed tables.
        folder: the folder of results, relative to the README.
    """
    titles = {content.paper.name: content.paper.short for content in contents}
    text = f"{markdown(headline_table(entries, titles)).lstrip()}\n{revisions(entries)}\n"
    speed = _speed_table(evidence)
    if speed.rows:
        text += f"\n{markdown(speed).lstrip()}"
    drawn = [(c.paper.name, *front) for c in contents for section in c.sections for front in section.front]
    if not drawn:
        return text
    paper, figure, caption = drawn[0]
    image = f"![{figure.title}]({folder}/{paper}/figures/{figure.name}.svg)"
    return f"{text}\n{image}\n\n{caption}\n"


def _speed_table(evidence: Evidence) -> DisplayTable:
    """Speed-ups of a training step, from the existing benchmarks."""
    rows = []
    for model, density, rival, stem, where, column in _SPEED:
        for row in evidence.rows(Target("", f"{FOLDER}/{stem}.csv", where)):
            if is_finite(row[column]):
                times = 1 / row[column] if column == _TIME else row[column]
                rows.append([model, density, rival, f"{times:.2g} times"])
    return DisplayTable(
        "", ["training step of", "density", "compared with", "faster"], rows, [False, False, False, True]
    )


def with_summary(text: str, written: str) -> str:
    """``text`` with ``written`` between its two marking lines.

    Raises:
        ReadmeError: ``text`` does not have each line once.
    """
    found = re.subn(
        f"({re.escape(BEGIN)}\n).*?({re.escape(END)})", lambda m: f"{m[1]}{written}{m[2]}", text, flags=re.S
    )
    if found[1] != 1:
        raise ReadmeError(f"The README needs the lines '{BEGIN}' and '{END}', once each, for the results between them.")
    return found[0]


def readme(contents: Sequence[PaperContent], entries: Sequence[Entry], benchmarks: Sequence[TableFile]) -> str:
    """The text: headline claims, totals, each paper's claims with its first figures, and a list of benchmarks."""
    titles = {content.paper.name: content.paper.short for content in contents}
    parts = [
        "# Results",
        "",
        "A command writes this file from the tables in this folder. Do not edit it by hand. "
        "[claims.md](claims.md) has every rule, [claims.csv](claims.csv) every comparison.",
        "",
        revisions(entries),
        "",
        "## Headline claims",
        "",
        markdown(headline_table(entries, titles)).lstrip(),
        "## All claims",
        "",
        markdown(summary_table(entries, titles)),
        f"In the tables below: {LEDGER_CAPTION}",
        "",
    ]
    for content in contents:
        parts += _paper(content, [entry for entry in entries if entry.document == content.paper.name], titles)
    parts += ["## Performance", ""]
    parts += [f"- [{b.title}]({FOLDER}/{b.files[0].name})" for b in benchmarks] or ["No benchmark was run."]
    return "\n".join([*parts, ""])


def _paper(content: PaperContent, entries: Sequence[Entry], titles: dict[str, str]) -> list[str]:
    paper = content.paper
    parts = [f"## {paper.title}", "", f"{paper.document} {paper.summary}", ""]
    parts += [text for finding in findings(paper, entries) for text in (f"- {finding}", "")]
    for section in content.sections:
        if section.figures:
            figure = section.figures[0]
            parts += [f"![{figure.title}]({paper.name}/figures/{figure.name}.svg)", "", figure.caption, ""]
    if entries:
        parts.append(markdown(ledger_table(entries, titles).without(_REPEATED)).lstrip())
    if content.table is None:
        commands = dict.fromkeys(section.command for section in content.sections)
        parts += [f"Not run. To run it: {', '.join(f'`{command}`' for command in commands)}.", ""]
    else:
        links = ", ".join(f"[{name}]({paper.name}/{name})" for name in FILES)
        made = made_on(content.table.runs)
        parts += [f"{len(content.table)} runs{f' ({made})' if made else ''}: {links}.", ""]
    return parts
