"""The Brown corpus, tagged with parts of speech.

There is no standard split. Here the documents are sorted by name. Of every ten, the ninth is for validation and the
tenth for the test, so that each split has all genres. The other 400 of 500 documents are for training.
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
    """The tagged Brown corpus, downloaded first if absent.

    It has 57,340 sentences and 1,161,192 tokens of 56,057 types. The training split has 929,728 tokens of 49,368 types.

    Args:
        tagset: ``base`` (93 tags) or ``full`` (472, as annotated); see :func:`base_tag`.

    Raises:
        ConfigError: another tagset.
        DataError: the corpus is not available.
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
    """The plain part of speech of a tag.

    It is NN for ``NN-TL-HL`` (a title in a headline), MD for ``MD*`` (negated), PPSS for ``PPSS+BER`` (the first word
    of a contraction), and FW for any foreign word.
    """
    if tag.startswith("FW-"):
        return "FW"
    first = _MARKS.sub("", tag).partition("+")[0]
    return first.rstrip("*") or "*"


def read_brown(archive: Path) -> list[list[Sentence]]:
    """Read the sentences of each document, in the order of the documents' names. Tags are in capital letters."""
    with zipfile.ZipFile(archive) as opened:
        names = sorted(name for name in opened.namelist() if _DOCUMENT.fullmatch(name))
        texts = [decode(opened.read(name), name) for name in names]
    return [[_sentence(line) for line in lines_of(text) if line.strip()] for text in texts]


def _sentence(line: str) -> Sentence:
    pairs = [token.rsplit("/", 1) for token in line.split()]
    return sentence((word, tag.upper()) for word, tag in pairs)


def _of(documents: list[list[Sentence]], places: range | list[int]) -> tuple[Sentence, ...]:
    """The sentences of the documents at these places within each group of ten."""
    return tuple(found for number, document in enumerate(documents) if number % 10 in places for found in document)
