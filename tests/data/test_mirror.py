"""Corpora from a copy of one's own: a folder or an address."""

import gzip
import hashlib
import sys
from pathlib import Path

import pytest

from sparse_bench.cache import cache_root, corpora_folder
from sparse_bench.data import download
from sparse_bench.data.corpora import Corpus, CorpusFile, corpora
from sparse_bench.data.download import checksums, corpus_files, fetch, problems
from sparse_bench.errors import DataError
from tests.data.file_server import QUICK, TAGS, WORDS, half_done, toy_corpus, whole


def fill_mirror(folder: Path, packed: bool) -> Path:
    for name, content in {"words.bin": WORDS, "sub/tags.txt": TAGS}.items():
        path = folder / "toy" / (name + ".gz" if packed else name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(gzip.compress(content) if packed else content)
    return folder


@pytest.mark.parametrize("packed", [False, True])
def test_mirror_folder(tmp_path, packed):
    mirror = fill_mirror(tmp_path / "mirror", packed)
    half_done(tmp_path / "cache", b"from elsewhere")
    fetch(toy_corpus("http://nowhere.invalid"), tmp_path / "cache", str(mirror), retry=QUICK)
    assert whole(tmp_path / "cache")


def test_mirror_folder_with_wrong_content(tmp_path):
    mirror = fill_mirror(tmp_path / "mirror", packed=True)
    (mirror / "toy/words.bin.gz").write_bytes(gzip.compress(WORDS[1:]))
    with pytest.raises(DataError, match="expected SHA-256") as caught:
        fetch(toy_corpus("http://nowhere.invalid"), tmp_path / "cache", str(mirror))
    assert f"from {mirror}/toy/words.bin:" in str(caught.value)
    assert not list((tmp_path / "cache/toy").iterdir())


def test_mirror_folder_with_half_a_gzip_file(tmp_path):
    mirror = fill_mirror(tmp_path / "mirror", packed=True)
    (mirror / "toy/words.bin.gz").write_bytes(gzip.compress(WORDS)[:-100])
    with pytest.raises(DataError, match="not a complete gzip file"):
        fetch(toy_corpus("http://nowhere.invalid"), tmp_path / "cache", str(mirror))
    assert not list((tmp_path / "cache/toy").iterdir())


@pytest.mark.parametrize("place", ["folder", "address"])
def test_what_unpacks_to_more_than_the_file_is_not_unpacked_to_its_end(server, tmp_path, place):
    bomb = gzip.compress(bytes(50_000_000))
    if place == "folder":
        mirror = str(fill_mirror(tmp_path / "mirror", packed=True))
        (tmp_path / "mirror/toy/words.bin.gz").write_bytes(bomb)
    else:
        mirror = server.address
        server.files = {"/toy/words.bin.gz": bomb}
    with pytest.raises(DataError, match=rf"expected SHA-256 .*got \w+ \({len(WORDS) + 1} bytes\)"):
        fetch(toy_corpus("http://nowhere.invalid"), tmp_path / "cache", mirror, retry=QUICK)
    assert not list((tmp_path / "cache/toy").iterdir())


def test_a_packed_file_that_cannot_hold_so_little_is_not_read_to_its_end(server, tmp_path, monkeypatch):
    server.files = {"/toy/words.bin.gz": gzip.compress(WORDS, compresslevel=0) * 20}
    received, receive = [], download._Source._receive

    def watched(self, response, part, start, most):
        receive(self, response, part, start, most)
        received.append(part.stat().st_size)

    monkeypatch.setattr(download._Source, "_receive", watched)
    with pytest.raises(DataError, match=r"words\.bin\.gz has more than 449920 bytes, too many for a file of"):
        fetch(toy_corpus("http://nowhere.invalid"), tmp_path, server.address, retry=QUICK)
    assert 449920 < max(received) < 2 * 449920
    assert not list((tmp_path / "toy").iterdir())


def test_a_packed_file_may_be_larger_than_what_it_holds(server, tmp_path):
    packed = gzip.compress(WORDS, compresslevel=0)
    assert len(packed) > len(WORDS)
    server.files = {"/toy/words.bin.gz": packed, "/toy/sub/tags.txt.gz": gzip.compress(TAGS, compresslevel=0)}
    fetch(toy_corpus("http://nowhere.invalid"), tmp_path, server.address, retry=QUICK)
    assert whole(tmp_path)


def test_a_mirrored_file_that_is_too_long_is_not_copied_to_its_end(tmp_path):
    mirror = fill_mirror(tmp_path / "mirror", packed=False)
    (mirror / "toy/words.bin").write_bytes(WORDS * 20)
    with pytest.raises(DataError, match=rf"got \w+ \({len(WORDS) + 1} bytes\)"):
        fetch(toy_corpus("http://nowhere.invalid"), tmp_path / "cache", str(mirror), retry=QUICK)


def test_mirror_that_lacks_the_file_or_is_no_folder(tmp_path):
    corpus = toy_corpus("http://nowhere.invalid")
    with pytest.raises(DataError, match=r"neither toy/words\.bin nor that with '\.gz' added"):
        fetch(corpus, tmp_path / "cache", str(tmp_path))
    with pytest.raises(DataError, match="absent is not a folder"):
        fetch(corpus, tmp_path / "cache", str(tmp_path / "absent"))


@pytest.mark.parametrize("slash", ["", "/"])
def test_mirror_address(server, tmp_path, slash):
    server.files = {"/mirror/toy/words.bin": WORDS, "/mirror/toy/sub/tags.txt.gz": gzip.compress(TAGS)}
    fetch(toy_corpus("http://nowhere.invalid"), tmp_path, f"{server.address}/mirror{slash}", retry=QUICK)
    assert whole(tmp_path)
    assert [path for path, _ in server.asked] == [
        "/mirror/toy/words.bin",
        "/mirror/toy/sub/tags.txt",
        "/mirror/toy/sub/tags.txt.gz",
    ]


def test_mirror_address_cut_within_a_packed_file(server, tmp_path):
    packed = gzip.compress(WORDS)
    server.files = {"/toy/words.bin.gz": packed, "/toy/sub/tags.txt": TAGS}
    server.faults = [404, "cut"]
    fetch(toy_corpus("http://nowhere.invalid"), tmp_path, server.address, retry=QUICK)
    assert whole(tmp_path)
    assert server.asked[2] == ("/toy/words.bin.gz", f"bytes={len(packed) // 2}-")


def test_mirror_address_with_a_broken_packed_file(server, tmp_path):
    server.files = {"/toy/words.bin.gz": gzip.compress(WORDS)[:-100]}
    with pytest.raises(DataError, match="not a complete gzip file"):
        fetch(toy_corpus("http://nowhere.invalid"), tmp_path, server.address, retry=QUICK)
    assert not list((tmp_path / "toy").iterdir())


def test_mirror_address_that_lacks_the_file(server, tmp_path):
    with pytest.raises(DataError, match=r"neither .*/toy/words\.bin nor .*/toy/words\.bin\.gz \(404\)"):
        fetch(toy_corpus("http://nowhere.invalid"), tmp_path, server.address, retry=QUICK)
    assert len(server.asked) == 2


def test_a_file_that_is_itself_gzip_stays_packed(server, tmp_path):
    packed = gzip.compress(TAGS)
    file = CorpusFile("toy", "a.gz", hashlib.sha256(packed).hexdigest(), len(packed), f"{server.address}/a.gz", "free")
    server.files = {"/a.gz": packed}
    server.content_encoding = "gzip"  # as some servers declare every .gz
    found = fetch(Corpus("toy", "", "", (file,)), tmp_path, retry=QUICK)
    assert found["a.gz"].read_bytes() == packed


def test_corpus_files_uses_cache_and_mirror_of_the_environment(shared_data, tmp_path, monkeypatch):
    monkeypatch.setenv("SPARSE_BENCH_DATA", str(tmp_path))
    monkeypatch.setenv("SPARSE_BENCH_MIRROR", str(shared_data))
    for name, corpus in corpora().items():
        found = corpus_files(name)
        assert found.keys() == checksums(name).keys()
        assert problems(corpus, tmp_path) == {}
        assert {hashlib.sha256(path.read_bytes()).hexdigest() for path in found.values()} == set(
            checksums(name).values()
        )
    # From here on neither is asked.
    monkeypatch.setenv("SPARSE_BENCH_MIRROR", str(tmp_path / "absent"))
    assert corpus_files("ptb")["ptb.valid.txt"].read_text().split()[:4] == ["consumers", "may", "want", "to"]


def test_the_given_mirror_goes_before_that_of_the_environment(shared_data, tmp_path, monkeypatch):
    monkeypatch.setenv("SPARSE_BENCH_DATA", str(tmp_path))
    monkeypatch.setenv("SPARSE_BENCH_MIRROR", str(tmp_path / "absent"))
    assert corpus_files("ted", mirror=str(shared_data))["test/simulated_hotel_test.md"].is_file()


def test_default_cache(monkeypatch):
    for variable in ("SPARSE_BENCH_DATA", "SPARSE_BENCH_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(variable, raising=False)
    if sys.platform == "linux":
        assert corpora_folder() == cache_root() == Path.home() / ".cache" / "sparse_bench"
        monkeypatch.setenv("XDG_CACHE_HOME", "/caches")
        assert corpora_folder() == cache_root() == Path("/caches/sparse_bench")
    monkeypatch.setenv("SPARSE_BENCH_CACHE", "~/all")
    assert corpora_folder() == cache_root() == Path.home() / "all"
    monkeypatch.setenv("SPARSE_BENCH_DATA", "~/elsewhere")
    assert (corpora_folder(), cache_root()) == (Path.home() / "elsewhere", Path.home() / "all")


def test_unknown_corpus():
    with pytest.raises(DataError, match=r"Unknown corpus 'pbt'\. Did you mean 'ptb'\? Valid choices: brouns, brown, "):
        corpus_files("pbt")
