"""Corpora of typed fragments."""

import zipfile
from collections import Counter
from pathlib import Path

import pytest

from sparse_bench.data.brown_pos import brown_pos
from sparse_bench.data.messages import Message, NluCorpus
from sparse_bench.data.sara_like.nlu import SIZES
from sparse_bench.data.text_types import (
    BROWN_GROUPS,
    SARA_GROUPS,
    SARA_LIKE_GROUPS,
    TextTypeCorpus,
    brown_types,
    group_of,
    messages_by_group,
    sara_types,
    text_types_like,
)
from sparse_bench.errors import ConfigError, DataError


@pytest.fixture
def corpora(shared_data: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SPARSE_BENCH_MIRROR", str(shared_data))
    monkeypatch.setenv("SPARSE_BENCH_DATA", str(tmp_path))


def shares(corpus: TextTypeCorpus, *splits: str) -> dict[str, float]:
    """Of each type, in some splits together; in all of them if none is named."""
    names = splits or ("train", "valid", "test")
    counts = Counter(kind for split in names for _, kind in getattr(corpus, split))
    return {kind: counts[kind] / counts.total() for kind in corpus.types}


def test_five_groups_each() -> None:
    for groups in (BROWN_GROUPS, SARA_GROUPS, SARA_LIKE_GROUPS):
        assert len(groups) == 5
        assert len(group_of(groups)) == sum(map(len, groups.values())), "no member in two groups"
    assert len(group_of(BROWN_GROUPS)) == 15
    assert set(group_of(SARA_LIKE_GROUPS)) == set(SIZES)
    assert set(SARA_GROUPS) == set(SARA_LIKE_GROUPS)


def test_generated_fragments() -> None:
    corpus = text_types_like(examples=600)
    assert corpus == text_types_like(examples=600)
    assert list(corpus.checksums) == ["sara_like"]
    texts = [tokens for split in (corpus.train, corpus.valid, corpus.test) for tokens, _ in split]
    assert len(texts) == len(set(texts)), "no text stands in two splits"
    assert len(corpus.test) / len(texts) == pytest.approx(0.2, abs=0.01)
    assert len(corpus.valid) / len(texts) == pytest.approx(0.1, abs=0.01)
    found = shares(corpus)
    assert all(found[kind] > 0.05 for kind in corpus.types)
    assert max(found.values()) > 0.3
    for split in ("train", "valid", "test"):  # as exactly as whole texts allow: random ones miss by three times as much
        size = len(getattr(corpus, split))
        assert shares(corpus, split) == pytest.approx(found, abs=1.5 / size), split
    assert all(word == word.lower() for tokens in texts for word in tokens)


def test_the_split_seed_alone_divides_the_same_texts_anew() -> None:
    one, other = (text_types_like(examples=600, split_seed=seed) for seed in (0, 1))
    for name in ("train", "valid", "test"):
        assert set(getattr(one, name)) != set(getattr(other, name)), name
        assert len(getattr(one, name)) == len(getattr(other, name))
    everything = [{*corpus.train, *corpus.valid, *corpus.test} for corpus in (one, other)]
    assert everything[0] == everything[1]


def test_of_ten_brown_documents_the_ninth_and_the_tenth_are_held_out(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    archive, genres = tmp_path / "brown.zip", ("news", "religion", "learned", "humor")
    with zipfile.ZipFile(archive, "w") as out:
        categories = []
        for number in range(20):
            # Five words a sentence, all with the document's number in them; sentence by sentence one fragment.
            lines = [" ".join(f"d{number}s{sentence}w{word}/nn" for word in range(5)) for sentence in range(2)]
            out.writestr(f"brown/ca{number:02}", "\n".join(lines))
            categories.append(f"ca{number:02} {genres[number % 4]}")
        out.writestr("brown/cats.txt", "\n".join(categories))
    for module in ("text_types", "brown_pos"):
        monkeypatch.setattr(f"sparse_bench.data.{module}.corpus_files", lambda name: {f"{name}.zip": archive})
    for corpus in (brown_types(shortest=5, longest=5), brown_pos()):
        found = {split: [words for words, _ in getattr(corpus, split)] for split in ("train", "valid", "test")}
        documents = {
            split: {int(word[1:].partition("s")[0]) for words in texts for word in words}
            for split, texts in found.items()
        }
        assert documents == {"train": {*range(8), *range(10, 18)}, "valid": {8, 18}, "test": {9, 19}}
        assert {split: len(texts) for split, texts in found.items()} == {"train": 32, "valid": 4, "test": 4}
    # Documents 8, 9, 18 and 19 stand in the list of categories under news, religion, learned and humor.
    types = brown_types(shortest=5, longest=5)
    assert [kind for _, kind in types.valid] == ["press"] * 2 + ["informative"] * 2
    assert [kind for _, kind in types.test] == ["religion"] * 2 + ["imaginative"] * 2


def test_a_text_under_two_intents_has_the_type_of_the_first() -> None:
    messages = [Message(f"Word{n} here", "p" if n % 2 else "q") for n in range(40)]
    corpus = messages_by_group(NluCorpus((*messages, Message("word1 Here", "q"))), {"first": ("p",), "second": ("q",)})
    everything = (*corpus.train, *corpus.valid, *corpus.test)
    assert len(everything) == 40
    assert dict(everything)["word1", "here"] == "first"
    with pytest.raises(DataError, match="intents q belong to no type"):
        messages_by_group(NluCorpus(tuple(messages)), {"first": ("p",)})
    with pytest.raises(DataError, match="Cannot split 1 different messages"):
        messages_by_group(NluCorpus((Message("one", "p"),)), {"first": ("p",)})


@pytest.mark.usefixtures("corpora")
def test_sara() -> None:
    corpus = sara_types()
    for splits in ((), ("train",), ("valid",), ("test",)):
        found = shares(corpus, *splits)
        assert list(found.values()) == pytest.approx([0.27, 0.37, 0.15, 0.12, 0.09], abs=0.006)


@pytest.mark.usefixtures("corpora")
def test_brown() -> None:
    corpus = brown_types()
    lengths = Counter(len(tokens) for tokens, _ in (*corpus.train, *corpus.valid, *corpus.test))
    assert set(lengths) == set(range(3, 9))
    assert sum(length * number for length, number in lengths.items()) > 1_000_000
    found = shares(corpus)
    assert max(found.values()) == pytest.approx(0.33, abs=0.03)
    assert found["religion"] == pytest.approx(0.034, abs=0.005)
    assert corpus.train[0][0][:3] == ("The", "Fulton", "County")
    assert corpus.train[0][1] == "press"
    assert brown_types(seed=1).train != corpus.train
    with pytest.raises(ConfigError, match=r"shortest \(5\) has to be at most longest"):
        brown_types(shortest=5, longest=4)
