"""The Wall Street Journal part of the Penn Treebank, tagged with parts of speech. Null elements are ordinary tokens.

Sections 0-18 are for training, 19-21 for validation, 22-24 for the test (Collins 2002). The LDC sells the training
sections. If they are not given, NLTK's free sample of sections 0 and 1 replaces them.
"""

import re
import zipfile
from pathlib import Path

from sparse_bench.data.download import checksums, corpus_files
from sparse_bench.data.tagged import Sentence, TaggedCorpus, read_columns, sentence
from sparse_bench.data.text_files import decode, read_text
from sparse_bench.errors import DataError
from sparse_bench.limits import Name

NULL_TAG = "-NONE-"
#: Name of the replacement training data in a run's result.
STAND_IN = "treebank.zip (NLTK's sample, sections 0-1, in place of sections 0-18)"

_TREES = re.compile(r"treebank/combined/wsj_\d+\.mrg")
_LEAF = re.compile(r"\(([^\s()]+)\s+([^\s()]+)\)")
_TREE_START = re.compile(r"^(?=\()", re.MULTILINE)


def ptb_pos(train: Name | None = None) -> TaggedCorpus:
    """WSJ sections with 48 tags, of which ``<start>`` and ``<end>`` never occur; downloaded first if absent.

    Args:
        train: path of the training sections (0-18: 912 thousand tokens), with lines ``word TAB tag`` and an empty line
            after each sentence; None: NLTK's sample of 3,914 sentences, 100,676 tokens.

    Raises:
        DataError: the corpus is not available, ``train`` does not exist or is malformed, or it has unknown tags.
    """
    files, sums = corpus_files("ptb_pos"), checksums("ptb_pos")
    text = {name: read_text(files[name]).text for name in ("wsj_valid.conll", "wsj_test.conll", "tags.txt")}
    used = {name: sums[name] for name in text}
    if train is None:
        used[STAND_IN] = sums["treebank.zip"]
        sentences = read_treebank(files["treebank.zip"])
    else:
        path = Path(train).expanduser()
        if not path.is_file():
            raise DataError(f"There are no training sections at '{path}'. Without `train`, NLTK's sample is used.")
        given = read_text(path)
        used[f"{path.name} (given training sections)"] = given.sha256
        sentences = read_columns(given.text, path.name)
    tags = tuple(text["tags.txt"].split())
    if unknown := sorted({tag for _, found in sentences for tag in found}.difference(tags)):
        raise DataError(f"The training sentences have tags that the treebank does not have: {', '.join(unknown)}.")
    return TaggedCorpus(
        train=sentences,
        valid=read_columns(text["wsj_valid.conll"], "wsj_valid.conll"),
        test=read_columns(text["wsj_test.conll"], "wsj_test.conll"),
        tags=tags,
        null_tag=NULL_TAG,
        checksums=used,
    )


def read_treebank(archive: Path) -> tuple[Sentence, ...]:
    """Read the leaves of the parsed sentences in NLTK's sample, since its tagged files have no null elements."""
    with zipfile.ZipFile(archive) as opened:
        names = sorted(name for name in opened.namelist() if _TREES.fullmatch(name))
        trees = [tree for name in names for tree in _TREE_START.split(decode(opened.read(name), name))]
    leaves = [[(word, tag) for tag, word in _LEAF.findall(tree)] for tree in trees]
    return tuple(sentence(tokens) for tokens in leaves if tokens)
