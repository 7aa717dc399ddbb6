from __future__ import annotations

import multiprocessing
import os
import pickle
from pathlib import Path

import numpy as np
import pytest

from datamodules.lines import LineIndex, TextStore, tsv_line
from foundations.cache import cache_folder
from foundations.errors import InputError
from foundations.files import columns


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POTSTILL_CACHE", str(tmp_path / "cache"))


def put(folder: Path, content: bytes, name: str = "texts.tsv") -> Path:
    path = folder / name
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("chunk_rows", [1, 2, 3, 7, 100])
@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
@pytest.mark.parametrize("last", [True, False])
def test_chunks_hold_the_lines_of_the_file(tmp_path: Path, chunk_rows: int, end: bytes, last: bool) -> None:
    lines = [f"line {n}\tmaji \u00e9".encode() for n in range(7)]
    lines[3:3] = [b"", b" \t "]
    path = put(tmp_path, b"\xef\xbb\xbf" + end.join(lines) + (end if last else b""))
    texts = [line for line in lines if line.strip()]
    index = LineIndex.open(path, chunk_rows=chunk_rows)
    chunks = [index.read_chunk(number) for number in range(len(index.chunk_sizes()))]
    assert [line for chunk in chunks for line in chunk] == texts
    assert [len(chunk) for chunk in chunks] == index.chunk_sizes().tolist()
    assert len(index) == 7
    assert all(size == chunk_rows for size in index.chunk_sizes()[:-1])
    for number, chunk in enumerate(chunks):
        assert lines[index.first_line(number) - 1] == chunk[0]


def test_empty_lines_at_the_start_keep_line_numbers(tmp_path: Path) -> None:
    seen = []
    path = put(tmp_path, b"\xef\xbb\xbf\n\na\nb\n\nc")
    index = LineIndex.open(path, lambda line, number: seen.append((line, number)), chunk_rows=2)
    assert seen == [(b"a", 3), (b"b", 4), (b"c", 6)]
    assert index.read_chunk(0) == [b"a", b"b"]
    assert index.read_chunk(1) == [b"c"]


def test_the_second_time_reads_the_cache_until_the_file_changes(tmp_path: Path) -> None:
    path = put(tmp_path, b"a\nb\n")
    counts: list[int] = []

    def opened(form: str = "lines", rows: int = 1024) -> LineIndex:
        counts.append(0)
        return LineIndex.open(path, lambda *_: counts.append(counts.pop() + 1), rows, form)

    assert len(opened()) == len(opened()) == 2
    opened("pairs")
    opened(rows=1)
    path.write_bytes(b"a\nb\nc\n")
    assert len(opened()) == 3
    assert counts == [2, 0, 2, 2, 3]
    os.utime(path, ns=(0, 0))
    opened()
    assert counts[-1] == 3


def test_a_bad_line_leaves_no_index(tmp_path: Path) -> None:
    path = put(tmp_path, b"a\tb\n\nc\n")

    def check(line: bytes, number: int) -> object:
        return columns(line, 2, "a<TAB>b", path, number)

    for _ in range(2):
        with pytest.raises(InputError, match=r"texts.tsv:3: found 1 column, expected 2: a<TAB>b"):
            LineIndex.open(path, check)
    assert not list((cache_folder() / "index").glob("*.npy"))
    assert not list((cache_folder() / "index").glob("*.tmp"))


@pytest.mark.parametrize("content", [b"", b"\n \n", b"\xef\xbb\xbf\n"])
def test_a_file_without_text_is_refused(tmp_path: Path, content: bytes) -> None:
    path = put(tmp_path, content)
    with pytest.raises(InputError, match=r"texts\.tsv: the file is empty"):
        LineIndex.open(path)
    with pytest.raises(InputError, match="no such file"):
        LineIndex.open(tmp_path / "other.tsv")
    with pytest.raises(ValueError, match="chunk_rows is 0"):
        LineIndex.open(path, chunk_rows=0)


def test_a_file_that_changes_is_noticed(tmp_path: Path) -> None:
    path = put(tmp_path, b"a\nb\n")
    with pytest.raises(InputError, match="changed while it was read"):
        LineIndex.open(path, lambda *_: path.write_bytes(b"a\nb\nc\n"))
    index = LineIndex.open(path)
    path.write_bytes(b"a\n")
    with pytest.raises(InputError, match="changed since the run began"):
        index.read_chunk(0)


def test_a_cache_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POTSTILL_CACHE", str(put(tmp_path, b"x", "file")))
    with pytest.raises(InputError, match="set POTSTILL_CACHE"):
        LineIndex.open(put(tmp_path, b"a\n"))


def _open_slowly(path: Path, log: Path) -> None:
    def check(line: bytes, number: int) -> None:
        with log.open("a") as file:
            file.write(f"{number}\n")

    assert len(LineIndex.open(path, check)) == 50


def test_of_several_processes_one_reads_the_file(tmp_path: Path) -> None:
    path, log = put(tmp_path, b"a\n" * 50), tmp_path / "log"
    fork = multiprocessing.get_context("fork")
    processes = [fork.Process(target=_open_slowly, args=(path, log)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    assert len(log.read_text().splitlines()) == 50


def stored(path: Path) -> TextStore:
    return TextStore.open(path, tsv_line(path), "tsv")


def test_a_store_is_the_dictionary_of_the_file(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    texts = {f"{n * 7919 % 1000}-\u00e9": f"text {n} " + "x" * int(generator.integers(50)) for n in range(500)}
    lines = [f"{identifier}\t{text}".encode() for identifier, text in texts.items()]
    lines[4:4] = [b"", b"  "]
    store = stored(put(tmp_path, b"\xef\xbb\xbf" + b"\r\n".join(lines)))
    expected = {identifier: text.strip() for identifier, text in texts.items()}
    assert len(store) == 500
    assert list(store) == list(expected)
    assert list(store.items()) == list(expected.items())
    assert list(store.values()) == list(expected.values())
    assert {identifier: store[identifier] for identifier in expected} == expected
    assert dict(store) == expected
    assert store == expected
    assert store.keys() - {"x"} == expected.keys()
    assert "0" not in store
    assert 7 not in store
    assert store.get("x") is None
    with pytest.raises(KeyError):
        store["none"]
    again = pickle.loads(pickle.dumps(store))
    assert again["0-\u00e9"] == expected["0-\u00e9"]


def test_a_store_whose_keys_were_removed_makes_them_again(tmp_path: Path) -> None:
    path = put(tmp_path, b"b\tone\n\na\ttwo\nc\tthree\nd\tfour\n")
    texts = dict(stored(path))
    (keys,) = (each for each in (cache_folder() / "index").glob("*.npy") if np.load(each).shape == (2, 4))
    keys.unlink()
    again = stored(path)
    assert {name: again[name] for name in texts} == texts == {"b": "one", "a": "two", "c": "three", "d": "four"}


def test_texts_are_normalised_as_in_memory(tmp_path: Path) -> None:
    store = stored(put(tmp_path, "d1\t  cafe\u0301  au\u00a0lait \n".encode()))
    assert store["d1"] == "caf\u00e9 au lait"


def test_ids_of_the_same_hash_are_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datamodules.lines._hash", len)
    store = stored(put(tmp_path, b"aa\tone\nbb\ttwo\nc\tthree\ndd\tfour\n"))
    assert [store[key] for key in ("aa", "bb", "c", "dd")] == ["one", "two", "three", "four"]
    assert "ee" not in store


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a\tx\n\nb\ty\na\tz\n", r":4: the id 'a' is already that of line 1"),
        (b"a\tx\nb\n", r":2: found 1 column, expected 2: id<TAB>text"),
        (b"a\tx\nb\ty\tz\n", r":2: found 3 columns"),
        (b"a\tx\n\ty\n", r":2: the first column is empty"),
        (b"a\tx\nb\t \n", r":2: the second column is empty"),
        (b"a\tx\nb\t\xff\n", r":2: invalid UTF-8"),
        (b"a\tx\nb c\td\n", r":2: the id 'b c' holds white space"),
        (b"\n", r": the file is empty"),
    ],
)
def test_bad_texts(tmp_path: Path, content: bytes, message: str) -> None:
    path = put(tmp_path, content)
    with pytest.raises(InputError, match="texts.tsv" + message):
        stored(path)
