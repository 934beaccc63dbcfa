"""Read stories in Rasa's Markdown format, version 1, which Rasa 2.6 still reads.

    ## name of the story
    * intent{"entity": "value"} OR other_intent
        - action
        - slot{"name": "value"}
        - active_loop{"name": "form"}

As in Rasa, lines written by a form (``* form: …``, ``- form: …``) and comments ``<!-- … -->`` are left out. Rules
(``>>``) and checkpoints (``>``) are refused.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sparse_bench.data.dialogues import Event, LoopChange
from sparse_bench.data.rasa_domain import Domain, Mention, text_of
from sparse_bench.data.rasa_stories import CHECKPOINT, Step, StoryFiles, WrittenStory
from sparse_bench.data.text_files import TextFile, lines_of, read_text
from sparse_bench.errors import DataError, shortened

_COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)
_CALL = re.compile(r"(?P<name>[^{]+)(?P<arguments>\{.*\})?")
_FROM_FORM = re.compile(r"[*-]\s+form: ")
_LOOPS = ("active_loop", "form")


def read_markdown_stories(files: Mapping[str, Path], domain: Domain) -> StoryFiles:
    """Read story files by the name that errors and checksums use, in the order of ``files``.

    Raises:
        DataError: a file cannot be read, or a line is invalid. The message names the file and the line.
    """
    found = StoryFiles()
    for name, path in files.items():
        file = read_text(path, name)
        found.checksums[name] = file.sha256
        found.stories += [story.paths() for story in _read(file, domain)]
    return found


def _read(file: TextFile, domain: Domain) -> list[WrittenStory]:
    stories: list[tuple[str, list[Step]]] = []
    # Keep the line ends of comments, so that line numbers stay those of the file.
    end = file.text.rfind("-->") + 3  # nothing after it is a comment, however many begin there
    text = _COMMENT.sub(lambda comment: "\n" * comment[0].count("\n"), file.text[:end]) + file.text[end:]
    for number, line in enumerate(map(str.strip, lines_of(text)), start=1):
        try:
            if line.startswith("#"):
                stories.append((line.strip("# "), [(domain.beginning,)]))
            elif line and not _FROM_FORM.match(line):
                step = _step(line, domain)
                if not stories:
                    raise DataError("it comes before the first story ('## name')")
                stories[-1][1].append(step)
        except DataError as error:
            raise DataError(f"{file.name}, line {number} ({shortened(line)}): {error}.") from error
    return [WrittenStory(name, tuple(steps)) for name, steps in stories]


def _step(line: str, domain: Domain) -> Step:
    sign, rest = line[0], line[1:].strip()
    if line.startswith(">>"):
        raise DataError("a learned policy is not trained on rules")
    if sign == ">":
        raise DataError(CHECKPOINT)
    if sign == "*" and rest:
        return tuple(_message(way.strip(), domain) for way in rest.split(" OR "))
    if sign == "-" and rest:
        return (_done(rest, domain),)
    raise DataError("a line begins with '##' (story), '*' (message) or '-' (action, slot, loop)")


def _message(text: str, domain: Domain) -> tuple[Event, ...]:
    intent, arguments = _call(text)
    return domain.message(
        intent,
        [
            Mention(kind, text_of(value) or "")
            for kind, values in arguments.items()
            for value in (values if isinstance(values, list) else [values])
        ],
    )


def _done(text: str, domain: Domain) -> tuple[Event, ...]:
    name, arguments = _call(text)
    if name == "slot":
        return tuple(event for slot, value in arguments.items() for event in domain.slot(slot, text_of(value)))
    if name in _LOOPS:
        loop = arguments.get("name")
        return (LoopChange(None if loop is None else domain.action(str(loop)).name),)
    if arguments:
        raise DataError(f"'{name}' takes no arguments; only slot, {' and '.join(_LOOPS)} do")
    return (domain.action(name),)


def _call(text: str) -> tuple[str, dict[str, Any]]:
    """Name and arguments of ``name{"argument": value}``."""
    match = _CALL.fullmatch(text)
    if match is None:
        raise DataError('expected: name, or name{"argument": "value"}')
    try:
        arguments = json.loads(match["arguments"] or "{}")
    except json.JSONDecodeError as error:
        raise DataError(f"{match['arguments']} is not JSON: {error}") from error
    return match["name"].strip(), arguments
