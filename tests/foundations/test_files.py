"""Lines with their errors, and files and folders that are whole or not there."""

import bz2
import gzip
import lzma
import os
import stat

import pytest

from foundations.errors import InputError, as_input_error
from foundations.files import (
    UNFINISHED,
    columns,
    json_line,
    lines,
    new_folder,
    read_columns,
    read_json,
    read_text,
    remove_unfinished,
    scan_lines,
    write_json,
    write_whole,
)
from foundations.yaml_files import read_yaml


def test_lines_come_with_numbers_and_offsets(tmp_path):
    path = tmp_path / "x.tsv"
    path.write_bytes(b"\xef\xbb\xbfa\tb\r\n\n  \nc\xc3\xa9\td")
    assert list(scan_lines(path)) == [(1, 0, b"a\tb"), (4, 12, b"c\xc3\xa9\td")]
    assert list(lines(path, "text")) == [(1, "a\tb"), (4, "cé\td")]
    assert list(read_columns(path, "a<TAB>b", 2, b"\t")) == [(1, ["a", "b"]), (4, ["cé", "d"])]


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress])
def test_compressed_files_are_read_like_plain_ones_whatever_their_name(tmp_path, pack):
    path = tmp_path / "x.tsv"
    path.write_bytes(pack(b"\xef\xbb\xbfa\tb\n\nc\td\n"))
    assert list(scan_lines(path)) == [(1, 0, b"a\tb"), (3, 8, b"c\td")]
    assert list(scan_lines(path, blank=True)) == [(1, 0, b"a\tb"), (2, 7, b""), (3, 8, b"c\td")]
    assert read_text(path, "text") == "a\tb\n\nc\td\n"
    whole = pack(os.urandom(1000).hex().encode())
    path.write_bytes(whole[:500])
    for read in (lambda: list(scan_lines(path)), lambda: read_text(path, "text")):
        with pytest.raises(InputError, match=r"x\.tsv: the file is damaged"):
            read()


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be"])
def test_utf_16_is_called_by_its_name(tmp_path, encoding):
    path = tmp_path / "x.tsv"
    path.write_text("maji\twater\n", encoding=encoding)
    for read in (lambda: list(scan_lines(path)), lambda: read_text(path, "text"), lambda: read_yaml(path)):
        with pytest.raises(InputError, match=r"x\.tsv: this (is|looks like) UTF-16.*, expected UTF-8: convert it"):
            read()


def test_columns_split_at_ascii_white_space_alone(tmp_path):
    path = tmp_path / "x.txt"
    path.write_text("a\u00a0b  c\td\n", encoding="utf-8")
    assert list(read_columns(path, "text")) == [(1, ["a\u00a0b", "c", "d"])]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a\tb\n\xff\tb\n", r"x\.tsv:2: invalid UTF-8 \(invalid start byte\), expected a<TAB>b$"),
        (b"a\tb\na\n", r"x\.tsv:2: found 1 column, expected 2: a<TAB>b$"),
        (b"a\tb\tc\n", r"x\.tsv:1: found 3 columns, expected 2: a<TAB>b$"),
        (b"\n\n", r"x\.tsv: the file is empty, expected lines of a<TAB>b$"),
    ],
)
def test_a_malformed_line_is_told_with_its_place(tmp_path, content, message):
    path = tmp_path / "x.tsv"
    path.write_bytes(content)
    with pytest.raises(InputError, match=message):
        list(read_columns(path, "a<TAB>b", 2, b"\t"))


def test_columns_may_have_to_be_filled():
    assert columns(b" a \t b ", 2, "a<TAB>b", "x.tsv", filled=True) == ["a", "b"]
    assert columns(b"a\t", 2, "a<TAB>b", "x.tsv") == ["a", ""]
    with pytest.raises(InputError, match=r"^x\.tsv:3: the second column is empty, expected a<TAB>b$"):
        columns(b"a\t ", 2, "a<TAB>b", "x.tsv", 3, filled=True)
    with pytest.raises(InputError, match=r"^x\.tsv: the first column is empty"):  # the line is not known
        columns(b"\tb", 2, "a<TAB>b", "x.tsv", filled=True)


def test_a_line_of_json():
    assert json_line(b'{"id": 1}', "an object", "x.jsonl", 3) == {"id": 1}
    with pytest.raises(
        InputError, match=r"^x\.jsonl:3: invalid JSON \(Expecting value at column 2\), expected an object$"
    ):
        json_line(b"[", "an object", "x.jsonl", 3)
    with pytest.raises(InputError, match=r"^x\.jsonl: invalid UTF-8"):  # the line is not known
        json_line(b"\xff", "an object", "x.jsonl")
    with pytest.raises(InputError, match=r"invalid JSON \(too deep\)"):
        json_line(b"[" * 100_000, "an object", "x.jsonl")


def test_a_text_and_json_as_a_whole(tmp_path):
    path = tmp_path / "x.json"
    write_json(path, {"a": ["é", 1]})
    assert read_json(path) == {"a": ["é", 1]}
    path.write_bytes(b"\xef\xbb\xbf[1,\n2,]")
    with pytest.raises(InputError, match=r"x\.json:2: invalid JSON \(.*\), expected numbers$"):
        read_json(path, "numbers")
    path.write_bytes(b"a\nb\xff")
    with pytest.raises(InputError, match=r"x\.json:2: invalid UTF-8 \(.*\), expected JSON$"):
        read_json(path)
    with pytest.raises(InputError, match="no such file"):
        read_text(tmp_path / "none", "text")


def test_a_file_is_written_whole_or_stays_as_it_was(tmp_path):
    path = tmp_path / "x.txt"
    path.write_text("old")
    with pytest.raises(ZeroDivisionError), write_whole(path) as file:
        file.write(f"half {1 // 0}")
    assert path.read_text() == "old"
    with write_whole(path) as file:
        file.write("é\n")
    assert path.read_bytes() == "é\n".encode()
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(InputError, match=r"the folder .* does not exist"), write_whole(tmp_path / "no" / "x"):
        pass
    with pytest.raises(InputError, match="this is a folder"), write_whole(tmp_path):
        pass


def test_a_folder_appears_when_it_is_complete(tmp_path):
    target = tmp_path / "a" / "folder"
    with pytest.raises(ZeroDivisionError), new_folder(target) as folder:
        (folder / "x").write_text(f"{(folder / 'y').write_text('half') // 0}")
    assert not target.exists()
    with new_folder(target) as folder:
        (folder / "x").write_text("whole")
        (folder / "x").chmod(0o600)
        assert not target.exists()
    assert (target / "x").read_text() == "whole"
    mask = os.umask(0)
    os.umask(mask)
    assert stat.S_IMODE(target.stat().st_mode) == 0o777 & ~mask
    assert stat.S_IMODE((target / "x").stat().st_mode) == 0o666 & ~mask
    assert list(target.parent.iterdir()) == [target]


def test_the_first_of_two_folders_stays(tmp_path):
    target = tmp_path / "folder"
    with new_folder(target) as second, new_folder(target) as first:
        (first / "x").write_text("first")
        (second / "x").write_text("second")
    assert (target / "x").read_text() == "first"
    assert list(tmp_path.iterdir()) == [target]


def test_what_killed_processes_left_is_removed(tmp_path):
    (tmp_path / f"{UNFINISHED}folder-abc").mkdir()
    (tmp_path / f"{UNFINISHED}folder-abc" / "x").write_text("half")
    (tmp_path / f"{UNFINISHED}other-abc").mkdir()
    remove_unfinished(tmp_path / "folder")
    assert [path.name for path in tmp_path.iterdir()] == [f"{UNFINISHED}other-abc"]


def test_a_value_error_becomes_an_input_error_once():
    with pytest.raises(InputError, match=r"^x\.yaml: --n: n is 0$"), as_input_error("--n: ", "x.yaml"):
        raise ValueError("n is 0")
    with pytest.raises(InputError, match=r"^y:1: wrong$"), as_input_error("--n: "):
        raise InputError("wrong", "y", 1)
