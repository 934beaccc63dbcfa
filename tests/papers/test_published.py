"""Published numbers: where they stand, and that files say what they are asked."""

from pathlib import Path

import pytest

from sparse_bench.papers import FOLDER
from sparse_bench.papers.published import read_published
from sparse_bench.papers.schema import DescriptionError

FILES = [(path.parent, path.stem) for path in sorted(FOLDER.glob("*/*.csv"))]
BROUNS = FOLDER / "brouns"


@pytest.mark.parametrize(("folder", "name"), FILES)
def test_every_file_names_its_source(folder: Path, name: str) -> None:
    found = read_published(folder, name)
    assert len(found.source) > 40
    assert all(found.series.values())


def test_appendix_a() -> None:
    accuracy = read_published(BROUNS, "accuracy")
    assert list(accuracy.series) == ["set", "original_with_transfer", "original"]
    assert all([number.x for number in numbers] == list(range(1, 31)) for numbers in accuracy.series.values())
    final = read_published(BROUNS, "final")
    for name, mean in (("set", 0.7122), ("original_with_transfer", 0.7078), ("original", 0.6974)):
        last = [number.value for number in accuracy.get(name)[-5:]]
        assert sum(last) / 5 == pytest.approx(mean, abs=1e-9)
        assert final.get(name)[0].value == pytest.approx(mean, abs=5e-4)  # the report rounds to a tenth of a point
    times = read_published(BROUNS, "time")
    assert times.get("set")[0].value == pytest.approx((8 * 60 + 7) / (4 * 60 + 11), abs=5e-4)
    assert times.get("original_with_transfer")[0].value == pytest.approx((6 * 60 + 20) / (4 * 60 + 11), abs=5e-4)


def test_faults(tmp_path: Path) -> None:
    with pytest.raises(DescriptionError, match=r"Unknown file of published numbers 'acuracy'.*accuracy"):
        read_published(BROUNS, "acuracy")
    with pytest.raises(DescriptionError, match=r"Unknown series 'sett'. Did you mean 'set'"):
        read_published(BROUNS, "final").get("sett")
    with pytest.raises(DescriptionError, match="has 30 numbers instead of one"):
        read_published(BROUNS, "accuracy").one("set")
    for text, message in (
        ("series,x,value,spread\na,,1,\n", "needs a line '# source"),
        ("# source: b\nseries,value\na,1\n", "the columns series, x, value, spread"),
        ("# source: b\nseries,x,value,spread\na,1,,\n", "has no value"),
        ("# source: b\nseries,x,value,spread\na,one,1,\n", "series 'a': could not convert"),
    ):
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        folder.mkdir()
        (folder / "p.csv").write_text(text)
        with pytest.raises(DescriptionError, match=message):
            read_published(folder, "p")
