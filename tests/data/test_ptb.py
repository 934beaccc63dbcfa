"""The real corpus against the figures that describe it."""

from pathlib import Path
from typing import Any

import pytest

from sparse_bench.data.ptb import ptb
from sparse_bench.data.text import TextCorpus


@pytest.fixture(autouse=True)
def _mirror(shared_data: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPARSE_BENCH_DATA", str(tmp_path_factory.getbasetemp() / "ptb"))
    monkeypatch.setenv("SPARSE_BENCH_MIRROR", str(shared_data))


def sizes(corpus: TextCorpus) -> tuple[int, ...]:
    return len(corpus.words), *(len(split.tokens) for split in (corpus.train, corpus.valid, corpus.test))


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, (10000, 929589, 73760, 82430)),
        ({"eos": False}, (9999, 887521, 70390, 78669)),
        ({"fraction": 0.25, "vocabulary": 5000}, (5000, 234273, 73760, 82430)),
        ({"fraction": 0.1}, (6786, 93156, 73760, 82430)),
    ],
)
def test_sizes(settings: dict[str, Any], expected: tuple[int, ...]) -> None:
    corpus = ptb(**settings)
    assert sizes(corpus) == expected
    assert sum(corpus.frequencies) == expected[1]
    assert set(corpus.checksums) == {"ptb.train.txt", "ptb.valid.txt", "ptb.test.txt"}


def test_lines_and_words() -> None:
    corpus = ptb()
    assert [len(split.lengths) for split in (corpus.train, corpus.valid, corpus.test)] == [42068, 3370, 3761]
    assert corpus.words[:6] == ("<unk>", "<eos>", "the", "N", "of", "to")
    assert corpus.frequencies[:6] == (45020, 42068, 50770, 32481, 24400, 23638)
    assert len(ptb(fraction=0.25).train.lengths) == 10517
