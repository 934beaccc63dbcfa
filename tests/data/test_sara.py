"""The real corpus against the figures that describe it."""

from collections import Counter

import pytest

from sparse_bench.data.download import checksums
from sparse_bench.data.messages import NluCorpus
from sparse_bench.data.rasa_nlu import parse_example
from sparse_bench.data.sara import sara


@pytest.fixture(scope="module")
def corpus(shared_data, tmp_path_factory) -> NluCorpus:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SPARSE_BENCH_DATA", str(tmp_path_factory.mktemp("cache")))
        patch.setenv("SPARSE_BENCH_MIRROR", str(shared_data))
        return sara()


def test_examples(corpus):
    assert len(corpus.messages) == 4971
    # Different pairs of text and intent. Of texts alone there are 4,964, one of them under two intents; with the
    # entities there are 4,968, since three texts are marked up in two ways.
    assert len({(message.text, message.intent) for message in corpus.messages}) == 4965
    assert len({message.text for message in corpus.messages}) == 4964
    assert len(set(corpus.messages)) == 4968


def test_lengths(corpus):
    # Words between blanks, punctuation included.
    lengths = [len(message.text.split()) for message in corpus.messages]
    assert round(sum(lengths) / len(lengths), 1) == 4.9
    assert (min(lengths), max(lengths)) == (1, 24)


def test_intents(corpus):
    counts = Counter(message.intent for message in corpus.messages)
    assert len(counts) == 32
    assert min(counts.items(), key=lambda pair: pair[1]) == ("restart", 10)
    assert {"faq", "chitchat", "out_of_scope"} <= counts.keys()
    assert not any("/" in intent for intent in counts)


def test_intents_unmerged(shared_data, tmp_path, monkeypatch, corpus):
    monkeypatch.setenv("SPARSE_BENCH_DATA", str(tmp_path))
    monkeypatch.setenv("SPARSE_BENCH_MIRROR", str(shared_data))
    whole = sara(merge_retrieval=False)
    assert len({message.intent for message in whole.messages}) == 62
    retrieval = {message.intent.split("/")[0] for message in whole.messages if "/" in message.intent}
    assert retrieval == {"faq", "chitchat", "out_of_scope"}
    assert [message.text for message in whole.messages] == [message.text for message in corpus.messages]


def test_entities(corpus):
    counts = Counter(entity.type for message in corpus.messages for entity in message.entities)
    assert counts == {
        "product": 384,
        "language": 297,
        "job_function": 92,
        "name": 80,
        "nlu_part": 59,
        "current_api": 57,
        "company": 56,
        "location": 39,
        "user_type": 19,
        "entity": 14,
    }
    assert counts.total() == 1097
    assert sum(bool(message.entities) for message in corpus.messages) == 1013
    for message in corpus.messages:
        assert parse_example(message.text) == (message.text, ())  # no markup is left
        ends = [0, *(entity.end for entity in message.entities)]
        assert all(end <= entity.start < entity.end for end, entity in zip(ends, message.entities, strict=False))
        assert ends[-1] <= len(message.text)


def test_values_come_from_synonyms(corpus):
    values = {
        (message.text[entity.start : entity.end], entity.value)
        for message in corpus.messages
        for entity in message.entities
    }
    assert {("rasa x", "x"), ("dialogflow", "dialogflow"), ("Rasa X", "x")} <= values
    assert all(value == corpus.synonyms[surface] for surface, value in values if surface in corpus.synonyms)


def test_pattern_features(corpus):
    # 24 values with 76 surfaces; no example's markup adds to them.
    assert (len(set(corpus.synonyms.values())), len(corpus.synonyms)) == (24, 76)
    assert corpus.regexes == {"greet": (r"hey[^\s]*",), "zipcode": ("[0-9]{5}",)}
    assert {name: len(phrases) for name, phrases in corpus.lookups.items()} == {"location": 45, "products": 6}


def test_checksums(corpus):
    """Of the files that were read: seven of the corpus's 26."""
    assert len(corpus.checksums) == 7
    assert corpus.checksums.items() <= checksums("sara").items()
    assert list(corpus.checksums) == sorted(corpus.checksums)
