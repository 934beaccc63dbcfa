"""The overview in ``results/README.md``, and its summary for the project's README."""

from collections.abc import Mapping, Sequence
from typing import Any

from sparse_bench.errors import SparseBenchError
from sparse_bench.evidence.compare import Evidence
from sparse_bench.evidence.csv_tables import is_finite
from sparse_bench.evidence.display import DisplayTable, markdown
from sparse_bench.evidence.ledger import (
    LEDGER_CAPTION,
    headline_table,
    ledger_table,
    revisions,
    summary_table,
)
from sparse_bench.evidence.store import FILES
from sparse_bench.evidence.tables import made_on
from sparse_bench.evidence.verdicts import Entry
from sparse_bench.papers.schema import Target
from sparse_bench.site.content import PaperContent, findings
from sparse_bench.site.measurements import FOLDER, Measurement
from sparse_bench.site.render import environment

#: Columns of the ledger that a paper's own part omits.
_REPEATED = ("document", "where")
#: Parts of the project's README that a command writes, each between two lines.
_BEGIN, _END = "<!-- {}: written by make results -->", "<!-- end of {} -->"

_DENSE, _BF16, _FUSED = "dense, float32", "dense, bfloat16", "torch's fused Adam"
_MODELS, _KERNEL, _TIME = "sparse_models", "kernel bf16, density 0.2", "time / dense bf16"
#: The rows of the speed table: model, density, reference, and a benchmark's file, row and column.
_SPEED: tuple[tuple[str, str, str, str, dict[str, Any], str], ...] = (
    ("DIET, 256 units", "20 %", _BF16, _MODELS, {"model": "DIET, U = 256", "arm": _KERNEL}, _TIME),
    ("Transformer, Multi30k", "20 %", _BF16, _MODELS, {"model": "transformer, Multi30k", "arm": _KERNEL}, _TIME),
    ("LSTM, 2,500 units", "0.1 %", _DENSE, "sparse_lstm", {"density": 0.001}, "times faster, whole model"),
    ("embeddings, 30,000 × 300", "–", _FUSED, "embeddings", {"optimizer": "adam", "arm": "exact"}, "against_fused"),
)


class ReadmeError(SparseBenchError):
    """A README without the lines that mark a part to be written."""


def summary(
    contents: Sequence[PaperContent], entries: Sequence[Entry], evidence: Evidence, folder: str
) -> dict[str, str]:
    """The parts ``figure``, ``claims`` and ``speed`` of the project's README, as Markdown.

    Args:
        contents: content of the papers' pages.
        entries: the decided claims.
        evidence: the committed tables.
        folder: the folder of results, relative to the README.
    """
    titles = {content.paper.name: content.paper.short for content in contents}
    drawn = [(c.paper.name, *front) for c in contents for section in c.sections for front in section.front]
    images = [f"![{f.title}]({folder}/{paper}/figures/{f.name}.svg)\n\n{caption}\n" for paper, f, caption in drawn]
    return {
        "figure": "".join(images[:1]),
        "claims": f"{markdown(headline_table(entries, titles, brief=True)).lstrip()}\n{revisions(entries)}\n",
        "speed": markdown(_speed_table(evidence)).lstrip(),
    }


def _speed_table(evidence: Evidence) -> DisplayTable:
    """Speed-ups of a training step, from the existing benchmarks."""
    rows = []
    for model, density, rival, stem, where, column in _SPEED:
        for row in evidence.rows(Target("", f"{FOLDER}/{stem}.csv", where)):
            if is_finite(row[column]):
                times = 1 / row[column] if column == _TIME else row[column]
                rows.append([model, density, rival, f"{times:.2g} times"])
    columns = ["training step of", "density", "compared with (two cores)", "faster"]
    return DisplayTable("", columns, rows, [False, False, False, True])


def with_summary(text: str, parts: Mapping[str, str]) -> str:
    """``text`` with each of ``parts`` between the two lines that mark it.

    Raises:
        ReadmeError: ``text`` does not have each line once.
    """
    for name, written in parts.items():
        begin, end = _BEGIN.format(name), _END.format(name)
        if text.count(begin) != 1 or text.count(end) != 1:
            raise ReadmeError(f"The README needs the lines '{begin}' and '{end}', once each.")
        before, rest = text.split(f"{begin}\n")
        text = f"{before}{begin}\n{written}{end}{rest.partition(end)[2]}"
    return text


def readme(contents: Sequence[PaperContent], entries: Sequence[Entry], measurements: Sequence[Measurement]) -> str:
    """The text: headline claims, totals, each paper's claims with its first figures, and a list of measurements."""
    titles = {content.paper.name: content.paper.short for content in contents}
    papers = []
    for content in contents:
        own = [entry for entry in entries if entry.document == content.paper.name]
        ledger = markdown(ledger_table(own, titles).without(_REPEATED)).lstrip() if own else ""
        made = made_on(content.table.runs) if content.table is not None else ""
        papers.append((content, findings(content.paper, entries), ledger, made))
    return (
        environment()
        .get_template("results.md.j2")
        .render(
            headline=markdown(headline_table(entries, titles)).lstrip(),
            summary=markdown(summary_table(entries, titles)),
            caption=LEDGER_CAPTION,
            entries=entries,
            papers=papers,
            files=FILES,
            measurements=sorted(measurements, key=lambda measured: measured.name),
            folder=FOLDER,
        )
    )
