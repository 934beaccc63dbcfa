"""The command ``sparse-bench new``: writes a working scheme, model or dataset into the current folder."""

import argparse
import keyword
import re
import sys
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from string import Template

#: Kind of part → its group of the configuration, and settings for a short first run.
KINDS = {
    "scheme": ("sparsity", "model.transformer_size=16 dataset.corpus.examples=400 trainer.epochs=2"),
    "model": ("model", "sparsity=random dataset.corpus.examples=400 trainer.epochs=2"),
    "dataset": ("dataset", "model.transformer_size=16 trainer.epochs=2"),
}
PACKAGE = "my_parts"


class _Filled(Template):
    """Fills in $name, $Class, $package and $title, and leaves Hydra's ${…} alone."""

    pattern = r"\$(?:(?P<named>name|Class|package|title)|(?P<escaped>(?!))|(?P<braced>(?!))|(?P<invalid>(?!)))"  # type: ignore[assignment]  # compiled by Template


def written(kind: str, name: str) -> dict[Path, str]:
    """The files of a new part, by path from the current folder."""
    words = name.split("_")
    values = {
        "name": name,
        "package": PACKAGE,
        "Class": "".join(word.capitalize() for word in words),
        "title": " ".join(words).capitalize(),
    }
    paths = {
        "py": Path(PACKAGE) / f"{name}.py",
        "yaml": Path("conf") / KINDS[kind][0] / f"{name}.yaml",
        "test": Path("tests") / f"test_{name}.py",
    }
    templates = {"py": f"{kind}.py.txt", "yaml": f"{kind}.yaml.txt", "test": f"{kind}_test.py.txt"}
    folder = files("sparse_bench") / "templates"
    return {
        path: _Filled((folder / templates[what]).read_text(encoding="utf-8")).substitute(values)
        for what, path in paths.items()
    }


def main(arguments: Sequence[str]) -> int:
    """Write the files; returns the exit code, 1 if one exists already."""
    parser = argparse.ArgumentParser(
        prog="sparse-bench new",
        description="Write the files of a working part of your own into the current folder: its Python file, its "
        "configuration and its test. Then change them.",
    )
    parser.add_argument("kind", choices=KINDS, help="what to write")
    parser.add_argument("name", metavar="NAME", help="its name: lower-case letters, digits and underscores")
    given = parser.parse_args(arguments)
    if not re.fullmatch(r"[a-z][a-z0-9_]*", given.name) or keyword.iskeyword(given.name):
        rule = "use lower-case letters, digits and underscores, with a letter first"
        parser.error(f"'{given.name}' is not a valid name: {rule}")
    found = written(given.kind, given.name)
    if there := [str(path) for path in found if path.exists()]:
        print(f"error: {', '.join(there)} exists already", file=sys.stderr)
        return 1
    for path, content in {
        Path(PACKAGE) / "__init__.py": '"""Parts of one\'s own for sparse_bench."""\n',
        **found,
    }.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            path.write_text(content, encoding="utf-8")
            print(path)
    group, settings = KINDS[given.kind]
    print(f"\nRun it:   sparse-bench --config-dir conf {group}={given.name} {settings}")
    print(f"Test it:  python -m pytest tests/test_{given.name}.py   (pip install pytest)")
    return 0
