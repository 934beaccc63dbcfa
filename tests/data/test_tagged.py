"""Readers of tagged sentences."""

import zipfile
from pathlib import Path

import pytest

from sparse_bench.data.brown_pos import base_tag, brown_pos, read_brown
from sparse_bench.data.pos_like import NULL_TAG, pos_like
from sparse_bench.data.ptb_pos import STAND_IN, ptb_pos, read_treebank
from sparse_bench.data.tagged import read_columns
from sparse_bench.errors import ConfigError, DataError


@pytest.fixture
def corpora(shared_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPARSE_BENCH_MIRROR", str(shared_data))
    monkeypatch.setenv("SPARSE_BENCH_DATA", str(tmp_path))


def test_columns() -> None:
    text = "\nThe\tDT\n*T*-1\t-NONE-\n\n\nEnd\tNN\n"
    assert read_columns(text, "x") == ((("The", "*T*-1"), ("DT", "-NONE-")), (("End",), ("NN",)))
    assert read_columns("", "x") == ()
    with pytest.raises(DataError, match="x, line 2: 'word' is not a word, a tab and a tag"):
        read_columns("a\tDT\nword\n", "x")
    with pytest.raises(DataError, match=r"x, line 1: .* is not a word, a tab and a tag"):
        read_columns("a\tDT\tB-NP\n", "x")  # a third column is no part of the tag


def test_trees(tmp_path: Path) -> None:
    archive = tmp_path / "treebank.zip"
    with zipfile.ZipFile(archive, "w") as out:
        out.writestr(
            "treebank/combined/wsj_0002.mrg", "( (S (NP (NNP Kent) ) (VP (VBD ran) (NP (-NONE- *T*-1) )) (. .) ))"
        )
        out.writestr("treebank/combined/wsj_0001.mrg", "\n( (NP (CD 1\\/2) ))\n( (NP (-LRB- -LCB-)\n   (NN x) ))\n")
        out.writestr("treebank/tagged/wsj_0001.pos", "x/NN")
    assert read_treebank(archive) == (
        (("1\\/2",), ("CD",)),
        (("-LCB-", "x"), ("-LRB-", "NN")),
        (("Kent", "ran", "*T*-1", "."), ("NNP", "VBD", "-NONE-", ".")),
    )


def test_brown_documents(tmp_path: Path) -> None:
    archive = tmp_path / "brown.zip"
    with zipfile.ZipFile(archive, "w") as out:
        out.writestr("brown/ca02", "1//2/cd ,/,\n")
        out.writestr("brown/ca01", "\n\tThe/at Jury/nn-tl ./.\n\n\tIt/pps ./.\n")
        out.writestr("brown/cats.txt", "ca01 news")
    assert read_brown(archive) == [
        [(("The", "Jury", "."), ("AT", "NN-TL", ".")), (("It", "."), ("PPS", "."))],
        [(("1//2", ","), ("CD", ","))],
    ]


@pytest.mark.parametrize(
    ("tag", "base"),
    [
        ("NN", "NN"),
        ("NN-TL-HL", "NN"),
        ("NP$-TL", "NP$"),
        ("MD*", "MD"),
        ("*", "*"),
        ("*-HL", "*"),
        ("PPSS+BER", "PPSS"),
        ("PPSS+BER-TL", "PPSS"),
        ("DOZ*-TL", "DOZ"),
        ("FW-IN+NN-TL", "FW"),
        ("--", "--"),
        ("--HL", "-"),
        (",-HL", ","),
    ],
)
def test_base_tags_of_brown(tag: str, base: str) -> None:
    assert base_tag(tag) == base


@pytest.mark.usefixtures("corpora")
def test_the_brown_corpus() -> None:
    corpus = brown_pos()
    splits = corpus.train, corpus.valid, corpus.test
    assert sum(map(len, splits)) == 57_340
    assert [sum(len(words) for words, _ in split) for split in splits] == [929_728, 115_661, 115_803]
    assert len({word for words, _ in corpus.train for word in words}) == 49_368
    assert len(corpus.tags) == 93
    assert corpus.null_tag is None
    assert list(corpus.checksums) == ["brown.zip"]


@pytest.mark.usefixtures("corpora")
def test_the_stand_in_is_named_and_given_sections_take_its_place(tmp_path: Path) -> None:
    corpus = ptb_pos()
    assert len(corpus.train) == 3_914
    assert sum(len(words) for words, _ in corpus.train) == 100_676
    assert (len(corpus.valid), len(corpus.test)) == (5_527, 5_462)
    assert len(corpus.tags) == 48
    assert STAND_IN in corpus.checksums
    assert any("*T*-1" in words for words, _ in corpus.train)  # null elements are tokens, as in the other splits
    given = tmp_path / "wsj_train.conll"
    given.write_text("A\tDT\nword\tNN\n\n")
    mine = ptb_pos(str(given))
    assert mine.train == ((("A", "word"), ("DT", "NN")),)
    assert "wsj_train.conll (given training sections)" in mine.checksums
    assert STAND_IN not in mine.checksums
    given.write_bytes("\ufeffA\tDT\r\nword\tNN\r\n".encode())
    assert ptb_pos(str(given)).train == mine.train
    given.write_bytes(b"A\tDT\ncaf\xe9\tNN\n")
    with pytest.raises(DataError, match=r"wsj_train\.conll cannot be read: line 2 is not UTF-8"):
        ptb_pos(str(given))
    given.write_text("A\tARTICLE\n")
    with pytest.raises(DataError, match="does not have: ARTICLE"):
        ptb_pos(str(given))
    with pytest.raises(DataError, match="no training sections at"):
        ptb_pos(str(tmp_path / "nowhere"))


def test_unknown_tagset() -> None:
    with pytest.raises(ConfigError, match="base, full"):
        brown_pos("coarse")


def test_the_generated_corpus() -> None:
    corpus = pos_like(sentences=1000, vocabulary=2000)
    assert (len(corpus.train), len(corpus.valid), len(corpus.test)) == (800, 100, 100)
    assert corpus == pos_like(sentences=1000, vocabulary=2000)
    assert corpus.checksums != pos_like(sentences=1000, vocabulary=2000, seed=1).checksums
    found: dict[str, set[str]] = {}
    for words, tags in corpus.train:
        assert len(words) == len(tags) >= 3
        for word, tag in zip(words, tags, strict=True):
            found.setdefault(word, set()).add(tag)
    assert {tag for tags in found.values() for tag in tags} == set(corpus.tags)
    assert {"NN", "VB"} in found.values()
    assert found["*"] == {NULL_TAG}
    unseen = [word for words, _ in corpus.test for word in words if word not in found]
    assert 0.01 < len(unseen) / sum(len(words) for words, _ in corpus.test) < 0.3
    with pytest.raises(ConfigError, match="at least 10"):
        pos_like(sentences=5)
