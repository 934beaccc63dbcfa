"""The Brown corpus, tagged with parts of speech.

There is no customary split; here every tenth document is for validation (the 9th, 19th, …, in the order of their
names, so that all genres are in it), the one after it for the test, and the other 400 of 500 are for training.
"""

import re
import zipfile
from pathlib import Path
from typing import Annotated

from sparse_bench.data.download import checksums, corpus_files
from sparse_bench.data.tagged import Sentence, TaggedCorpus, sentence
from sparse_bench.data.text_files import decode, lines_of
from sparse_bench.limits import checked, one_of

_DOCUMENT = re.compile(r"brown/c[a-r]\d\d")
_MARKS = re.compile("-(HL|TL|NC)(?=[-+*$]|$)")
TAGSETS = ("base", "full")


@checked
def brown_pos(tagset: Annotated[str, one_of(*TAGSETS)] = "base") -> TaggedCorpus:
    """57,340 sentences, 1,161,192 tokens of 56,057 types; 929,728 tokens of 49,368 types of them for training.

    Args:
        tagset: ``base`` (93 tags) or ``full`` (472, as annotated); see :func:`base_tag`.

    Raises:
        ConfigError: another tagset.
        DataError: the corpus cannot be had.
    """
    documents = read_brown(corpus_files("brown")["brown.zip"])
    if tagset == "base":
        documents = [
            [(words, tuple(base_tag(tag) for tag in tags)) for words, tags in document] for document in documents
        ]
    return TaggedCorpus(
        train=_of(documents, range(8)),
        valid=_of(documents, [8]),
        test=_of(documents, [9]),
        tags=tuple(sorted({tag for document in documents for _, tags in document for tag in tags})),
        checksums=checksums("brown"),
    )


def base_tag(tag: str) -> str:
    """The part of speech alone: NN of ``NN-TL-HL`` (a headline's title), MD of ``MD*`` (negated), PPSS of ``PPSS+BER``
    (a contraction's first word); FW of any foreign word."""
    if tag.startswith("FW-"):
        return "FW"
    first = _MARKS.sub("", tag).partition("+")[0]
    return first.rstrip("*") or "*"


def read_brown(archive: Path) -> list[list[Sentence]]:
    """The sentences of each document, in the order of the documents' names. Tags are in capital letters."""
    with zipfile.ZipFile(archive) as opened:
        names = sorted(name for name in opened.namelist() if _DOCUMENT.fullmatch(name))
        texts = [decode(opened.read(name), name) for name in names]
    return [[_sentence(line) for line in lines_of(text) if line.strip()] for text in texts]


def _sentence(line: str) -> Sentence:
    pairs = [token.rsplit("/", 1) for token in line.split()]
    return sentence((word, tag.upper()) for word, tag in pairs)


def _of(documents: list[list[Sentence]], places: range | list[int]) -> tuple[Sentence, ...]:
    """The sentences of the documents that stand at these places within each ten."""
    return tuple(found for number, document in enumerate(documents) if number % 10 in places for found in document)
