"""A small template language: phrases with alternatives, named rules and entity spans, expanded at random.

A phrase file consists of sections. ``%name`` starts an intent. ``@name`` starts a rule, whose lines are drawn at random
with replacement. ``@@name`` starts a deck, whose lines are drawn without replacement until all were used. Every other
line is one template, optionally with a weight (``3* how do i ...``). ``#`` starts a comment line. In a template::

    [a|b|]          one of the alternatives, with equal probability; an alternative may be empty
    {name}          a draw from a rule, a deck, or one of the caller's generators
    (type: ...)     an entity span

Only :meth:`random.Random.random` is called, whose sequence for a seed is the same in all Python versions.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from random import Random

from sparse_bench.errors import DataError, unknown_choice

Generator = Callable[[Random], str]


@dataclass(frozen=True)
class Segment:
    """A piece of text, and its entity type (None: plain text)."""

    text: str
    entity: str | None = None


@dataclass(frozen=True)
class Text:
    """Literal characters."""

    text: str


@dataclass(frozen=True)
class Choice:
    """One of several sequences of nodes."""

    options: tuple[tuple["Node", ...], ...]


@dataclass(frozen=True)
class Call:
    """A draw from a named rule, deck or generator."""

    name: str


@dataclass(frozen=True)
class Span:
    """An entity, with all its content."""

    type: str
    content: tuple["Node", ...]


Node = Text | Choice | Call | Span


@dataclass(frozen=True)
class Template:
    """A weighted sequence of nodes."""

    nodes: tuple[Node, ...]
    weight: float = 1.0


@dataclass(frozen=True)
class Grammar:
    """The content of the phrase files.

    Attributes:
        intents: name → its templates.
        rules: name → alternatives, drawn with replacement.
        decks: name → alternatives, drawn without replacement until all were used. Weights are ignored.
    """

    intents: dict[str, tuple[Template, ...]] = field(default_factory=dict)
    rules: dict[str, tuple[Template, ...]] = field(default_factory=dict)
    decks: dict[str, tuple[Template, ...]] = field(default_factory=dict)


def pick(random: Random, count: int) -> int:
    """A uniform index below ``count``."""
    return int(random.random() * count)


def shuffled(random: Random, count: int) -> list[int]:
    """A uniform permutation of ``range(count)`` (Fisher and Yates)."""
    order = list(range(count))
    for last in range(count - 1, 0, -1):
        other = pick(random, last + 1)
        order[last], order[other] = order[other], order[last]
    return order


def weighted(random: Random, templates: tuple[Template, ...]) -> Template:
    """One template, in proportion to the weights."""
    point = random.random() * sum(template.weight for template in templates)
    for template in templates:
        point -= template.weight
        if point < 0:
            return template
    return templates[-1]


def parse_template(line: str) -> Template:
    """Read one line of a phrase file.

    Raises:
        DataError: unbalanced brackets, or an entity without a type.
    """
    head, star, rest = line.partition("* ")
    weight, body = (float(head), rest) if star and head.replace(".", "", 1).isdigit() else (1.0, line)
    nodes, end = _sequence(body, 0, closing="")
    if end != len(body):
        raise DataError(f"Template '{line}' has an unmatched '{body[end]}' at character {end}.")
    return Template(nodes, weight)


def _sequence(text: str, start: int, closing: str) -> tuple[tuple[Node, ...], int]:
    """Nodes from ``start`` up to (not including) a character of ``closing`` or the end of the text."""
    nodes: list[Node] = []
    literal = position = start
    while position < len(text) and text[position] not in closing and text[position] not in "])}":
        opening = text[position]
        if opening not in "[{(":
            position += 1
            continue
        if literal < position:
            nodes.append(Text(text[literal:position]))
        node, position = _bracket(text, position)
        nodes.append(node)
        literal = position
    if literal < position:
        nodes.append(Text(text[literal:position]))
    return tuple(nodes), position


def _bracket(text: str, start: int) -> tuple[Node, int]:
    """The node whose bracket opens at ``start``, and the position after its closing bracket."""
    position = start + 1
    node: Node
    if text[start] == "[":
        options = []
        while True:
            option, position = _sequence(text, position, closing="|]")
            options.append(option)
            if text[position : position + 1] != "|":
                break
            position += 1
        closing, node = "]", Choice(tuple(options))
    elif text[start] == "{":
        end = max(text.find("}", position), position)
        closing, node, position = "}", Call(text[position:end]), end
    else:
        kind, colon, _ = text[position:].partition(":")
        if not colon or not kind.isidentifier():
            raise DataError(f"Template '{text}' has an entity without a type; write '(type: phrase)'.")
        content, position = _sequence(text, position + len(kind) + 1, closing=")")
        closing, node = ")", Span(kind, content)
    if text[position : position + 1] != closing:
        raise DataError(f"Template '{text}' has a '{text[start]}' at character {start} without its '{closing}'.")
    return node, position + 1


def parse_grammar(lines: Iterable[str], generators: Iterable[str] = ()) -> Grammar:
    """Read the lines of all phrase files. ``generators`` are the names of the generators of :class:`Speaker`.

    Raises:
        DataError: a template outside a section, an empty section, or a call of an undefined name.
    """
    grammar = Grammar()
    section: list[Template] | None = None
    places = {"@@": grammar.decks, "@": grammar.rules, "%": grammar.intents}
    collected: list[tuple[dict[str, tuple[Template, ...]], str, list[Template]]] = []
    for line in (raw.strip() for raw in lines):
        if not line or line.startswith("#"):
            continue
        mark = next((mark for mark in places if line.startswith(mark)), None)
        if mark is not None:
            section = []
            collected.append((places[mark], line.removeprefix(mark), section))
        elif section is None:
            raise DataError(f"Template '{line}' comes before the first section (%intent, @rule or @@deck).")
        else:
            section.append(parse_template(line))
    for place, name, templates in collected:
        if not templates:
            raise DataError(f"Section '{name}' of the phrase files has no template.")
        place[name] = place.get(name, ()) + tuple(templates)
    known = {*grammar.rules, *grammar.decks, *generators}
    for _, name, templates in collected:
        for call in _calls(node for template in templates for node in template.nodes):
            if call not in known:
                raise DataError(f"In section '{name}': {unknown_choice('rule', call, known)}")
    return grammar


def _calls(nodes: Iterable[Node]) -> Iterator[str]:
    for node in nodes:
        if isinstance(node, Call):
            yield node.name
        elif isinstance(node, Span):
            yield from _calls(node.content)
        elif isinstance(node, Choice):
            for option in node.options:
                yield from _calls(option)


class Speaker:
    """Expands templates of a grammar with one random stream, and keeps the state of each deck.

    Args:
        grammar: rules and decks.
        random: the stream; only its ``random()`` is called.
        generators: name → function that generates a text, for example a number or an address.
    """

    def __init__(self, grammar: Grammar, random: Random, generators: Mapping[str, Generator]) -> None:
        self._grammar = grammar
        self._random = random
        self._generators = generators
        self._piles: dict[str, list[int]] = {}

    def say(self, template: Template) -> list[Segment]:
        """Expand a template to segments without surplus spaces. Adjacent plain segments are joined."""
        segments: list[Segment] = []
        for text, entity in self._expand(template.nodes, None):
            before = segments[-1].text if segments else " "
            if before.endswith(" "):
                text = text.lstrip(" ")
            elif text.startswith((" ,", " ?", " .", " !")):
                text = text[1:]
            if not text:
                continue
            if segments and segments[-1].entity == entity and entity is None:
                segments[-1] = Segment(before + text, entity)
            else:
                segments.append(Segment(text, entity))
        return _squeezed(segments)

    def _expand(self, nodes: tuple[Node, ...], entity: str | None) -> Iterator[tuple[str, str | None]]:
        for node in nodes:
            if isinstance(node, Text):
                yield node.text, entity
            elif isinstance(node, Choice):
                yield from self._expand(node.options[pick(self._random, len(node.options))], entity)
            elif isinstance(node, Span):
                inside = "".join(text for text, _ in self._expand(node.content, node.type))
                yield " ".join(inside.split()), node.type
            elif node.name in self._generators:
                yield self._generators[node.name](self._random), entity
            else:
                yield from self._expand(self._draw(node.name).nodes, entity)

    def _draw(self, name: str) -> Template:
        if name in self._grammar.rules:
            return weighted(self._random, self._grammar.rules[name])
        cards = self._grammar.decks[name]
        pile = self._piles.get(name) or shuffled(self._random, len(cards))
        self._piles[name] = pile
        return cards[pile.pop()]


def _squeezed(segments: list[Segment]) -> list[Segment]:
    """Reduce runs of spaces to one space, and remove spaces at the end."""
    squeezed = [
        Segment(segment.text if segment.entity else _single_spaces(segment.text), segment.entity)
        for segment in segments
    ]
    while squeezed and not squeezed[-1].text.strip():
        squeezed.pop()
    if squeezed:
        squeezed[-1] = Segment(squeezed[-1].text.rstrip(), squeezed[-1].entity)
    return squeezed


def _single_spaces(text: str) -> str:
    while "  " in text:
        text = text.replace("  ", " ")
    return text
