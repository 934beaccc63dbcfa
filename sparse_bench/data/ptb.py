"""The Penn Treebank for language modelling, as Mikolov prepared it: lower case, ``N`` for numbers, 10,000 types."""

from sparse_bench.data.download import checksums, corpus_files
from sparse_bench.data.text import TextCorpus, first_lines, numbered_corpus, read_lines
from sparse_bench.data.text_files import read_text
from sparse_bench.limits import Count, Fraction, checked


@checked
def ptb(fraction: Fraction = 1.0, vocabulary: Count | None = None, eos: bool = True) -> TextCorpus:
    """The treebank's lines, downloaded first if absent.

    With ``<eos>`` there are 929,589 training, 73,760 validation and 82,430 test tokens of 10,000 types. Without it
    there are 887,521 training tokens of 9,999 types, and perplexities are not comparable with published ones.

    Args:
        fraction: share of the training lines to use, from the first; the other splits are always complete.
        vocabulary: number of word types, ``<unk>`` and ``<eos>`` included; None: all types in the used training lines.
            :func:`numbered_corpus` describes how words are numbered.
        eos: end every line with ``<eos>``.

    Raises:
        ConfigError: ``fraction`` or ``vocabulary`` outside its range.
        DataError: the corpus is not available.
    """
    files = corpus_files("ptb")
    train, valid, test = (read_lines(read_text(files[f"ptb.{split}.txt"]).text) for split in ("train", "valid", "test"))
    return numbered_corpus(
        first_lines(train, fraction), valid, test, vocabulary=vocabulary, eos=eos, checksums=checksums("ptb")
    )
