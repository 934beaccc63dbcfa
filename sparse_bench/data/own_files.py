"""Corpora from a user's own files: text, tables of columns, and aligned sentences. Plain UTF-8, or UTF-8 in ``.gz``.

``valid`` and ``test`` are paths, or shares of the training file. Relative paths start from the working directory.
Errors name the file and the line.
"""

import logging
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import Field

from sparse_bench.data.featurizers import counted_words
from sparse_bench.data.messages import Message, NluCorpus
from sparse_bench.data.parallel import ParallelCorpus, ParallelText
from sparse_bench.data.split_files import OwnFiles, Split, split_up
from sparse_bench.data.splits import held_out
from sparse_bench.data.tagged import Sentence, TaggedCorpus, sentence
from sparse_bench.data.text import TextCorpus, first_lines, numbered_corpus
from sparse_bench.data.text_types import TextTypeCorpus
from sparse_bench.data.tokenizer import tokenize
from sparse_bench.errors import ConfigError, DataError, shortened
from sparse_bench.limits import Count, Few, Fraction, Name, Part, Seed, checked, one_of

_LOG = logging.getLogger(__name__)

#: The first column of a multiword token or of an empty node in CoNLL-U.
_NO_WORD = re.compile(r"\d+[-.]\d+")
#: Source and target file.
Files = Annotated[Sequence[Name], Field(min_length=2, max_length=2)]


@checked
def text_lm(
    train: Name,
    valid: Name | Part = 0.1,
    test: Name | Part = 0.1,
    fraction: Fraction = 1.0,
    unit: Annotated[str, one_of("words", "characters")] = "words",
    vocabulary: Count | None = None,
    least_count: Count = 1,
    eos: bool = True,
) -> TextCorpus:
    """Running text. Blank lines are left out.

    Shares are of the lines: the last ones are for the test, those before them for validation.

    Args:
        train: path of the training text.
        valid: path of the validation text, or its share of the training text.
        test: the same for the test.
        fraction: share of the training lines to use, from the first, after the other splits are taken.
        unit: ``words`` (separated by white space) or ``characters``.
        vocabulary: largest number of different words or characters, ``<unk>`` and ``<eos>`` included; None: all.
        least_count: what occurs less often in the training lines becomes ``<unk>``.
        eos: end every line with ``<eos>``.

    Raises:
        ConfigError: a setting outside its range, or shares of 1 or more together.
        DataError: a file cannot be read or has too few lines.
    """
    files = OwnFiles()

    def read(path: str, use: str) -> list[list[str]]:
        lines = files.read(path, use).lines
        return [list(line.strip()) if unit == "characters" else line.split() for line in lines if line.strip()]

    def last_lines(lines: Sequence[object], shares: Mapping[str, float]) -> Split:
        found: dict[str, Sequence[int]] = {}
        end = len(lines)
        for split in reversed([*shares]):
            start = end - max(1, round(shares[split] * len(lines)))
            found[split], end = range(max(0, start), end), start
        if end < 1:
            raise DataError(
                f"too few lines ({len(lines)}) for the shares {dict(shares)}. Name files instead of shares."
            )
        return {**found, "train": range(end)}

    lines, *others = split_up(train, {"valid": valid, "test": test}, read, last_lines)
    return numbered_corpus(
        first_lines(lines, fraction),
        *others,
        vocabulary=vocabulary,
        least_count=least_count,
        eos=eos,
        checksums=files.checksums,
    )


@checked
def parallel(
    train: Files,
    valid: Files | Part = 0.1,
    test: Files | Part = 0.1,
    languages: Annotated[Sequence[Name], Field(min_length=2, max_length=2)] | None = None,
    split_seed: Seed = 0,
) -> ParallelCorpus:
    """Two aligned files: line i of the second translates line i of the first. References are the test's second file.

    Shares are drawn at random. Pairs with equal source sentences are in the same split.

    Args:
        train: paths of the source and of the target sentences.
        valid: the same for validation, or a share of the training pairs.
        test: the same for the test.
        languages: codes of both languages (``[en, de]``); None: the endings of the training files' names.
        split_seed: seed of the shares.

    Raises:
        ConfigError: a setting outside its range, or names without the codes of the languages.
        DataError: a file cannot be read, a line is empty, or two files differ in length.
    """
    files = OwnFiles()

    def read(paths: Sequence[str], use: str) -> list[tuple[str, str]]:
        source, target = (files.read(path, use).lines for path in paths)
        for path, lines in zip(paths, (source, target), strict=True):
            if blank := next((number for number, line in enumerate(lines, 1) if not line.strip()), None):
                raise DataError(f"{path}, line {blank} is empty. Leave it out, and the same line of the other file.")
        if len(source) != len(target):
            raise DataError(f"{paths[0]} has {len(source)} lines, and {paths[1]} has {len(target)}.")
        return [(one.strip(), other.strip()) for one, other in zip(source, target, strict=True)]

    def draw(pairs: Sequence[tuple[str, str]], shares: Mapping[str, float]) -> Split:
        return held_out([source for source, _ in pairs], shares, split_seed)

    source, target = languages or _languages(train)
    splits = split_up(train, {"valid": valid, "test": test}, read, draw)
    made = [ParallelText(*(tuple(side) for side in zip(*pairs, strict=True))) for pairs in splits]
    return ParallelCorpus((source, target), made[0], made[1], made[2], made[2].target, files.checksums)


def _languages(paths: Sequence[str]) -> tuple[str, str]:
    """The codes at the ends of file names: ``train.en``, ``train.de.gz`` → en, de."""
    first, second = (Path(path.removesuffix(".gz")).suffix[1:] for path in paths)
    if not all(code.isalpha() and len(code) in (2, 3) and code != "txt" for code in (first, second)):
        raise ConfigError(
            f"The names {paths[0]} and {paths[1]} do not end in codes of languages. "
            "Give the codes: dataset.languages=[en,de]"
        )
    return first, second


@checked
def conll(
    train: Name,
    valid: Name | Part = 0.1,
    test: Name | Part = 0.1,
    word_column: Few = 1,
    tag_column: Few = 2,
    comment: Name | None = None,
    split_seed: Seed = 0,
) -> TaggedCorpus:
    """Sentences with a word and a tag in each line, and an empty line after each sentence.

    Columns are separated by tabs; in a line without a tab, by white space. In CoNLL-U, the lines of multiword tokens
    (``1-2``) and of empty nodes (``1.1``) are left out. Shares are drawn at random. Equal sentences are in the same
    split.

    Args:
        train: path of the training sentences.
        valid: path of the validation sentences, or their share of the training sentences.
        test: the same for the test.
        word_column: number of the column with the word, from 1.
        tag_column: number of the column with the tag, from 1.
        comment: lines that begin with this are left out (``"#"`` in CoNLL-U); None: there are none.
        split_seed: seed of the shares.

    Raises:
        ConfigError: a setting outside its range.
        DataError: a file cannot be read, or a line has too few columns.
    """
    files = OwnFiles()

    def read(path: str, use: str) -> list[Sentence]:
        sentences: list[Sentence] = []
        tokens: list[tuple[str, str]] = []
        for number, line in enumerate([*files.read(path, use).lines, ""], start=1):
            if comment is not None and line.startswith(comment):
                continue
            if line.strip():
                cells = [cell.strip() for cell in line.split("\t")] if "\t" in line else line.split()
                if word_column > 1 and _NO_WORD.fullmatch(cells[0]):
                    continue
                hint = " Lines to leave out are named by dataset.comment." if line[0] in "#-" else ""
                tokens.append(_cells(cells, (word_column, tag_column), f"{path}, line {number}", hint))
            elif tokens:
                sentences.append(sentence(tokens))
                tokens = []
        return sentences

    def draw(sentences: Sequence[Sentence], shares: Mapping[str, float]) -> Split:
        return held_out([words for words, _ in sentences], shares, split_seed)

    first, second, third = map(tuple, split_up(train, {"valid": valid, "test": test}, read, draw))
    tags = sorted({tag for _, found in (*first, *second, *third) for tag in found})
    return TaggedCorpus(first, second, third, tuple(tags), checksums=files.checksums)


@checked
def text_classes(
    train: Name,
    valid: Name | Part = 0.1,
    test: Name | Part = 0.1,
    text_column: Few = 1,
    class_column: Few = 2,
    header: bool = False,
    split_seed: Seed = 0,
) -> TextTypeCorpus:
    """Texts with a class, as columns between tabs. Texts are lower-cased words without punctuation.

    Shares are drawn at random, with the same share of each class. Equal texts are in the same split. Blank lines are
    left out.

    Args:
        train: path of the training texts.
        valid: path of the validation texts, or their share of the training texts.
        test: the same for the test.
        text_column: number of the column with the text, from 1.
        class_column: number of the column with the class, from 1.
        header: the first line of each file names the columns.
        split_seed: seed of the shares.

    Raises:
        ConfigError: a setting outside its range.
        DataError: a file cannot be read, a line has too few columns, or a held-out class does not occur in training.
    """
    files = OwnFiles()
    rows = _Rows(files, text_column, class_column, header)
    splits = split_up(train, {"valid": valid, "test": test}, rows.read, rows.drawn_with(split_seed))
    rows.refuse_unknown(splits)
    first, second, third = (tuple((tokenize(text).words, kind) for _, text, kind in found) for found in splits)
    return TextTypeCorpus(first, second, third, tuple(sorted({kind for _, kind in first})), files.checksums)


@checked
def text_intents(
    train: Name,
    test: Name | Part = 0.2,
    text_column: Few = 1,
    class_column: Few = 2,
    header: bool = False,
    split_seed: Seed = 0,
) -> NluCorpus:
    """The same as messages with an intent and without entities. A slash in a class becomes an underscore.

    The part after a slash would name a sub-intent, which the task merges.

    Args:
        train: path of the training messages.
        test: path of the test messages, or their share of the training messages.
        text_column, class_column, header, split_seed: see :func:`text_classes`.

    Raises:
        ConfigError: a setting outside its range.
        DataError: see :func:`text_classes`; or two classes differ only in a slash.
    """
    files = OwnFiles()
    rows = _Rows(files, text_column, class_column, header)
    splits = split_up(train, {"test": test}, rows.read, rows.drawn_with(split_seed))
    rows.refuse_unknown(splits)
    classes = {kind for found in splits for _, _, kind in found}
    if len({kind.replace("/", "_") for kind in classes}) < len(classes):
        raise DataError(f"{train}: two classes differ only in a slash instead of an underscore.")
    messages, held = (tuple(Message(text, kind.replace("/", "_")) for _, text, kind in found) for found in splits)
    return NluCorpus(messages, test=held, checksums=files.checksums)


#: Place (file and line), text, class.
_Row = tuple[str, str, str]


@dataclass
class _Rows:
    """Reads tables of texts and classes."""

    files: OwnFiles
    text_column: int
    class_column: int
    header: bool

    def read(self, path: str, use: str) -> list[_Row]:
        rows = list(self._rows(path, self.files.read(path, use).lines))
        if len(rows) > 2 and rows[0][2] not in {kind for _, _, kind in rows[1:]}:
            _LOG.warning("%s: no other line has the class %s. Is it a header? dataset.header=true", *rows[0][::2])
        return rows

    def _rows(self, path: str, lines: Sequence[str]) -> Iterator[_Row]:
        for number, line in enumerate(lines, start=1):
            if line.strip() and not (self.header and number == 1):
                place = f"{path}, line {number}"
                cells = [cell.strip() for cell in line.split("\t")]
                yield (place, *_cells(cells, (self.text_column, self.class_column), place, " Columns end at tabs."))

    def drawn_with(self, seed: int) -> Callable[[Sequence[_Row], Mapping[str, float]], Split]:
        """A function that draws held-out splits."""

        def draw(rows: Sequence[_Row], shares: Mapping[str, float]) -> Split:
            inputs = [counted_words(tokenize(text)) for _, text, _ in rows]
            return held_out(inputs, shares, seed, [kind for _, _, kind in rows])

        return draw

    @staticmethod
    def refuse_unknown(splits: Sequence[Sequence[_Row]]) -> None:
        """Refuse held-out rows whose class does not occur in training."""
        known = {kind for _, _, kind in splits[0]}
        if len(known) < 2:
            raise DataError(f"{splits[0][0][0]}: there is only one class, {shortened(min(known))}.")
        for place, _, kind in (row for rows in splits[1:] for row in rows):
            if kind not in known:
                raise DataError(f"{place}: the class {shortened(kind)} does not occur in training.")


def _cells(cells: Sequence[str], columns: tuple[int, int], place: str, hint: str) -> tuple[str, str]:
    """The cells of two columns, of which neither may be empty."""
    if len(cells) < max(columns):
        found = "1 column" if len(cells) == 1 else f"{len(cells)} columns"
        raise DataError(f"{place} has {found}; columns {columns[0]} and {columns[1]} are needed.{hint}")
    first, second = (cells[column - 1] for column in columns)
    if not first or not second:
        raise DataError(f"{place}: column {columns[0] if not first else columns[1]} is empty.")
    return first, second
