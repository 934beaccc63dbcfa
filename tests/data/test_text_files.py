"""The one place that opens text: marks, line ends, and files that are none."""

import gzip
import hashlib
import traceback
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparse_bench.data.parallel import ParallelText
from sparse_bench.data.rasa_domain import DEFAULT_ACTIONS, Domain
from sparse_bench.data.rasa_domain_file import read_domain
from sparse_bench.data.rasa_markdown import read_markdown_stories
from sparse_bench.data.rasa_nlu import read_nlu
from sparse_bench.data.rasa_yaml import read_yaml_stories
from sparse_bench.data.tagged import read_columns
from sparse_bench.data.text import read_lines
from sparse_bench.data.text_files import lines_of, read_text
from sparse_bench.errors import DataError

MARK = "\ufeff".encode()


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("", []),
        ("a", ["a"]),
        ("a\n", ["a"]),
        ("a\n\n", ["a", ""]),
        ("a\r\nb\r\n", ["a", "b"]),
        ("a\rb\n", ["a\rb"]),
        ("\ufeffa\nb", ["a", "b"]),
        ("a\x85b\u2028c\u2029d\x0be\x0cf\x1cg\x1dh\x1ei\n", ["a\x85b\u2028c\u2029d\x0be\x0cf\x1cg\x1dh\x1ei"]),
    ],
)
def test_lines(text: str, lines: list[str]) -> None:
    assert lines_of(text) == lines


ANY_LINE = st.text(st.characters(codec="utf-8", exclude_characters="\r\n\ufeff"))


@given(st.lists(ANY_LINE), st.sampled_from(["\n", "\r\n"]), st.booleans(), st.booleans())
def test_whatever_lines_are_written_are_read(tmp_path_factory, lines, end, mark, packed) -> None:
    path = tmp_path_factory.getbasetemp() / ("lines.gz" if packed else "lines")
    content = MARK * mark + "".join(line + end for line in lines).encode()
    path.write_bytes(gzip.compress(content) if packed else content)
    file = read_text(path)
    assert file.lines == lines
    assert not file.text.startswith("\ufeff")
    assert file.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("before", [b"", MARK])
def test_what_is_not_utf8_is_named_by_line_and_not_shown(tmp_path: Path, before: bytes) -> None:
    """Not even by the causes of the error, which the decoder gives the whole content."""
    (tmp_path / "latin.txt").write_bytes(before + b"secret one\nsecret two\ncaf\xe9 three\nfour\n")
    with pytest.raises(DataError, match=r"^latin\.txt cannot be read: line 3 is not UTF-8 \(byte 0xe9\)") as caught:
        read_text(tmp_path / "latin.txt")
    assert caught.value.__cause__ is caught.value.__context__ is None
    assert "secret" not in "".join(traceback.format_exception(caught.value)) + repr(caught.value)


def test_other_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"^my corpus cannot be read: No such file or directory\.$"):
        read_text(tmp_path / "absent", "my corpus")
    with pytest.raises(DataError, match="cannot be read: Is a directory"):
        read_text(tmp_path)
    (tmp_path / "cut.gz").write_bytes(gzip.compress(b"a line\n" * 1000)[:-20])
    (tmp_path / "plain.gz").write_bytes(b"a line\n")
    for name in ("cut.gz", "plain.gz"):
        with pytest.raises(DataError, match=rf"^{name} cannot be"):
            read_text(tmp_path / name)


def test_a_mark_and_other_line_ends_are_part_of_no_reader_s_words() -> None:
    assert read_lines("\ufeffa b\r\nc\u2028d\n") == [["a", "b"], ["c", "d"]]
    assert read_columns("\ufeffa\tDT\r\nb\u2028c\tNN\r\n", "x") == ((("a", "b\u2028c"), ("DT", "NN")),)
    for sides in ((("\ufeffa", "b"), ("c", "d")), (("a", "b"), ("\ufeffc", "d"))):
        with pytest.raises(DataError, match="byte-order mark"):
            ParallelText(*sides)


DOMAIN = Domain(
    {"greet": None, "gr\x85eet": None},
    (),
    {},
    (*DEFAULT_ACTIONS, "say"),
)


@pytest.mark.parametrize("mark", [b"", MARK])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_rasa_s_files(tmp_path: Path, mark: bytes, end: str) -> None:
    """Sentences keep the line ends of YAML 1.1 that are none of YAML 1.2."""
    path = tmp_path / "file"

    def write(text: str) -> dict[str, Path]:
        path.write_bytes(mark + text.replace("\n", end).encode())
        return {"file": path}

    nlu = "nlu:\n- intent: greet\n  examples: |\n    - one\u2028two\n    - th\x85ree\n"
    nlu += "- intent: a\n  examples:\n  - text: x\u2029y\n"
    assert [message.text for message in read_nlu(write(nlu)).messages] == ["one\u2028two", "th\x85ree", "x\u2029y"]
    stories = "stories:\n- story: s\n  steps:\n  - intent: gr\x85eet\n  - action: say\n"
    ((story,),) = read_yaml_stories(write(stories), DOMAIN).stories
    ((same,),) = read_markdown_stories(write("## s\n* gr\x85eet\n- say\n"), DOMAIN).stories
    assert story == same
    write("intents:\n- greet\n- de\u2028ny\n")
    assert list(read_domain("file", path).intents) == ["greet", "de\u2028ny"]
