import re
from collections import Counter

import pytest

from sparse_bench.data.corpora import CorpusFile, corpora, find_corpus, parse_manifest
from sparse_bench.errors import DataError

SHA = "0" * 63 + "a"
HEADER = "corpus\tfile\tsha256\tbytes\turl\tlicence"
ABOUT = {"toy": ("A toy", "Free.")}


def line(corpus="toy", file="a.txt", sha256=SHA, size="3", url="https://example.org/a.txt", licence="free") -> str:
    return "\t".join((corpus, file, sha256, size, url, licence))


def test_the_registry():
    assert {name: len(corpus.files) for name, corpus in corpora().items()} == {
        "brouns": 2,
        "brown": 1,
        "multi30k": 10,
        "ptb": 3,
        "ptb_pos": 4,
        "sara": 26,
        "ted": 5,
    }
    for corpus in corpora().values():
        assert corpus.description
        assert corpus.notice
        assert corpus.licence
        assert [file.name for file in corpus.files] == sorted(file.name for file in corpus.files)
        assert {file.corpus for file in corpus.files} == {corpus.name}


def test_every_address_is_pinned_and_unique():
    files = [file for corpus in corpora().values() for file in corpus.files]
    for file in files:
        assert re.fullmatch(r"https://raw\.githubusercontent\.com/[^/]+/[^/]+/[0-9a-f]{40}/.+", file.url)
        assert file.url.rsplit("/", 1)[1] == file.name.rsplit("/", 1)[-1]
    assert Counter(file.url for file in files).most_common(1)[0][1] == 1
    assert Counter(file.sha256 for file in files).most_common(1)[0][1] == 1


def test_sizes_and_licences_of_a_corpus():
    ptb_pos = find_corpus("ptb_pos")
    assert ptb_pos.size == 180 + 1740034 + 1223090 + 1243745
    assert ptb_pos.licence == "LDC Penn Treebank; research use; LDC fragment, non-commercial only"


def test_unknown_corpus():
    with pytest.raises(DataError, match=r"Unknown corpus 'browns'\. Did you mean '.*'\? Valid choices: brouns, brown"):
        find_corpus("browns")


def test_parse_sorts_by_name():
    found = parse_manifest("\n".join([HEADER, line(file="b"), line(file="a/c")]), ABOUT)
    assert [file.name for file in found["toy"].files] == ["a/c", "b"]
    assert found["toy"].files[1] == CorpusFile("toy", "b", SHA, 3, "https://example.org/a.txt", "free")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("corpus\tfile", "columns are corpus, file, sha256, bytes, url, licence"),
        (f"{HEADER}\n{line()}\textra", "Malformed line"),
        (f"{HEADER}\n{line(size='3.5')}", "Malformed line"),
        (f"{HEADER}\n{line(size='0')}", "0 bytes is not a valid size"),
        (f"{HEADER}\n{line(sha256='abc')}", "'abc' is not a SHA-256"),
        (f"{HEADER}\n{line(file='../a')}", "not a path inside the corpus"),
        (f"{HEADER}\n{line(file='/a')}", "not a path inside the corpus"),
        (f"{HEADER}\n{line(file='')}", "not a path inside the corpus"),
        (f"{HEADER}\n{line()}\n{line()}", "names 'toy/a.txt' twice"),
        (f"{HEADER}\n{line()}\n{line(corpus='other')}", "do not name the same corpora: other"),
        (HEADER, "do not name the same corpora: toy"),
    ],
)
def test_malformed_manifests(text, message):
    with pytest.raises(DataError, match=message):
        parse_manifest(text, ABOUT)
