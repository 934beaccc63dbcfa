"""The command line apart from runs: help, other commands, and completion in bash and zsh."""

import argparse
import importlib
import re
import shlex
import sys
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import fields
from pathlib import Path

import yaml

from sparse_bench.config.schema import CONF, Config, TrainerConfig, choices

#: Commands other than runs → the module whose ``main`` takes their arguments, and what they do.
COMMANDS = {
    "status": ("sparse_bench.status", "print the state of a sweep's runs: finished, running, failed, left"),
    "schemes": ("sparse_bench.scheme_table", "print a table of the sparsity schemes, with sources and settings"),
    "export": ("sparse_bench.saved", "write the weights of a finished run as safetensors"),
    "new": ("sparse_bench.new", "write a working scheme, model or dataset of your own into the current folder"),
    "completion": ("sparse_bench.shell", "print a script that completes this command in bash or zsh"),
}
#: Groups whose files the help explains, with what they choose.
_EXPLAINED = {
    "model": "what is trained",
    "dataset": "what it learns from; names in _like are generated, and need no download",
    "sparsity": "which weights exist, and how that changes",
    "optimizer": "how weights are updated",
    "logger": "where metrics go; combine them: logger=[wandb,tensorboard]",
}
#: Groups whose files are listed by folder.
_LISTED = {
    "experiment": "one run of a paper, with all its settings",
    "sweep": "a grid of runs of a paper; killed and started again, it continues",
    "benchmark": "a scheme with the benchmark's settings",
}
_FLAGS = {
    "--cfg job": "print the composed settings, and run nothing",
    "--config-dir conf": "use files of your own, in conf/sparsity, conf/model, …",
    "-m": "run every combination of values that are separated by commas: seed=0,1,2",
}
_WIDTH = 118


def run_command(arguments: Sequence[str]) -> int | None:
    """Carry out a command other than runs, or print the help; None if the arguments are those of a run."""
    if any(argument in ("--help", "-h") for argument in arguments) and arguments[0] not in COMMANDS:
        print(help_text())
        return 0
    if not arguments or arguments[0] not in COMMANDS:
        return None
    code: int = importlib.import_module(COMMANDS[arguments[0]][0]).main(arguments[1:])
    return code


def help_text() -> str:
    """What the command does, its groups of settings with all their files, and the settings of every run."""
    return "\n".join(_help())


def _help() -> Iterator[str]:
    yield "Train a language model with sparse weights:  sparse-bench [group=FILE …] [setting=VALUE …] [flags]"
    yield "The same:                                    python -m sparse_bench …\n"
    yield "  sparse-bench model=diet dataset=sara_like sparsity=rigl sparsity.density=0.1 trainer.epochs=10"
    yield "  sparse-bench experiment=rasa/diet sparsity.density=0.1,0.2 seed=0,1,2 -m"
    yield "  sparse-bench sweep=rasa/diet_small hydra/launcher=joblib\n"
    yield "Other commands (each has --help)"
    yield from _table({name: what for name, (_, what) in COMMANDS.items()})
    for group, what in _EXPLAINED.items():
        yield f"\n{group}=…   {what}"
        yield from _table({name: _first_comment(CONF / group / f"{name}.yaml") for name in choices(group)})
    for group, what in _LISTED.items():
        yield f"\n{group}=…   {what}"
        folders: dict[str, list[str]] = {}
        for name in choices(group):
            folders.setdefault(name.rpartition("/")[0], []).append(name.rpartition("/")[2])
        for folder, names in folders.items():
            yield from textwrap.wrap(
                f"{folder and f'{folder}/ '}{', '.join(names)}", _WIDTH, initial_indent="  ", subsequent_indent="    "
            )
    yield "\nSettings of every run"
    yield from _table(
        _comments(CONF / "config.yaml", [field.name for field in fields(Config)])
        | {"force": "true: repeat a finished run; its earlier files are kept in .earlier of the run's folder"}
    )
    yield "\ntrainer.…   how long and how to train"
    yield from _table(_documented(TrainerConfig), "trainer.")
    yield "\nFlags"
    yield from _table(_FLAGS)
    yield "  --hydra-help        what Hydra adds"


def _table(rows: dict[str, str], prefix: str = "") -> Iterator[str]:
    width = max(len(prefix + name) for name in rows) + 2
    for name, what in rows.items():
        lines = textwrap.wrap(what, _WIDTH - width - 2) or [""]
        yield f"  {prefix + name:<{width}}{lines[0]}".rstrip()
        yield from (" " * (width + 2) + line for line in lines[1:])


def _first_comment(path: Path) -> str:
    """The first sentence of a file's leading comment."""
    lines = path.read_text(encoding="utf-8").splitlines()
    comment = []
    for line in lines:
        if line.startswith("# @package"):
            continue
        if not line.startswith("#"):
            break
        comment.append(line[1:].strip())
    return re.split(r"(?<!et al)\.\s", f"{' '.join(comment)} ")[0].strip()


def _comments(path: Path, names: Sequence[str]) -> dict[str, str]:
    """Setting → the comment at its line, for settings of a file that have one."""
    found = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        name, _, rest = line.partition(":")
        if name in names and " # " in rest:
            found[name] = rest.partition(" # ")[2].strip()
    return found


def _documented(schema: type) -> dict[str, str]:
    """Field → its description in the docstring."""
    text = textwrap.dedent((schema.__doc__ or "").partition("Attributes:\n")[2])
    found: dict[str, str] = {}
    names = [field.name for field in fields(schema)]
    for line in text.splitlines():
        name, _, rest = line.strip().partition(": ")
        if name in names:
            found[name] = rest
        elif found and line.strip():
            found[[*found][-1]] += f" {line.strip()}"
    return {name: re.sub(r"``|`|:mod:", "", what).rstrip(".") for name, what in found.items()}


# ---- completion ----

_SCRIPT = """\
_sparse_bench() {{
    local line=${{COMP_LINE:0:COMP_POINT}} cut reply
    COMPREPLY=()
    case ${{COMP_WORDS[0]}} in
        *python*) [[ ${{COMP_WORDS[1]}} == -m && ${{COMP_WORDS[2]}} == sparse_bench ]] || return 0 ;;
    esac
    cut=${{line##* }}
    [[ $COMP_WORDBREAKS == *=* && $cut == *=* ]] && cut=${{cut%=*}}= || cut=
    while IFS= read -r reply; do COMPREPLY+=("${{reply#"$cut"}}"); done < <({python} -m sparse_bench.shell "$line")
    [[ ${{#COMPREPLY[@]}} == 1 && ${{COMPREPLY[0]}} != *[=./] ]] && COMPREPLY[0]+=" "
    return 0
}}
complete -o nospace -o default -F _sparse_bench sparse-bench python python3
"""


def main(arguments: Sequence[str]) -> int:
    """The command ``sparse-bench completion``; returns its exit code."""
    parser = argparse.ArgumentParser(
        prog="sparse-bench completion",
        description='Print a script that completes sparse-bench and python -m sparse_bench: eval "$(sparse-bench '
        'completion bash)". In zsh, run this first: autoload -U bashcompinit && bashcompinit',
    )
    parser.add_argument("shell", choices=("bash", "zsh"))
    parser.parse_args(arguments)
    print(_SCRIPT.format(python=shlex.quote(sys.executable)), end="")
    return 0


_SWITCH = ["true", "false"]
#: Values of settings that are no groups of files.
_VALUES = {
    "hydra/launcher": ["basic", "joblib"],
    "trainer.keep": ["nothing", "weights", "checkpoint"],
    "trainer.precision": ["fp32", "tf32", "bf16", "fp16"],
    "trainer.select": ["last", "best"],
    **dict.fromkeys(("force", "progress", "wait_for_others"), _SWITCH),
}


def completions(line: str) -> list[str]:
    """What may stand for the last word of a command line.

    Args:
        line: the command, up to the cursor.
    """
    words = line.split(" ")
    word, earlier = words[-1], [word for word in words[:-1] if word]
    begun = earlier[3:] if earlier[:1] and "python" in earlier[0] else earlier[1:]
    key, equals, value = word.partition("=")
    groups = [path.name for path in CONF.iterdir() if path.is_dir() and path.name not in ("shared", "hydra")]
    if equals:
        known = choices(key) if key in groups else _VALUES.get(key, [])
        before = f"{key}={value.rpartition(',')[0]}," if "," in value else f"{key}="
        found = [before + name for name in known]
    elif "." in word:
        group = word.partition(".")[0]
        names = [field.name for field in fields(TrainerConfig)] if group == "trainer" else _settings(group, begun)
        found = [f"{group}.{name}=" for name in names]
    else:
        found = [f"{group}=" for group in groups] + ["hydra/launcher="]
        found += [f"{group}." for group in (*_EXPLAINED, "trainer") if group != "logger"]
        found += [f"{field.name}=" for field in fields(Config) if field.name not in (*groups, "point")]
        found += ["--help", "--cfg", "--config-dir", "-m"] + ([] if begun else [*COMMANDS])
    return sorted({one for one in found if one.startswith(word)})


def _settings(group: str, begun: Sequence[str]) -> list[str]:
    """The settings of a group's chosen file: on the command line, by the experiment, or by default."""
    chosen = dict(word.partition("=")[::2] for word in begun if "=" in word)
    name = chosen.get(group)
    for parent in ("sweep", "experiment"):
        if name is None and parent in chosen:
            name = _chosen_by(CONF / parent / f"{chosen[parent]}.yaml", group)
    name = name or _chosen_by(CONF / "config.yaml", group)
    path = CONF / group / f"{name}.yaml"
    if not path.is_file():
        return []
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    return [*_leaves({key: value for key, value in content.items() if key not in ("label", "defaults")})]


def _leaves(node: dict[str, object], path: str = "") -> Iterator[str]:
    for key, value in node.items():
        if key.startswith("_"):
            continue
        if isinstance(value, dict):
            yield from _leaves(value, f"{path}{key}.")
        else:
            yield path + key


def _chosen_by(path: Path, group: str) -> str | None:
    """The file of a group that a configuration file's defaults choose, also through the files that it builds on."""
    if not path.is_file():
        return None
    found = None
    for entry in yaml.safe_load(path.read_text(encoding="utf-8")).get("defaults", []):
        if isinstance(entry, dict):
            for key, name in entry.items():
                last = key.split(" ")[-1].lstrip("/")
                if last == group and isinstance(name, str):
                    found = name
                elif last == "experiment" and isinstance(name, str):
                    found = _chosen_by(CONF / "experiment" / f"{name}.yaml", group) or found
        elif entry not in ("_self_", "schema"):
            base = CONF / entry.lstrip("/") if entry.startswith("/") else path.parent / entry
            found = _chosen_by(base.with_suffix(".yaml"), group) or found
    return found


if __name__ == "__main__":
    print("\n".join(completions(sys.argv[1])))
