"""Read training messages in Rasa's YAML format, whose versions 2 and 3 are the same for messages.

A file is ``nlu:`` with a list of items. An item is an intent, a synonym, a regex or a lookup, with its ``examples``: a
literal block of lines ``- example``, or a list of ``text: example``. Entities are marked in an intent's example as
``[surface](type)``, ``[surface](type:value)`` or ``[surface]{"entity": "type", "value": ..., "role": ..., "group":
...}``.

In a literal block, a backslash, or a bracket that belongs to no entity, is ordinary text. Escapes are those of YAML's
double quotes and of JSON. As in Rasa, ``\\uXXXX`` is also an escape in a file that is otherwise ASCII. In cases where
Rasa warns and skips an item, this reader refuses the file.
"""

import json
import logging
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from sparse_bench.data.messages import Entity, Message, NluCorpus
from sparse_bench.data.text_files import lines_of, read_text
from sparse_bench.data.yaml_texts import TextLoader, load_yaml, major_version
from sparse_bench.errors import DataError, shortened, unknown_choice

_LOG = logging.getLogger(__name__)

#: The end of an entity's surface and its markup, or just a bracket. Nothing is tried twice, so that time is linear.
_CLOSING = re.compile(
    r"""
    \]
    (?P<markup>
        \( (?P<type> [^:)]++ ) (?: : (?P<value> [^)]++ ) )? \)
      | \{ (?P<attributes> [^}]++ ) \}
      | [({]
    )?
    """,
    re.VERBOSE,
)
#: Signs of incomplete markup: ordinary sentences do not have these characters in a row.
_BROKEN = re.compile(r"\](?:\(|\{|\[\{)")
_ATTRIBUTES = ("entity", "value", "role", "group")
_KINDS = ("intent", "synonym", "regex", "lookup")
_ESCAPE = re.compile(r"\\u([0-9a-fA-F]{4})|\\U((?:000[0-9a-fA-F]|0010)[0-9a-fA-F]{4})")


def parse_example(example: str) -> tuple[str, tuple[Entity, ...]]:
    """Remove the entity markup from an example.

    An entity's value is the one in its markup, else its surface, i.e. its text. Roles and groups are checked but not
    kept.

    Returns:
        The text without markup, and the entities with their positions in it.

    Raises:
        DataError: the markup is malformed.
    """
    text = ""
    entities = []
    end = begin = 0  # of the latest entity, and of what may be the surface of the next one
    for match in _CLOSING.finditer(example):
        opening = example.find("[", begin, match.start())
        begin = match.end()
        if match["markup"] is None:
            continue
        if match["markup"] in "({" or not 0 <= opening < match.start() - 1:
            _plain(example[end : match.start() + 2])  # refused, as markup without an entity
        text += _plain(example[end:opening])
        surface, kind, value = example[opening + 1 : match.start()], match["type"], match["value"]
        if match["attributes"] is not None:
            attributes = _attributes("{" + match["attributes"] + "}")
            kind, value = attributes["entity"], attributes.get("value")
        entities.append(Entity(len(text), len(text) + len(surface), kind, surface if value is None else value))
        text += surface
        end = match.end()
    return text + _plain(example[end:]), tuple(entities)


def _plain(text: str) -> str:
    if found := _BROKEN.search(text):
        raise DataError(
            f"'{found[0]}' belongs to no entity; an entity is [text](type), [text](type:value) or "
            '[text]{"entity": "type", "value": "value"}'
        )
    return text


def _attributes(markup: str) -> dict[str, str]:
    try:
        found = json.loads(markup)
    except json.JSONDecodeError as error:
        raise DataError(f"{markup} is not JSON: {error}") from error
    for name, value in found.items():
        if name not in _ATTRIBUTES:
            raise DataError(f"in {markup}: {unknown_choice('attribute of an entity', name, _ATTRIBUTES)}")
        if not isinstance(value, str) or not value:
            raise DataError(f"in {markup}: '{name}' must be a text")
    if "entity" not in found:
        raise DataError(f"in {markup}: 'entity' (the type) is missing")
    return found


def read_nlu(files: Mapping[str, Path], merge_retrieval: bool = True) -> NluCorpus:
    """Read files of training data into one corpus, in the order of ``files``.

    Args:
        files: name (for errors and checksums) → file.
        merge_retrieval: shorten a retrieval intent ``faq/languages`` to ``faq``; otherwise keep it.

    Returns:
        The corpus, with duplicate examples. A value in an entity's markup also defines a synonym; if a surface has
        several values, the last one counts. An entity's value is the one in its markup, else the synonym of its surface
        (ignoring case), else its surface.

    Raises:
        DataError: a file cannot be read or is malformed. The message names the file and the example.
    """
    reading = _Reading(merge_retrieval)
    for name, path in files.items():
        reading.read(name, path)
    return reading.corpus()


@dataclass
class _Reading:
    """The content of the files read so far."""

    merge_retrieval: bool
    messages: list[Message] = field(default_factory=list)
    synonyms: dict[str, str] = field(default_factory=dict)
    regexes: dict[str, list[str]] = field(default_factory=dict)
    lookups: dict[str, list[str]] = field(default_factory=dict)
    checksums: dict[str, str] = field(default_factory=dict)

    def read(self, name: str, path: Path) -> None:
        file = read_text(path, name)
        tree = load_yaml(replace(file, text=_unescaped(name, file.text)), TextLoader)
        self.checksums[name] = file.sha256
        items = tree.get("nlu") if isinstance(tree, dict) else None
        if not isinstance(items, list):
            raise DataError(f"{name} has no list 'nlu'.")
        major_version(name, tree)
        for number, item in enumerate(items, start=1):
            self._item(f"{name}, item {number}", item)

    def _item(self, place: str, item: object) -> None:
        kinds = [kind for kind in _KINDS if isinstance(item, dict) and kind in item]
        if not isinstance(item, dict) or len(kinds) != 1:
            raise DataError(f"{place} must have one of the keys {', '.join(_KINDS)}; it has: {shortened(item)}.")
        (kind,) = kinds
        subject = item[kind]
        if not isinstance(subject, str) or not subject.strip():
            raise DataError(f"{place}: the {kind} has no name.")
        if unknown := item.keys() - {kind, "examples", "metadata"}:
            raise DataError(f"{place}: {unknown_choice('key', min(unknown), (kind, 'examples', 'metadata'))}")
        place = f"{place} ({kind} '{subject}')"
        examples = list(_examples(place, item.get("examples", "")))
        if not examples:
            raise DataError(f"{place} has no examples.")
        match kind:
            case "intent":
                for number, example in enumerate(examples, start=1):
                    self._message(f"{place}, example {number}", subject.strip(), example)
            case "synonym":
                for example in examples:
                    self._synonym(place, example, subject)
            case "regex":
                self.regexes.setdefault(subject, []).extend(examples)
            case "lookup":
                self.lookups.setdefault(subject, []).extend(examples)

    def _message(self, place: str, intent: str, example: str) -> None:
        try:
            text, entities = parse_example(example)
        except DataError as error:
            raise DataError(f"{place}, {shortened(example)}: {error}.") from error
        for entity in entities:
            surface = text[entity.start : entity.end]
            if entity.value != surface:
                self._synonym(place, surface, entity.value)
        self.messages.append(Message(text, intent.split("/")[0] if self.merge_retrieval else intent, entities))

    def _synonym(self, place: str, surface: str, value: str) -> None:
        earlier = self.synonyms.get(surface, value)
        if earlier != value:
            _LOG.warning("%s: '%s' now has the value '%s' instead of '%s'.", place, surface, value, earlier)
        self.synonyms[surface] = value

    def corpus(self) -> NluCorpus:
        any_case = {surface.lower(): value for surface, value in self.synonyms.items()}

        def resolved(text: str, entity: Entity) -> Entity:
            surface = text[entity.start : entity.end]
            return replace(entity, value=any_case.get(surface.lower(), surface)) if entity.value == surface else entity

        return NluCorpus(
            messages=tuple(
                replace(message, entities=tuple(resolved(message.text, entity) for entity in message.entities))
                for message in self.messages
            ),
            synonyms=self.synonyms,
            regexes={name: tuple(patterns) for name, patterns in self.regexes.items()},
            lookups={name: tuple(phrases) for name, phrases in self.lookups.items()},
            checksums=self.checksums,
        )


def _examples(place: str, examples: object) -> Iterator[str]:
    """The examples of an item, without surrounding blanks."""
    if isinstance(examples, str):
        for number, line in enumerate(lines_of(examples), start=1):
            if line.strip():
                if not line.startswith("-"):
                    raise DataError(
                        f"{place}, line {number} of its examples does not start with '-': {shortened(line)}."
                    )
                yield _text(f"{place}, line {number} of its examples", line[1:])
    elif isinstance(examples, list):
        for number, example in enumerate(examples, start=1):
            if not isinstance(example, dict) or not {"text"} <= example.keys() <= {"text", "metadata"}:
                raise DataError(f"{place}, example {number} must be 'text: ...'; it is: {shortened(example)}.")
            yield _text(f"{place}, example {number}", example["text"])
    else:
        raise DataError(f"{place}: 'examples' must be lines '- example' or a list of 'text: example'.")


def _text(place: str, example: object) -> str:
    if not isinstance(example, str) or not example.strip():
        raise DataError(f"{place} has no text.")
    return example.strip("\r\n ")


def _unescaped(name: str, text: str) -> str:
    r"""Resolve ``\uXXXX`` and ``\UXXXXXXXX`` in an otherwise ASCII file; surrogate pairs become one character."""
    if not text.isascii():
        return text
    resolved = _ESCAPE.sub(lambda match: chr(int(match[1] or match[2], 16)), text)
    joined = resolved.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")
    for number, line in enumerate(lines_of(joined), start=1):
        if half := re.search("[\ud800-\udfff]", line):
            raise DataError(f"{name} cannot be read: line {number} has half a character, \\u{ord(half[0]):04x}.")
    return joined
