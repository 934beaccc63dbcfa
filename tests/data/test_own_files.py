import gzip
import re
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import DictConfig

from sparse_bench.config import check, run_id
from sparse_bench.data.own_files import conll, parallel, text_classes, text_intents, text_lm
from sparse_bench.data.splits import held_out
from sparse_bench.errors import ConfigError, DataError
from sparse_bench.record import Result
from sparse_bench.run import run

Compose = Callable[..., DictConfig]
DOCS = Path(__file__).resolve().parents[2] / "docs"


def documented() -> list[list[str]]:
    """The overrides of each command of the section on one's own data."""
    section = (DOCS / "data.md").read_text(encoding="utf-8").partition("## Your own data")[2]
    blocks = re.findall(r"```bash\n(.*?)```", section, re.DOTALL)
    lines = [line.split() for block in blocks for line in block.splitlines()]
    assert all(line[:3] == ["python", "-m", "sparse_bench"] for line in lines)
    return [line[3:] for line in lines]


@pytest.mark.parametrize("overrides", documented(), ids=lambda overrides: overrides[0])
def test_documented_commands_run_from_the_folder_of_the_data(
    overrides: list[str], compose_config: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(DOCS / "examples" / "data")
    settings = ["trainer.steps=2", "threads=1", "logger=none", "progress=false"]
    result = run(compose_config(*overrides, *settings, f"output={tmp_path}"))
    assert isinstance(result, Result)
    assert result.status == "finished", result.error
    assert result.data
    assert all(len(checksum) == 64 for checksum in result.data.values())


def write(folder: Path, **files: str | bytes) -> list[str]:
    """Write files, whose names have underscores in place of dots; returns their paths."""
    paths = []
    for name, content in files.items():
        path = folder / name.replace("_", ".")
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        paths.append(str(path))
    return paths


# ---- shares ----


@given(
    inputs=st.lists(st.integers(0, 40), min_size=12, max_size=60),
    shares=st.sampled_from([{"test": 0.2}, {"valid": 0.1, "test": 0.1}, {"valid": 0.01, "test": 0.3}]),
    seed=st.integers(0, 5),
)
def test_equal_inputs_share_a_split(inputs: list[int], shares: dict[str, float], seed: int) -> None:
    different = list(dict.fromkeys(inputs))
    if len(different) < 4:
        return
    found = held_out(inputs, shares, seed)
    assert sorted(number for numbers in found.values() for number in numbers) == list(range(len(inputs)))
    sets = {split: {inputs[number] for number in numbers} for split, numbers in found.items()}
    for split, share in shares.items():
        assert len(sets[split]) == max(1, round(share * len(different)))
    assert sum(map(len, sets.values())) == len(different)


def test_labels_have_equal_shares_and_a_training_example() -> None:
    labels = ["rare"] + ["a"] * 101 + ["b"] * 51 + ["once"]
    found = held_out(list(range(len(labels))), {"valid": 0.1, "test": 0.2}, 0, labels)
    counts = {split: Counter(labels[number] for number in numbers) for split, numbers in found.items()}
    assert counts["test"] == {"a": 20, "b": 11} or counts["test"] == {"a": 21, "b": 10}
    assert set(counts["train"]) == {"rare", "a", "b", "once"}
    assert counts["valid"].total() == 15
    assert held_out(list(range(len(labels))), {"test": 0.2}, 1, labels) != found


# ---- running text ----


def test_text_in_words(tmp_path: Path) -> None:
    lines = [f"a b c{number % 3}" for number in range(20)]
    (path,) = write(tmp_path, my_txt="\r\n".join([*lines[:10], "", *lines[10:]]) + "\r\n")
    corpus = text_lm(path, valid=0.2, test=0.1, least_count=6)
    # Of 20 lines the last 2 are for the test, the 4 before them for validation.
    assert [len(split.lengths) for split in (corpus.train, corpus.valid, corpus.test)] == [14, 4, 2]
    # In lines 0 to 13, c0 and c1 occur five times and c2 four times: fewer than six.
    assert corpus.words == ("<unk>", "<eos>", "a", "b")
    assert corpus.train.tokens[:4].tolist() == [2, 3, 0, 1]
    assert list(corpus.checksums) == ["train: my.txt"]


def test_text_in_characters_from_gz_with_own_held_out_files(tmp_path: Path) -> None:
    packed = gzip.compress(b"ab a\n\nbb\n")
    train, valid, test = write(tmp_path, train_txt_gz=packed, valid_txt="ab\n", test_txt="b c\n")
    corpus = text_lm(train, valid, test, unit="characters")
    assert corpus.words == ("<unk>", "<eos>", "b", "a", " ")
    assert corpus.train.tokens.tolist() == [3, 2, 4, 3, 1, 2, 2, 1]
    assert corpus.test.tokens.tolist() == [2, 4, 0, 1]
    assert sorted(corpus.checksums) == ["test: test.txt", "train: train.txt.gz", "valid: valid.txt"]


def test_a_fraction_leaves_the_held_out_lines_as_they_are(tmp_path: Path) -> None:
    (path,) = write(tmp_path, my_txt="".join(f"w{number}\n" for number in range(100)))
    corpus = text_lm(path, fraction=0.5)
    assert [len(split.lengths) for split in (corpus.train, corpus.valid, corpus.test)] == [40, 10, 10]


@pytest.mark.parametrize(
    ("content", "settings", "message"),
    [
        ("", {}, r"my\.txt is empty"),
        ("\n \n", {}, r"my\.txt is empty"),
        ("one line only", {}, r"my\.txt: too few lines \(1\)"),
        (b"fine\nna\xefve\n", {}, r"my\.txt cannot be read: line 2 is not UTF-8"),
        ("a\nb\n", {"valid": 0.5, "test": 0.5}, "together they have to be less than 1"),
        ("a\nb\n", {"valid": "absent.txt"}, r"'absent\.txt' does not exist in /"),
        ("a\nb\n", {"valid": "x" * 300}, r"'x{100}' cannot be a path: File name too long\."),
        ("a\nb\n", {"test": "~no-such-user/x"}, r"'~no-such-user/x' cannot be a path: Could not determine home"),
    ],
)
def test_unusable_text(tmp_path: Path, content: str | bytes, settings: dict, message: str) -> None:
    (path,) = write(tmp_path, my_txt=content)
    with pytest.raises((DataError, ConfigError), match=message):
        text_lm(path, **settings)


# ---- aligned sentences ----


def test_pairs_with_equal_sources_stay_together(tmp_path: Path) -> None:
    source = "".join(f"s{number // 2}\n" for number in range(40))
    target = "".join(f"t{number} \n" for number in range(40))
    corpus = parallel(write(tmp_path, my_en=source, my_fr=target), valid=0.1, test=0.2)
    assert corpus.languages == ("en", "fr")
    assert [len(part) for part in (corpus.train, corpus.valid, corpus.test)] == [28, 4, 8]
    assert not set(corpus.train.source) & set(corpus.test.source)
    for part in (corpus.train, corpus.valid, corpus.test):
        assert all(int(t[1:]) // 2 == int(s[1:]) for s, t in zip(part.source, part.target, strict=True))
    assert corpus.references == corpus.test.target


@pytest.mark.parametrize(
    ("source", "target", "names", "message"),
    [
        ("a\nb\n", "a\nb\nc\n", ("x.en", "x.de"), r"x\.en has 2 lines, and .*x\.de has 3"),
        ("a\n\nc\n", "a\nb\nc\n", ("x.en", "x.de"), r"x\.en, line 2 is empty"),
        ("a\n", "b\n", ("x.txt", "y.txt"), r"dataset\.languages=\[en,de\]"),
    ],
)
def test_unusable_pairs(tmp_path: Path, source: str, target: str, names: Sequence[str], message: str) -> None:
    paths = [tmp_path / name for name in names]
    for path, content in zip(paths, (source, target), strict=True):
        path.write_text(content)
    with pytest.raises((DataError, ConfigError), match=message):
        parallel([str(path) for path in paths])


# ---- tagged words ----


def test_columns_by_number(tmp_path: Path) -> None:
    conllu = (
        "# text = Im Haus\n1-2\tIm\t_\t_\n1\tIn\tin\tADP\n2\tdem\tder\tDET\n3\tHaus\tHaus\tNOUN\n\n\n"
        "# text = ja\n1\tja\tja\tINTJ\n1.1\tx\tx\tX\n"
    )
    plain = "-DOCSTART- -X- O\n\nU.N. NNP I-ORG\nis VBZ O\n"
    train, held = write(tmp_path, a_conllu=conllu, b_conll=plain)
    corpus = conll(train, train, train, word_column=2, tag_column=4, comment="#")
    assert corpus.train == ((("In", "dem", "Haus"), ("ADP", "DET", "NOUN")), (("ja",), ("INTJ",)))
    assert corpus.tags == ("ADP", "DET", "INTJ", "NOUN")
    corpus = conll(held, held, held, tag_column=3, comment="-DOCSTART-")
    assert corpus.test == ((("U.N.", "is"), ("I-ORG", "O")),)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a\tDT\n\nb\n", r"my\.conll, line 3 has 1 column; columns 1 and 2 are needed"),
        ("a\tDT\nb\t\n", r"my\.conll, line 2: column 2 is empty"),
        ("#\na\tDT\n", r"line 1 has 1 column.*dataset\.comment"),
    ],
)
def test_unusable_columns(tmp_path: Path, content: str, message: str) -> None:
    (path,) = write(tmp_path, my_conll=content)
    with pytest.raises(DataError, match=message):
        conll(path)


# ---- texts with a class ----


def test_texts_with_classes(tmp_path: Path) -> None:
    rows = "".join(f"{number}\tSci/Tech\tNews number x{number}!\r\n" for number in range(30))
    rows += "".join(f"{number}\tSports\tGame number y{number}!\n\n" for number in range(30))
    (path,) = write(tmp_path, my_tsv="id\tclass\ttext\n" + rows)
    corpus = text_classes(path, text_column=3, class_column=2, header=True, test=0.2)
    assert corpus.types == ("Sci/Tech", "Sports")
    assert Counter(kind for _, kind in corpus.test) == {"Sci/Tech": 6, "Sports": 6}
    assert ("news", "number", "x0") in [words for words, _ in (*corpus.train, *corpus.valid, *corpus.test)]
    messages = text_intents(path, text_column=3, class_column=2, header=True)
    assert {message.intent for message in messages.test} == {"Sci_Tech", "Sports"}
    assert len(messages.messages) + len(messages.test) == 60


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("good\tpos\nbad\n", r"my\.tsv, line 2 has 1 column; columns 1 and 2 are needed"),
        ("good\tpos\n\tneg\n", r"my\.tsv, line 2: column 1 is empty"),
        ("good\tpos\nfine\tpos\n", "only one class, 'pos'"),
    ],
)
def test_unusable_table(tmp_path: Path, content: str, message: str) -> None:
    (path,) = write(tmp_path, my_tsv=content)
    with pytest.raises(DataError, match=message):
        text_classes(path, valid=path, test=path)


def test_a_header_that_is_read_as_an_example_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (path,) = write(tmp_path, my_tsv="text\tlabel\n" + "".join(f"w{n}\tx\nv{n}\ty\n" for n in range(9)))
    text_classes(path)
    assert re.search(r"my\.tsv, line 1: no other line has the class label\. Is it a header\?", caplog.text)
    caplog.clear()
    text_classes(path, header=True)
    assert not caplog.text


def test_a_held_out_class_must_occur_in_training(tmp_path: Path) -> None:
    train, test = write(tmp_path, train_tsv="a\tx\nb\ty\n", test_tsv="c\tx\nd\tz\n")
    with pytest.raises(DataError, match=r"test\.tsv, line 2: the class 'z' does not occur in training"):
        text_classes(train, valid=test, test=test)


# ---- configuration ----


def test_what_stands_beside_the_corpus_counts_once(compose_config: Compose) -> None:
    short = compose_config("dataset=text_lm", "model=lstm_lm", "dataset.train=a.txt")
    other = compose_config("dataset=text_lm", "model=lstm_lm", "dataset.train=b.txt")
    long = compose_config("dataset=text_lm", "model=lstm_lm", "dataset.train=b.txt", "dataset.corpus.train=a.txt")
    for config in (short, other, long):
        check(config)
    assert run_id(short) == run_id(long) != run_id(other)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("dataset.valid=0.1", r"has to give: dataset\.train=…"),
        ("+dataset.tain=a.txt", r"Unknown setting 'tain'\. Did you mean 'train'"),
        ("dataset.valid=1.5", r"'dataset\.corpus\.valid' = 1\.5"),
        ("dataset.unit=bytes", "Valid choices: characters, words"),
    ],
)
def test_wrong_settings_are_refused_before_reading(compose_config: Compose, setting: str, message: str) -> None:
    train = [] if setting == "dataset.valid=0.1" else ["dataset.train=a.txt"]
    with pytest.raises(ConfigError, match=message):
        check(compose_config("dataset=text_lm", "model=lstm_lm", *train, setting))
