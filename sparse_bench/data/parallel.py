"""Parallel corpora: lines of text in two languages, with fixed splits. The common form for translation tasks."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from sparse_bench.data.text_files import BYTE_ORDER_MARK
from sparse_bench.errors import DataError, shortened


@dataclass(frozen=True)
class ParallelText:
    """Sentence pairs of one split: line i of ``target`` translates line i of ``source``.

    Raises:
        DataError: there is no pair, the sides differ in length, a line is empty, or the first line has a byte-order
            mark.
    """

    source: tuple[str, ...]
    target: tuple[str, ...]

    def __post_init__(self) -> None:
        if not self.source or len(self.source) != len(self.target):
            raise DataError(f"No parallel text: {len(self.source)} source lines, {len(self.target)} target lines.")
        for number, pair in enumerate(zip(self.source, self.target, strict=True), 1):
            if not all(line.strip() for line in pair):
                raise DataError(f"Parallel text with an empty line, number {number}: {shortened(pair)}.")
        if self.source[0].startswith(BYTE_ORDER_MARK) or self.target[0].startswith(BYTE_ORDER_MARK):
            raise DataError(
                "The first line of a parallel text begins with a byte-order mark, which does not belong to its first "
                "word. Read files with sparse_bench.data.text_files.read_text, which leaves it out."
            )

    def __len__(self) -> int:
        return len(self.source)


@dataclass(frozen=True)
class ParallelCorpus:
    """Sentence pairs for training, validation and test.

    Attributes:
        languages: codes of the source and of the target language (``en``, ``de``).
        train, valid, test: the pairs, as raw or as tokenised text. The function that reads the corpus documents which.
        references: the raw target side of ``test``, with which translations are compared.
        checksums: SHA-256 of everything from which the corpus was made, by name.

    Raises:
        DataError: the number of references differs from that of test pairs.
    """

    languages: tuple[str, str]
    train: ParallelText
    valid: ParallelText
    test: ParallelText
    references: tuple[str, ...]
    checksums: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if len(self.references) != len(self.test):
            raise DataError(f"{len(self.references)} references for {len(self.test)} test sentences.")
