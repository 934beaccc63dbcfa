"""The public corpora: their files at pinned upstream commits, with checksums, sizes and licences."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path, PurePosixPath

from sparse_bench.errors import DataError, unknown_choice

_COLUMNS = ("corpus", "file", "sha256", "bytes", "url", "licence")


@dataclass(frozen=True)
class CorpusFile:
    """One file of a corpus, as its upstream host serves it.

    Raises:
        DataError: the name is not a path inside the corpus, or the checksum or the size is invalid.
    """

    corpus: str
    #: Path inside the corpus, with forward slashes.
    name: str
    #: SHA-256 of the upstream content, 64 hexadecimal digits.
    sha256: str
    #: Bytes of the upstream content.
    size: int
    #: Upstream address, at a pinned commit.
    url: str
    licence: str

    def __post_init__(self) -> None:
        path = PurePosixPath(self.name)
        if not path.parts or path.is_absolute() or ".." in path.parts:
            raise DataError(f"Corpus '{self.corpus}': '{self.name}' is not a path inside the corpus.")
        if not re.fullmatch("[0-9a-f]{64}", self.sha256):
            raise DataError(f"Corpus '{self.corpus}', '{self.name}': '{self.sha256}' is not a SHA-256.")
        if self.size <= 0:
            raise DataError(f"Corpus '{self.corpus}', '{self.name}': {self.size} bytes is not a valid size.")

    def path(self, cache_folder: Path) -> Path:
        """Path of the file in a cache folder: ``<cache>/<corpus>/<name>``."""
        return cache_folder / self.corpus / self.name


@dataclass(frozen=True)
class Corpus:
    """A corpus: its description, its terms of use, and its files in the order of their names."""

    name: str
    description: str
    #: Authors and terms of use; shown when the corpus is downloaded.
    notice: str
    files: tuple[CorpusFile, ...]

    @property
    def size(self) -> int:
        """Total bytes of all files."""
        return sum(file.size for file in self.files)

    @property
    def licence(self) -> str:
        """The distinct licences of the files, in file order."""
        return "; ".join(dict.fromkeys(file.licence for file in self.files))


#: Corpus → (one-line description, licence notice).
_ABOUT: dict[str, tuple[str, str]] = {
    "brouns": (
        "Multi30k English-German, tokenised on spaces: the files that the SET-Transformer report trained on",
        "Derived from Multi30k (Elliott et al. 2016) and so from Flickr30K: research use only.",
    ),
    "brown": (
        "Brown corpus of American English, part-of-speech tagged, 57 thousand sentences",
        "Brown corpus (Francis and Kučera 1979), as distributed by NLTK: non-commercial use only.",
    ),
    "multi30k": (
        "Multi30k English-German, raw sentences: train, validation and three test sets",
        "Multi30k (Elliott et al. 2016): research and education only, on the terms of Flickr30K.",
    ),
    "ptb": (
        "Penn Treebank for language modelling, Mikolov's preprocessing with 10,000 word types",
        "Text of the LDC's Penn Treebank (Marcus et al. 1993), preprocessed by Mikolov: research use.",
    ),
    "ptb_pos": (
        "Penn Treebank for part-of-speech tagging: Wall Street Journal sections and NLTK's sample",
        "LDC's Penn Treebank (Marcus et al. 1993): research use; NLTK's sample of it: non-commercial use only.",
    ),
    "sara": (
        "Sara, the Rasa demo assistant: training messages, stories, rules and domain",
        "rasa-demo by Rasa Technologies: GPL-3.0; its LICENSE is among the files.",
    ),
    "ted": (
        "Dialogues of the TED paper (sub-dialogues): hotel and restaurant stories",
        "TED-paper by Rasa Technologies: no licence is stated; research use, never redistribute.",
    ),
}


def parse_manifest(text: str, about: Mapping[str, tuple[str, str]]) -> dict[str, Corpus]:
    """Parse the text of a manifest to corpora by name.

    Args:
        text: tab-separated, with the header ``corpus file sha256 bytes url licence`` and one file per line.
        about: corpus → (description, licence notice), for exactly the corpora of the manifest.

    Raises:
        DataError: the manifest is malformed, or names other corpora than ``about``.
    """
    header, *lines = text.splitlines()
    if tuple(header.split("\t")) != _COLUMNS:
        raise DataError(f"A manifest's columns are {', '.join(_COLUMNS)}; found: {header!r}.")
    found: dict[str, dict[str, CorpusFile]] = {}
    for line in lines:
        fields = line.split("\t")
        if len(fields) != len(_COLUMNS) or not fields[3].isdecimal():
            raise DataError(f"Malformed line in the manifest of corpora: {line!r}.")
        corpus, name, sha256, size, url, licence = fields
        if name in found.setdefault(corpus, {}):
            raise DataError(f"The manifest of corpora names '{corpus}/{name}' twice.")
        found[corpus][name] = CorpusFile(corpus, name, sha256, int(size), url, licence)
    if found.keys() != about.keys():
        differ = ", ".join(sorted(found.keys() ^ about.keys()))
        raise DataError(f"The manifest and the descriptions of corpora do not name the same corpora: {differ}.")
    return {
        name: Corpus(name, *about[name], files=tuple(file for _, file in sorted(found[name].items())))
        for name in sorted(found)
    }


@cache
def corpora() -> Mapping[str, Corpus]:
    """All corpora that the project can download, by name, in alphabetical order."""
    manifest = files("sparse_bench.data").joinpath("manifest.tsv")
    return parse_manifest(manifest.read_text(encoding="utf-8"), _ABOUT)


def find_corpus(name: str) -> Corpus:
    """The corpus with this name.

    Raises:
        DataError: the name is unknown; the message lists the valid names.
    """
    if name not in corpora():
        raise DataError(unknown_choice("corpus", name, corpora()))
    return corpora()[name]
