"""Downloads from a real server on this machine."""

import re
import time
from contextlib import closing
from socket import socket

import pytest

from sparse_bench.data import download
from sparse_bench.data.download import Retry, fetch, problems
from sparse_bench.errors import DataError
from tests.data.file_server import QUICK, TAGS, WORDS, half_done, toy_corpus, whole


def test_fetches_once(server, tmp_path):
    corpus = server.corpus()
    found = fetch(corpus, tmp_path, retry=QUICK)
    assert found == {"words.bin": tmp_path / "toy/words.bin", "sub/tags.txt": tmp_path / "toy/sub/tags.txt"}
    assert whole(tmp_path)
    assert server.asked == [("/up/words.bin", None), ("/up/sub/tags.txt", None)]
    fetch(corpus, tmp_path, retry=QUICK)
    assert len(server.asked) == 2


def test_fetches_only_what_is_absent_or_has_another_size(server, tmp_path):
    corpus = server.corpus()
    fetch(corpus, tmp_path, retry=QUICK)
    (tmp_path / "toy/sub/tags.txt").write_bytes(TAGS[:-1])
    fetch(corpus, tmp_path, retry=QUICK)
    assert whole(tmp_path)
    assert server.asked[2:] == [("/up/sub/tags.txt", None)]


def test_a_wrong_byte_is_found_by_checksum_and_fetched_anew(server, tmp_path, caplog):
    corpus = server.corpus()
    fetch(corpus, tmp_path, retry=QUICK)
    assert problems(corpus, tmp_path) == {}
    (tmp_path / "toy/sub/tags.txt").write_bytes(b"X" + TAGS[1:])
    assert list(problems(corpus, tmp_path)) == ["sub/tags.txt"]
    assert corpus.files[1].sha256 in problems(corpus, tmp_path)["sub/tags.txt"]
    fetch(corpus, tmp_path, retry=QUICK)
    assert "Corpus 'toy', 'sub/tags.txt'" in caplog.text
    assert "It is downloaded again" in caplog.text
    assert whole(tmp_path)
    assert problems(corpus, tmp_path) == {}


def test_problems_name_absent_files(tmp_path):
    assert problems(toy_corpus("http://localhost"), tmp_path) == {"words.bin": "absent", "sub/tags.txt": "absent"}


def test_goes_on_from_a_part(server, tmp_path):
    half_done(tmp_path)
    fetch(server.corpus(), tmp_path, retry=QUICK)
    assert whole(tmp_path)
    assert server.asked[0] == ("/up/words.bin", "bytes=1000-")


def test_starts_again_where_the_server_knows_no_ranges(server, tmp_path):
    half_done(tmp_path, b"from elsewhere")
    server.ranges = False
    fetch(server.corpus(), tmp_path, retry=QUICK)
    assert whole(tmp_path)
    assert server.asked[0] == ("/up/words.bin", "bytes=14-")


def test_a_whole_part_is_not_asked_for_again(server, tmp_path):
    half_done(tmp_path, WORDS)
    fetch(server.corpus(), tmp_path, retry=QUICK)
    assert whole(tmp_path)
    assert [path for path, _ in server.asked] == ["/up/sub/tags.txt"]


def test_a_part_longer_than_the_file_is_dropped(server, tmp_path):
    half_done(tmp_path, WORDS + b"!")
    fetch(server.corpus(), tmp_path, retry=QUICK)
    assert whole(tmp_path)
    assert server.asked[0] == ("/up/words.bin", None)


@pytest.mark.parametrize("declare_length", [True, False])
@pytest.mark.parametrize("ranges", [True, False])
def test_a_cut_connection_is_taken_up_again(server, tmp_path, declare_length, ranges):
    server.declare_length, server.ranges = declare_length, ranges
    server.faults = ["cut", "cut"]
    fetch(server.corpus(), tmp_path, retry=QUICK)
    assert whole(tmp_path)
    half = len(WORDS) // 2
    later = half + half // 2 if ranges else half
    assert server.asked[:3] == [
        ("/up/words.bin", None),
        ("/up/words.bin", f"bytes={half}-"),
        ("/up/words.bin", f"bytes={later}-"),
    ]


def test_what_was_received_is_kept_when_every_attempt_is_cut(server, tmp_path):
    server.faults = ["cut"] * 4
    corpus = server.corpus()
    with pytest.raises(DataError, match="failed 4 times"):
        fetch(corpus, tmp_path, retry=QUICK)
    part = tmp_path / "toy/words.bin.part"
    assert part.read_bytes() == WORDS[: part.stat().st_size]
    assert part.stat().st_size == len(WORDS) * 15 // 16
    assert not (tmp_path / "toy/words.bin").exists()
    fetch(corpus, tmp_path, retry=QUICK)
    assert whole(tmp_path)


@pytest.mark.parametrize("part", [None, b"wrong beginning"])
@pytest.mark.parametrize("changed", [WORDS[:-1] + b"X", WORDS[:-1], WORDS + b"X", WORDS * 20])
def test_refuses_a_wrong_checksum(server, tmp_path, changed, part):
    if part is not None:
        half_done(tmp_path, part)
    corpus = server.corpus(words=changed)
    with pytest.raises(DataError, match="expected SHA-256") as caught:
        fetch(corpus, tmp_path, retry=QUICK)
    expected = corpus.files[0].sha256
    actual = re.search(r"got ([0-9a-f]{64})", str(caught.value))
    assert f"expected SHA-256 {expected}" in str(caught.value)
    assert actual
    assert actual[1] != expected
    assert f"{server.address}/up/words.bin" in str(caught.value)
    assert not list((tmp_path / "toy").iterdir())
    assert len(server.asked) == 1  # asking again would give the same


def test_an_answer_that_is_too_long_is_not_read_to_its_end(server, tmp_path):
    with pytest.raises(DataError, match="expected SHA-256") as caught:
        fetch(server.corpus(words=WORDS * 20), tmp_path, retry=QUICK)
    received = re.search(r"got [0-9a-f]{64} \((\d+) bytes\)", str(caught.value))
    assert received
    assert len(WORDS) < int(received[1]) <= len(WORDS) + 2**16


def test_404_is_not_asked_again(server, tmp_path):
    corpus = server.corpus()
    del server.files["/up/words.bin"]
    with pytest.raises(DataError, match=r"no http://.*/up/words\.bin \(404\)"):
        fetch(corpus, tmp_path, retry=QUICK)
    assert len(server.asked) == 1


def test_403_is_not_asked_again(server, tmp_path):
    server.faults = [403]
    with pytest.raises(DataError, match="answered 403"):
        fetch(server.corpus(), tmp_path, retry=QUICK)
    assert len(server.asked) == 1


def test_passing_errors_are_asked_again_after_growing_waits(server, tmp_path, monkeypatch):
    waits = []
    monkeypatch.setattr(download.time, "sleep", waits.append)
    server.faults = [503, 429, 500]
    fetch(server.corpus(), tmp_path)
    assert whole(tmp_path)
    assert waits == [1.0, 2.0, 4.0]


def test_lasting_errors_name_the_command(server, tmp_path):
    server.faults = [503] * 4
    with pytest.raises(DataError, match="failed 4 times, the last time with: 503") as caught:
        fetch(server.corpus(), tmp_path, retry=QUICK)
    assert len(server.asked) == 4
    assert "python -m sparse_bench.data download toy\n" in str(caught.value)


def test_no_network_names_the_command(tmp_path):
    with closing(socket()) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(DataError) as caught:
        fetch(toy_corpus(f"http://127.0.0.1:{port}"), tmp_path, retry=QUICK)
    message = str(caught.value)
    assert f"Corpus 'toy' in {tmp_path}, 'words.bin': absent. " in message
    assert f"It cannot be downloaded: http://127.0.0.1:{port}/words.bin" in message
    assert "python -m sparse_bench.data download toy --mirror PLACE" in message


def test_a_range_that_does_not_exist_starts_again(server, tmp_path):
    half_done(tmp_path)
    server.faults = [416]
    fetch(server.corpus(), tmp_path, retry=QUICK)
    assert whole(tmp_path)
    assert [asked for _, asked in server.asked[:2]] == ["bytes=1000-", None]


def test_an_address_that_is_none_is_an_error_at_once(tmp_path):
    with pytest.raises(DataError, match="cannot be downloaded: InvalidURL"):
        fetch(toy_corpus("http://"), tmp_path, retry=QUICK)


@pytest.mark.parametrize("part", [False, True])
def test_another_range_than_was_asked_for_starts_again(server, tmp_path, part):
    """Also where no range was asked for, and there is nothing to throw away."""
    if part:
        half_done(tmp_path)
    server.faults = ["shifted", "shifted"]
    fetch(server.corpus(), tmp_path, retry=QUICK)
    assert whole(tmp_path)
    assert [asked for _, asked in server.asked[:3]] == ["bytes=1000-" if part else None, None, None]


@pytest.mark.parametrize("part", [False, True])
def test_a_range_that_ends_early_is_taken_up_again(server, tmp_path, part):
    if part:
        half_done(tmp_path)
    server.faults = ["part"]
    fetch(server.corpus(), tmp_path, retry=QUICK)
    assert whole(tmp_path)
    assert server.asked[1] == ("/up/words.bin", f"bytes={(len(WORDS) + 1000 * part) // 2}-")


def test_an_answer_that_comes_byte_by_byte_is_given_up_and_what_came_is_kept(server, tmp_path):
    server.faults = ["drip", "drip"]
    retry = Retry(attempts=2, wait=0.0, patience=0.2, slowest=10**9)
    corpus = server.corpus()
    began = time.monotonic()
    with pytest.raises(DataError, match=r"failed 2 times, the last time with: only \d+ bytes in \d+ seconds"):
        fetch(corpus, tmp_path, retry=retry)
    assert time.monotonic() - began < 20
    received = (tmp_path / "toy/words.bin.part").read_bytes()
    assert 0 < len(received) < len(WORDS)
    assert received == WORDS[: len(received)]
    fetch(corpus, tmp_path, retry=QUICK)
    assert whole(tmp_path)


def test_a_large_answer_may_take_longer(server, tmp_path):
    """By what it brings, ``slowest`` bytes a second, beyond the patience for any."""
    server.faults = ["cut"]
    fetch(server.corpus(), tmp_path, retry=Retry(attempts=2, wait=0.0, patience=0.0, slowest=1))
    assert whole(tmp_path)
