"""What is made once: by one of several processes, whole or not at all."""

import bz2
import errno
import gzip
import lzma
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from foundations.cache import cache_folder, content_hash, derived_array, file_key, locked, made_once, unpacked
from foundations.errors import InputError
from foundations.files import UNFINISHED

MAKER = """
import os, sys, time
from pathlib import Path
from foundations.cache import made_once

def make(folder):
    folder.mkdir()
    (folder / "made").write_text(str(os.getpid()))
    with open(sys.argv[2], "a") as log:
        log.write("made\\n")
    if sys.argv[3] == "die":
        os._exit(9)
    while not os.path.exists(sys.argv[3]):
        time.sleep(0.01)

print((made_once(sys.argv[1], make, "the thing") / "made").read_text())
"""


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("POTSTILL_CACHE", str(tmp_path / "cache"))


def maker(target, log, until):
    arguments = [sys.executable, "-c", MAKER, str(target), str(log), str(until)]
    return subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_until(condition):
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_one_of_two_processes_makes_it_and_the_other_waits(tmp_path):
    target, log, go = tmp_path / "a" / "thing", tmp_path / "log", tmp_path / "go"
    first = maker(target, log, go)
    wait_until(log.exists)
    second = maker(target, log, go)
    waiting = second.stderr.readline()
    assert waiting == "waiting for another process that makes the thing\n"
    assert not target.exists()
    go.touch()
    outputs = [process.communicate(timeout=60)[0] for process in (first, second)]
    assert outputs == [f"{first.pid}\n"] * 2
    assert log.read_text() == "made\n"


def test_what_a_killed_process_left_is_made_again(tmp_path):
    target, log = tmp_path / "thing", tmp_path / "log"
    assert maker(target, log, "die").wait(60) == 9
    assert not target.exists()
    assert list(tmp_path.glob(f"{UNFINISHED}thing-*"))
    made_once(target, lambda path: path.write_text("whole"), "the thing")
    assert target.read_text() == "whole"
    assert not list(tmp_path.glob(f"{UNFINISHED}*"))


def test_threads_make_it_once(tmp_path):
    made = []

    def make(path):
        made.append(threading.get_ident())
        time.sleep(0.05)
        path.write_text("x")

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: made_once(tmp_path / "thing", make, "the thing"), range(8)))
    assert len(made) == 1


def test_a_full_disk_is_an_input_error(tmp_path):
    def make(path):
        path.write_text("half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    message = "cannot make the thing: No space left on device; free some space, or set POTSTILL_CACHE"
    with pytest.raises(InputError, match=message):
        made_once(tmp_path / "thing", make, "the thing")
    assert [path.name for path in tmp_path.iterdir()] == [".thing.lock"]


def test_a_cache_that_cannot_be_written_is_an_input_error(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"file/cache: .*; free some space, or set POTSTILL_CACHE"):
        made_once(tmp_path / "file" / "cache" / "thing", Path.touch, "the thing")
    with (
        pytest.raises(InputError, match="set MY_FOLDER"),
        locked(tmp_path / "file" / "x" / ".lock", "works", "set MY_FOLDER"),
    ):
        pass


def test_an_error_of_the_maker_leaves_nothing(tmp_path):
    def make(path):
        path.write_text("half")
        raise InputError("wrong", "x.tsv", 3)

    with pytest.raises(InputError, match=r"^x\.tsv:3: wrong$"):
        made_once(tmp_path / "thing", make, "the thing")
    assert not (tmp_path / "thing").exists()


def test_a_process_may_nest_locked_blocks(tmp_path):
    with locked(tmp_path / ".lock", "works"), locked(tmp_path / ".lock", "works"):
        pass


def test_a_derived_array_is_made_again_when_the_file_changes(tmp_path):
    path, calls = tmp_path / "x.txt", []

    def make():
        calls.append(path.read_text())
        return np.arange(len(calls[-1]))

    for content in ("ab", "ab", "abc"):
        if not path.exists() or path.read_text() != content:
            path.write_text(content)
        array = derived_array(path, "form", make)
        assert array.tolist() == list(range(len(content)))
        assert not array.flags.writeable
    derived_array(path, "another form", make)
    assert calls == ["ab", "abc", "abc"]


@pytest.mark.parametrize("size", [0, 40, 140])
def test_a_damaged_array_is_made_again(tmp_path, size):
    path = tmp_path / "x.txt"
    path.write_text("abc")
    derived_array(path, "form", lambda: np.arange(10))
    (stored,) = cache_folder().glob("index/*.npy")
    stored.write_bytes(stored.read_bytes()[:size])
    with pytest.warns(UserWarning, match="damaged, made again"):
        assert derived_array(path, "form", lambda: np.arange(10)).tolist() == list(range(10))
    assert derived_array(path, "form", lambda: 1 / 0).tolist() == list(range(10))


def test_a_file_that_changes_while_it_is_read_gives_no_array(tmp_path):
    path = tmp_path / "x.txt"
    path.write_text("a")

    def make():
        path.write_text("abc")
        return np.arange(1)

    with pytest.raises(InputError, match="the file changed while it was read"):
        derived_array(path, "form", make)
    assert not list(cache_folder().glob("index/*.npy"))


@pytest.mark.parametrize(("suffix", "opener"), [(".gz", gzip.open), (".bz2", bz2.open), (".xz", lzma.open)])
def test_a_compressed_file_is_unpacked_once(tmp_path, suffix, opener):
    path = tmp_path / f"x.tsv{suffix}"
    with opener(path, "wb") as file:
        file.write(b"text\n" * 1000)
    copy = unpacked(path)
    assert (copy.name, copy.read_bytes()) == ("x.tsv", b"text\n" * 1000)
    modified = copy.stat().st_mtime_ns
    assert unpacked(path).stat().st_mtime_ns == modified
    assert unpacked(copy) == copy


@pytest.mark.parametrize("suffix", [".gz", ".bz2", ".xz"])
@pytest.mark.parametrize("content", [b"not compressed", "cut"])
def test_a_damaged_compressed_file_is_refused(tmp_path, suffix, content):
    path = tmp_path / f"x.tsv{suffix}"
    whole = {".gz": gzip, ".bz2": bz2, ".xz": lzma}[suffix].compress(os.urandom(1000))
    path.write_bytes(whole[:500] if content == "cut" else content)
    with pytest.raises(InputError, match=r"x\.tsv.*: the file is damaged or not compressed as its name says"):
        unpacked(path)


def test_keys_depend_on_the_file_and_on_what_is_made(tmp_path):
    path = tmp_path / "x"
    path.write_text("a")
    key, digest = file_key(path), content_hash(path)
    assert key == file_key(tmp_path / "." / "x")
    assert len({key, file_key(path, "a"), file_key(path, "a", "b")}) == 3
    path.write_text("bc")
    assert file_key(path) != key
    assert content_hash(path) != digest
