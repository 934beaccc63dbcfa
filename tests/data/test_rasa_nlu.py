import hashlib
import json
import logging
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from sparse_bench.data.messages import Entity, Message, NluCorpus
from sparse_bench.data.rasa_nlu import parse_example, read_nlu
from sparse_bench.errors import DataError


@pytest.fixture
def read(tmp_path: Path) -> Callable[..., NluCorpus]:
    """A function that writes each text to a file (a.yml, b.yml, ...) and reads them together."""

    def make(*texts: str, **options: bool) -> NluCorpus:
        files = {}
        for letter, text in zip("abcdefgh", texts, strict=False):
            files[f"{letter}.yml"] = tmp_path / letter
            files[f"{letter}.yml"].write_text(text, encoding="utf-8")
        return read_nlu(files, **options)

    return make


@pytest.mark.parametrize(
    ("example", "text", "entities"),
    [
        ("hello", "hello", []),
        ("", "", []),
        ("[Berlin](city)", "Berlin", [Entity(0, 6, "city", "Berlin")]),
        (
            "from [LA](city:Los Angeles) to [New York](city)!",
            "from LA to New York!",
            [Entity(5, 7, "city", "Los Angeles"), Entity(11, 19, "city", "New York")],
        ),
        ("[a](b)[c](d)", "ac", [Entity(0, 1, "b", "a"), Entity(1, 2, "d", "c")]),
        ("go [home](place:a: b)", "go home", [Entity(3, 7, "place", "a: b")]),
        ('[LA]{"entity": "city"}', "LA", [Entity(0, 2, "city", "LA")]),
        (
            'to [LA]{"entity": "city", "role": "to", "group": "1", "value": "Los (\\"\\u00c1\\") Angeles"} now',
            "to LA now",
            [Entity(3, 5, "city", 'Los ("Á") Angeles')],
        ),
        ("größe [straße](t)", "größe straße", [Entity(6, 12, "t", "straße")]),
        # Brackets that mark no entity, and backslashes, are text.
        ("hello] :( (no) {x} [y] \\n a[1] [z] (w)", "hello] :( (no) {x} [y] \\n a[1] [z] (w)", []),
        ("[[a](b)", "[a", [Entity(0, 2, "b", "[a")]),
    ],
)
def test_parse_example(example, text, entities):
    assert parse_example(example) == (text, tuple(entities))


@pytest.mark.parametrize(
    ("example", "message"),
    [
        ("go [home](place", r"'\]\(' belongs to no entity"),
        ("go [home]()", r"'\]\(' belongs to no entity"),
        ("go [](place)", r"'\]\(' belongs to no entity"),
        ("go [home](place:)", r"'\]\(' belongs to no entity"),
        ("go [home]{}", r"'\]\{' belongs to no entity"),
        ("go [the [home](place)](thing)", r"'\]\(' belongs to no entity"),
        ('[LA][{"entity": "a"}, {"entity": "b"}]', r"'\]\[\{' belongs to no entity"),
        ("[LA]{entity: city}", "is not JSON"),
        ('[LA]{"entity": "a}b"}', "is not JSON"),
        ('[LA]{"value": "x"}', r"'entity' \(the type\) is missing"),
        ('[LA]{"entity": "city", "value": 3}', "'value' must be a text"),
        ('[LA]{"entity": ""}', "'entity' must be a text"),
        ('[LA]{"entity": "city", "vlaue": "x"}', "Unknown attribute of an entity 'vlaue'. Did you mean 'value'?"),
    ],
)
def test_malformed_markup(example, message):
    with pytest.raises(DataError, match=message):
        parse_example(example)


PLAIN = st.text(st.characters(codec="utf-8", exclude_characters="[](){}"), max_size=8)
SURFACE = PLAIN.filter(bool)
TYPE = st.text(st.characters(codec="utf-8", exclude_characters="[](){}:"), min_size=1, max_size=8)
ENTITY = st.tuples(SURFACE, TYPE, st.none() | SURFACE, st.sampled_from(["short", "json"]))


def marked_up(surface: str, kind: str, value: str | None, form: str) -> str:
    if form == "short":
        return f"[{surface}]({kind}{'' if value is None else f':{value}'})"
    attributes = {"entity": kind, "role": "any"} | ({} if value is None else {"value": value})
    return f"[{surface}]{json.dumps(attributes)}"


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(PLAIN, ENTITY), max_size=4), PLAIN)
def test_markup_round_trip(pieces, tail):
    example, text, entities = "", "", []
    for plain, (surface, kind, value, form) in pieces:
        example += plain + marked_up(surface, kind, value, form)
        start = len(text) + len(plain)
        text += plain + surface
        entities.append(Entity(start, len(text), kind, surface if value is None else value))
    assert parse_example(example + tail) == (text + tail, tuple(entities))


TEXT_LINE = st.text(st.characters(codec="utf-8", exclude_categories=("C", "Z")), min_size=1, max_size=12).filter(
    lambda text: not set(text) & set("[]")
)


@settings(max_examples=40, deadline=None)
@given(texts=st.lists(TEXT_LINE, min_size=1, max_size=5), form=st.sampled_from(["block", "list"]))
def test_file_round_trip(tmp_path_factory, texts, form):
    """What a YAML writer makes of examples is read as the same examples, in both forms."""
    texts = [f"é{text}" for text in texts]  # not ASCII: no escapes but YAML's own
    examples = "".join(f"- {text}\n" for text in texts) if form == "block" else [{"text": text} for text in texts]
    path = tmp_path_factory.getbasetemp() / "round_trip.yml"
    path.write_text(
        yaml.safe_dump({"version": "2.0", "nlu": [{"intent": "x", "examples": examples}]}, allow_unicode=True),
        encoding="utf-8",
    )
    assert [message.text for message in read_nlu({"f": path}).messages] == texts


FULL = """\
version: "2.0"
nlu:
- intent: greet
  examples: |
    - hey

    -   Hello [Bob](name)  \n    - hey
- intent: faq/languages
  metadata: {source: forum}
  examples:
  - text: |
      do you speak [EN](language:english)?
    metadata: {by: Ann}
  - text: "line\\none"
- intent: faq/price
  examples: |
    - is it [Free](price)
- synonym: gratis
  examples: |
    - free
    - no charge
- regex: zip
  examples: |
    - [0-9]{5}
- lookup: city
  examples: |
    - New York
responses:
  utter_x:
  - text: not read
"""


def test_reads_all_kinds_of_items(read):
    corpus = read(FULL)
    assert corpus.messages == (
        Message("hey", "greet"),
        Message("Hello Bob", "greet", (Entity(6, 9, "name", "Bob"),)),
        Message("hey", "greet"),
        Message("do you speak EN?", "faq", (Entity(13, 15, "language", "english"),)),
        Message("line\none", "faq"),
        # The surface is a synonym but for its case.
        Message("is it Free", "faq", (Entity(6, 10, "price", "gratis"),)),
    )
    assert corpus.synonyms == {"EN": "english", "free": "gratis", "no charge": "gratis"}
    assert corpus.regexes == {"zip": ("[0-9]{5}",)}
    assert corpus.lookups == {"city": ("New York",)}
    assert corpus.checksums == {"a.yml": hashlib.sha256(FULL.encode()).hexdigest()}


@pytest.mark.parametrize("version", ["", "version: 3.1\n", 'version: "3.0"\n', "version: 2.8.1\n"])
def test_versions_say_the_same_of_messages(read, version):
    assert read(FULL.replace('version: "2.0"\n', version)).messages == read(FULL).messages


def test_retrieval_intents_can_stay_whole(read):
    assert [message.intent for message in read(FULL, merge_retrieval=False).messages] == [
        "greet",
        "greet",
        "greet",
        "faq/languages",
        "faq/languages",
        "faq/price",
    ]


def item(kind: str, name: str, *examples: str) -> str:
    lines = "".join(f"    - {example}\n" for example in examples)
    return f"nlu:\n- {kind}: {name}\n  examples: |\n{lines}"


def test_files_are_merged_in_the_given_order(read, caplog):
    with caplog.at_level(logging.WARNING):
        corpus = read(
            item("intent", "b", "two [NY](city:New York)"),
            item("intent", "a", "one [ny](city)"),
            item("synonym", "York", "NY", "york"),
            item("regex", "zip", "[0-9]+"),
            item("regex", "zip", "[a-z]+"),
            item("lookup", "city", "Rome"),
            item("lookup", "city", "Bonn"),
        )
    # A markup's value stays; the synonym of the third file reaches an example of the second.
    assert corpus.messages == (
        Message("two NY", "b", (Entity(4, 6, "city", "New York"),)),
        Message("one ny", "a", (Entity(4, 6, "city", "York"),)),
    )
    assert corpus.synonyms == {"NY": "York", "york": "York"}  # the last one holds, and it is said
    assert caplog.messages == ["c.yml, item 1 (synonym 'York'): 'NY' now has the value 'York' instead of 'New York'."]
    assert corpus.regexes == {"zip": ("[0-9]+", "[a-z]+")}
    assert corpus.lookups == {"city": ("Rome", "Bonn")}
    assert list(corpus.checksums) == [f"{letter}.yml" for letter in "abcdefg"]


def test_scalars_are_texts(read):
    corpus = read(item("intent", "no", "yes", "2.0", "~") + "- intent: 12\n  examples:\n  - text: off\n")
    assert [(message.intent, message.text) for message in corpus.messages] == [
        ("no", "yes"),
        ("no", "2.0"),
        ("no", "~"),
        ("12", "off"),
    ]


def test_backslashes_are_text_but_for_code_points_in_ascii_files(read):
    ascii_file = item("intent", "a", r"tab\t \ud83d\ude80 \u00e9 \U0001F680 \user")
    other_file = item("intent", "a", r"é \u00e9")
    assert [message.text for message in read(ascii_file, other_file).messages] == [r"tab\t 🚀 é 🚀 \user", r"é \u00e9"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "a.yml has no list 'nlu'"),
        ("version: '2.0'\nstories: []\n", "a.yml has no list 'nlu'"),
        ("- intent: x\n", "a.yml has no list 'nlu'"),
        ("nlu: [\n", "a.yml cannot be read"),
        ("nlu: []\nnlu: []\n", "a.yml cannot be read: a key occurs twice"),
        ("nlu: ['\\ud83d']\n", "a.yml cannot be read"),
        ("version: '4.0'\nnlu: []\n", "a.yml is in version 4.0 of the format. Valid choices: 2.x, 3.x"),
        ("version: {a: b}\nnlu: []\n", "a.yml is in version {'a': 'b'} of the format"),
        ("nlu:\n" + "- " * 400, "a.yml cannot be read: it is nested too deeply"),
        ("nlu: &a [*a]\n", "a.yml cannot be read: found unconstructable recursive node"),
        ("nlu:\n- hello\n", "a.yml, item 1 must have one of the keys intent, synonym, regex, lookup; it has: 'hello'"),
        ("nlu:\n- examples: x\n", "a.yml, item 1 must have one of the keys"),
        ("nlu:\n- {intent: x, synonym: y, examples: '- z'}\n", "a.yml, item 1 must have one of the keys"),
        ("nlu:\n- intent: ' '\n  examples: '- x'\n", "a.yml, item 1: the intent has no name"),
        ("nlu:\n- intent: x\n  exmples: '- x'\n", "item 1: Unknown key 'exmples'. Did you mean 'examples'?"),
        ("nlu:\n- lookup: x\n", "a.yml, item 1 (lookup 'x') has no examples"),
        (item("intent", "x", "one", " "), "a.yml, item 1 (intent 'x'), line 2 of its examples has no text"),
        (
            "nlu:\n- intent: x\n  examples: |\n    - one\n    two\n",
            "a.yml, item 1 (intent 'x'), line 2 of its examples does not start with '-': 'two'",
        ),
        ("nlu:\n- intent: x\n  examples: [one]\n", "a.yml, item 1 (intent 'x'), example 1 must be 'text: ...'"),
        ("nlu:\n- intent: x\n  examples: [{text: ''}]\n", "a.yml, item 1 (intent 'x'), example 1 has no text"),
        ("nlu:\n- intent: x\n  examples: {text: y}\n", "'examples' must be lines '- example' or a list of"),
        (
            item("intent", "x", "fine", "go [home](place"),
            "a.yml, item 1 (intent 'x'), example 2, 'go [home](place': '](' belongs to no entity",
        ),
    ],
)
def test_malformed_files(read, text, message):
    with pytest.raises(DataError) as caught:
        read(text)
    assert message in str(caught.value)


def test_the_malformed_file_is_named(read):
    with pytest.raises(DataError, match=r"^b\.yml, item 1"):
        read(item("intent", "x", "fine"), item("intent", "x", "[a]{b}"))


def test_unreadable_files(tmp_path):
    with pytest.raises(DataError, match=r"absent\.yml cannot be read"):
        read_nlu({"absent.yml": tmp_path / "absent.yml"})
    (tmp_path / "latin").write_bytes("nlu: ['é']".encode("latin-1"))
    with pytest.raises(DataError, match=r"latin cannot be read"):
        read_nlu({"latin": tmp_path / "latin"})


@pytest.mark.parametrize("piece", ["[", "[a", "]", "[]", "[a]", "[a](", "](", "[a]{", "[a](b:", "[{", "]["])
def test_brackets_take_linear_time(piece):
    """Where each bracket was searched for its end anew, 20,000 took minutes."""
    example = piece * 20_000
    began = time.process_time()
    if "](" in example or "]{" in example:
        with pytest.raises(DataError, match="belongs to no entity"):
            parse_example(example)
    else:
        assert parse_example(example) == (example, ())
    assert time.process_time() - began < 1


@pytest.mark.parametrize(
    ("example", "text", "surfaces"),
    [
        ("[[a](b)", "[a", ["[a"]),  # from the first bracket on, as in Rasa
        ("[] [a](b)", "[] a", ["a"]),
        ("x] [a](b) [c", "x] a [c", ["a"]),
        ("[a](b)[c](d:e)", "ac", ["a", "c"]),
        ("[a](b](c) ]", "a ]", ["a"]),
    ],
)
def test_brackets_beside_entities(example, text, surfaces):
    found, entities = parse_example(example)
    assert found == text
    assert [found[entity.start : entity.end] for entity in entities] == surfaces
