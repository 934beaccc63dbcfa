"""Multi30k (Elliott et al. 2016): captions of photographs in English, translated into German.

It has 29,000 training pairs, 1,014 validation pairs and three test sets. There are two versions: the raw sentences as
published today, and the tokenised files on which the report on SET in the Transformer (Brouns 2018) trained. Their
training sentences are the same. 61 German validation sentences differ, since they were revised after the report.
"""

from pathlib import Path
from typing import Annotated

from sparse_bench.data.download import checksums, corpus_files
from sparse_bench.data.moses import words_of
from sparse_bench.data.parallel import ParallelCorpus, ParallelText
from sparse_bench.data.text_files import read_text
from sparse_bench.errors import DataError
from sparse_bench.limits import Count, checked, one_of

LANGUAGES = ("en", "de")
#: Published test sets: 1,000, 1,000 and 461 pairs.
TESTS = ("2016_flickr", "2017_flickr", "2017_mscoco")


@checked
def multi30k(test: Annotated[str, one_of(*TESTS)] = "2016_flickr", train: Count | None = None) -> ParallelCorpus:
    """The raw sentences, English to German, downloaded first if absent.

    Args:
        test: the test set, one of :data:`TESTS`.
        train: number of training pairs, from the first; None: all 29,000.

    Raises:
        ConfigError: an unknown test set.
        DataError: the corpus is not available.
    """
    files = corpus_files("multi30k")
    held_out, pairs = _raw(files, f"test_{test}"), _raw(files, "train")
    return ParallelCorpus(
        languages=LANGUAGES,
        train=ParallelText(pairs.source[:train], pairs.target[:train]),
        valid=_raw(files, "val"),
        test=held_out,
        references=held_out.target,
        checksums=_checksums("multi30k", "train.", "val.", f"test_{test}."),
    )


@checked
def multi30k_brouns(test: Annotated[str, one_of(*TESTS)] = "2016_flickr") -> ParallelCorpus:
    """The report's own tokenised training and validation files, and a test set of Multi30k tokenised in the same way.

    The report names no test file and gives no test score. Here the raw test sentences are tokenised as its files were:
    :class:`sparse_bench.data.moses.MosesWords` turns the raw training sentences into exactly its training file. So
    every line is words between single spaces, with case kept. The references stay raw.

    Args:
        test: the test set, one of :data:`TESTS`.

    Raises:
        ConfigError: an unknown test set.
        DataError: a corpus is not available, or a line does not have two columns.
    """
    files = corpus_files("brouns")
    held_out = _raw(corpus_files("multi30k"), f"test_{test}")
    english, german = (words_of("moses", language) for language in LANGUAGES)
    return ParallelCorpus(
        languages=LANGUAGES,
        train=_tab_separated(files["en2de.s2s.txt"]),
        valid=_tab_separated(files["en2de.s2s.valid.txt"]),
        test=ParallelText(
            source=tuple(" ".join(english.split(line)) for line in held_out.source),
            target=tuple(" ".join(german.split(line)) for line in held_out.target),
        ),
        references=held_out.target,
        checksums=_checksums("brouns", "") | _checksums("multi30k", f"test_{test}."),
    )


def _raw(files: dict[str, Path], stem: str) -> ParallelText:
    source, target = (read_text(files[f"{stem}.{language}.gz"]).lines for language in LANGUAGES)
    # Many sentences end in a space, which does not belong to them.
    return ParallelText(tuple(line.strip() for line in source), tuple(line.strip() for line in target))


def _tab_separated(path: Path) -> ParallelText:
    pairs = [line.split("\t") for line in read_text(path).lines]
    wrong = next((number for number, pair in enumerate(pairs, 1) if len(pair) != 2), None)
    if wrong is not None:
        raise DataError(f"{path.name}, line {wrong}: {len(pairs[wrong - 1])} columns instead of 2.")
    return ParallelText(tuple(pair[0] for pair in pairs), tuple(pair[1] for pair in pairs))


def _checksums(corpus: str, *prefixes: str) -> dict[str, str]:
    return {f"{corpus}/{name}": sha256 for name, sha256 in checksums(corpus).items() if name.startswith(prefixes)}
