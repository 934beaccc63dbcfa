"""Print a table of the sparsity schemes: rule, source, what is held while training, when it changes, and settings.

The table is made from the files in ``conf/sparsity`` and from the docstrings of the schemes, so it cannot lag behind.
"""

import argparse
import inspect
import re
import sys
from collections.abc import Iterator, Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any

import yaml

from sparse_bench.config.schema import CONF, choices
from sparse_bench.errors import SparseBenchError
from sparse_bench.record import write_atomically

_COLUMNS = ("scheme", "rule", "source", "weights held while training", "connections change", "settings")
#: Entries of a scheme's file that all of them have, or that are no settings.
_COMMON = ("label", "_target_", "_convert_", "defaults", "layers", "execution", "density")
#: The lines in a document around the table.
BEGIN, END = "<!-- table: written by sparse-bench schemes --write FILE -->", "<!-- end of table -->"


def rows() -> Iterator[dict[str, str]]:
    """A row for each file in ``conf/sparsity``, in the order of names."""
    from sparse_bench.config.nodes import target_of  # imports torch

    for name in choices("sparsity"):
        text = (CONF / "sparsity" / f"{name}.yaml").read_text(encoding="utf-8")
        node = yaml.safe_load(text)
        kind = target_of(node, "sparsity")
        settings = {key: value for key, value in node.items() if key not in _COMMON}
        cells = (f"`{name}`", _rule(text), _source(kind), _held(kind), _changes(kind), _text(settings))
        yield dict(zip(_COLUMNS, cells, strict=True))


def _rule(text: str) -> str:
    """The comment at the top of a scheme's file, up to two sentences."""
    lines = [line.lstrip("# ") for line in takewhile(lambda line: line.startswith("#"), text.splitlines())]
    return " ".join(re.split(r"(?<=\.)\s", " ".join(lines))[:2])


def _source(kind: type) -> str:
    """What the class or its module names as the source."""
    found = re.search(r"Sources?: (.+?)(?:\n\n|$)", inspect.getdoc(kind) or "", re.S)
    if found:
        return " ".join(found[1].split()).rstrip(".")
    module = " ".join((inspect.getmodule(kind).__doc__ or "").split())
    named = re.search(r"\(([^()]*\d{4}[^()]*)\)", module)
    return named[1] if named else ""


def _held(kind: Any) -> str:
    if kind.holds_hidden:
        return "all"
    from sparse_bench.sparsity.scheme import Scheme

    return "existing ones" if kind.missing_in_the_end is Scheme.missing_in_the_end else "existing ones, more at first"


def _changes(kind: Any) -> str:
    settings = inspect.signature(kind).parameters
    if "interval" in settings:
        steps = settings["interval"].default
        return "each step" if steps == 1 else f"every {steps} steps"
    return "after each epoch" if "zeta" in settings else str(kind.changes)


def _text(settings: dict[str, Any]) -> str:
    plain = {key: value for key, value in settings.items() if not isinstance(value, dict)}
    return ", ".join(f"`{key}={'null' if value is None else value}`" for key, value in plain.items())


def table() -> str:
    """The table in Markdown."""
    lines = [f"| {' | '.join(_COLUMNS)} |", f"|{' --- |' * len(_COLUMNS)}"]
    lines += [f"| {' | '.join(row[column].replace('|', chr(92) + '|') for column in _COLUMNS)} |" for row in rows()]
    return "\n".join(lines)


def with_table(text: str) -> str:
    """``text`` with the table between its two marking lines.

    Raises:
        SparseBenchError: ``text`` does not have each line once.
    """
    marked = f"({re.escape(BEGIN)}\n).*?({re.escape(END)})"
    found = re.subn(marked, lambda m: f"{m[1]}{table()}\n{m[2]}", text, flags=re.S)
    if found[1] != 1:
        raise SparseBenchError(f"The file needs the lines '{BEGIN}' and '{END}', once each.")
    return found[0]


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table, or write it into a document."""
    parser = argparse.ArgumentParser(prog="sparse-bench schemes", description=__doc__)
    parser.add_argument("--write", type=Path, metavar="FILE", help="a document with the two marking lines")
    given = parser.parse_args(arguments)
    if given.write is None:
        print(table())
        return 0
    try:
        write_atomically(given.write, with_table(given.write.read_text(encoding="utf-8")).encode())
    except (OSError, SparseBenchError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
