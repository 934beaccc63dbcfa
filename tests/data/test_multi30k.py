"""Both readings of Multi30k, against the figures that describe them."""

from collections import Counter

import pytest

from sparse_bench.data.moses import words_of
from sparse_bench.data.multi30k import multi30k, multi30k_brouns
from sparse_bench.data.parallel import ParallelCorpus, ParallelText
from sparse_bench.data.translation_vocabulary import build_vocabulary
from sparse_bench.errors import ConfigError, DataError


@pytest.fixture(scope="module")
def corpora(shared_data, tmp_path_factory) -> tuple[ParallelCorpus, ParallelCorpus]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SPARSE_BENCH_DATA", str(tmp_path_factory.mktemp("cache")))
        patch.setenv("SPARSE_BENCH_MIRROR", str(shared_data))
        return multi30k(), multi30k_brouns()


def test_sizes(corpora):
    for corpus in corpora:
        assert (len(corpus.train), len(corpus.valid), len(corpus.test)) == (29_000, 1_014, 1_000)
        assert corpus.languages == ("en", "de")


def test_checksums_are_those_of_what_was_read(corpora):
    raw, brouns = corpora
    assert {name.split("/")[1].split(".")[0] for name in raw.checksums} == {"train", "val", "test_2016_flickr"}
    assert brouns.checksums.keys() == {
        "brouns/en2de.s2s.txt",
        "brouns/en2de.s2s.valid.txt",
        "multi30k/test_2016_flickr.en.gz",
        "multi30k/test_2016_flickr.de.gz",
    }


def test_moses_turns_the_raw_sentences_into_the_files_of_the_report(corpora):
    raw, brouns = corpora
    for side, language in (("source", "en"), ("target", "de")):
        split = words_of("moses", language).split
        for name, part in (("train", slice(0, 29_000, 20)), ("valid", slice(None))):
            lines = getattr(getattr(raw, name), side)[part]
            published = getattr(getattr(brouns, name), side)[part]
            different = sum(" ".join(split(a)) != b for a, b in zip(lines, published, strict=True))
            # The German validation sentences were revised after the report.
            assert different == (61 if (name, language) == ("valid", "de") else 0)


def test_vocabulary_of_the_report(corpora):
    brouns = corpora[1]
    sizes = []
    for lines in (brouns.train.source, brouns.train.target):
        counts = Counter(token for line in lines for token in line.split(" "))
        assert "" not in counts
        vocabulary = build_vocabulary([line.split(" ") for line in lines], min_count=5)
        assert set(vocabulary.itos[4:]) == {token for token, count in counts.items() if count >= 5}
        sizes.append(len(vocabulary))
    assert sizes == [3369, 3665]


def test_case_is_kept(corpora):
    assert all(any(word[0].isupper() for word in line.split()) for line in corpora[1].train.target[:50])


def test_the_test_set_of_the_report_is_tokenised_and_its_references_are_not(corpora):
    raw, brouns = corpora
    assert brouns.references == raw.test.target == raw.references
    line = "Ein Mann mit einem orangefarbenen Hut, der etwas anstarrt."
    assert brouns.references[0] == line
    assert brouns.test.target[0] == "Ein Mann mit einem orangefarbenen Hut , der etwas anstarrt ."


def test_joined_words_are_the_references_but_for_a_few_marks(corpora):
    brouns = corpora[1]
    words = words_of("tokenised", "de")
    same = [words.join(words.split(line)) == r for line, r in zip(brouns.test.target, brouns.references, strict=True)]
    assert sum(same) >= 995


@pytest.mark.parametrize(("test", "size"), [("2017_flickr", 1000), ("2017_mscoco", 461)])
def test_other_test_sets(shared_data, monkeypatch, tmp_path, test, size):
    monkeypatch.setenv("SPARSE_BENCH_DATA", str(tmp_path))
    monkeypatch.setenv("SPARSE_BENCH_MIRROR", str(shared_data))
    corpus = multi30k(test)
    assert len(corpus.test) == len(corpus.references) == size
    assert all(line == line.strip() for line in corpus.references)
    assert f"multi30k/test_{test}.de.gz" in corpus.checksums


@pytest.mark.parametrize("reader", [multi30k, multi30k_brouns])
def test_an_unknown_test_set_is_named_before_anything_is_fetched(reader):
    with pytest.raises(ConfigError, match=r"'2018_flickr'.*2016_flickr, 2017_flickr, 2017_mscoco"):
        reader("2018_flickr")


def test_a_parallel_text_is_parallel():
    with pytest.raises(DataError, match="2 source lines, 1 target lines"):
        ParallelText(("a", "b"), ("c",))
    with pytest.raises(DataError, match="0 source lines"):
        ParallelText((), ())
    with pytest.raises(DataError, match="empty line, number 2"):
        ParallelText(("a", " "), ("c", "d"))
    text = ParallelText(("a",), ("b",))
    with pytest.raises(DataError, match="2 references for 1 test sentences"):
        ParallelCorpus(("en", "de"), text, text, text, ("b", "c"))


def test_the_first_training_pairs_alone(corpora, shared_data, monkeypatch, tmp_path):
    monkeypatch.setenv("SPARSE_BENCH_DATA", str(tmp_path))
    monkeypatch.setenv("SPARSE_BENCH_MIRROR", str(shared_data))
    few = multi30k(train=3)
    assert few.train.target == corpora[0].train.target[:3]
    assert few.test == corpora[0].test
