from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from datamodules.lines import LineIndex
from datamodules.scored_lists import ScoredList, read_scores, scores_line
from foundations.errors import InputError

GOOD = '["q1", ["d7", 9.25], ["d2", -1.5]]'


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "scores.jsonl"


def test_both_layouts_and_numbers_as_ids(path: Path) -> None:
    path.write_text(GOOD + '\n\n[2, [[7, 3], ["d2", -1e-3]]]\n["q3", ["d1", 0]]\n["q4", [["d1", 0]]]\n')
    lists = list(read_scores(path))
    assert lists == [
        ScoredList("q1", (("d7", 9.25), ("d2", -1.5)), 1),
        ScoredList("2", (("7", 3.0), ("d2", -0.001)), 3),
        ScoredList("q3", (("d1", 0.0),), 4),
        ScoredList("q4", (("d1", 0.0),), 5),
    ]
    assert all(isinstance(score, float) for each in lists for _, score in each.passages)


@pytest.mark.parametrize("name", ["scores.jsonl.gz", "scores.jsonl"])
def test_gzip_is_known_by_its_content(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(gzip.compress(b"\xef\xbb\xbf" + GOOD.encode() + b"\r\n" + GOOD.replace("q1", "q2").encode()))
    assert [(each.query, each.line) for each in read_scores(path)] == [("q1", 1), ("q2", 2)]


def test_reads_one_line_at_a_time(path: Path) -> None:
    path.write_text(GOOD + "\nbroken\n")
    reader = read_scores(path)
    assert next(reader).query == "q1"
    with pytest.raises(InputError, match=r"scores\.jsonl:2: invalid JSON"):
        next(reader)


def test_the_parser_serves_an_index_of_lines(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POTSTILL_CACHE", str(path.parent / "cache"))
    path.write_text("".join(json.dumps([f"q{i}", ["d", i]]) + "\n" for i in range(5)))
    parse = scores_line(path)
    index = LineIndex.open(path, parse, chunk_rows=2, form="scores")
    assert [parse(line, 0).query for line in index.read_chunk(1)] == ["q2", "q3"]
    path.write_text(GOOD + "\n[]\n")
    with pytest.raises(InputError, match=r"scores\.jsonl:2: the list is empty"):
        LineIndex.open(path, parse, form="scores")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('["q2", ["d1", 2.5]', r"invalid JSON \(.*\), expected \[query id, \[passage id, score\], \.\.\.\]"),
        (b'["q2", ["\xff", 2.5]]', r"invalid UTF-8"),
        ('{"qid": "q2"}', r'found {"qid": "q2"}, expected \[query id'),
        ("[" * 100_000, r"invalid JSON"),
        ("[]", "the list is empty"),
        ('["q2"]', "the list names no passage"),
        ('["q2", []]', "the list names no passage"),
        ('["q2", "d1", 2.5]', r'found "d1" for a passage and its score'),
        ('["q2", ["d1"]]', r'found \["d1"\] for a passage and its score'),
        ('["q2", ["d1", 2.5, 3]]', r'found \["d1", 2.5, 3\] for a passage'),
        ('["q2", ["d1", "2.5"]]', r'the score "2.5" of passage "d1" is not a finite number'),
        ('["q2", ["d1", NaN]]', r"the score NaN of passage"),
        ('["q2", ["d1", -Infinity]]', r"the score -Infinity of passage"),
        ('["q2", ["d1", true]]', r"the score true of passage"),
        ('["q2", ["d1", null]]', r"the score null of passage"),
        (f'["q2", ["d1", {"9" * 400}]]', r"the score 9+\.\.\. of passage"),
        ('["q2", [1.5, 2.5]]', r"1\.5 is no id of a passage"),
        ('["q2", ["", 2.5]]', r'"" is no id of a passage'),
        ('[null, ["d1", 2.5]]', r"null is no id of a query"),
        ('["q2", ["d1", 1], [1, 2], ["d1", 3]]', r"passage 'd1' is there twice"),
        ('["q2", [["d1", 1], ["d1", 3]]]', r"passage 'd1' is there twice"),
        (GOOD, r"query 'q1' has a list on line 1 already"),
    ],
)
def test_malformed_lines(path: Path, line: str | bytes, message: str) -> None:
    path.write_bytes(GOOD.encode() + b"\n\n" + (line if isinstance(line, bytes) else line.encode()) + b"\n")
    with pytest.raises(InputError, match=rf"scores\.jsonl:3: .*{message}") as error:
        list(read_scores(path))
    assert "\n" not in str(error.value)


def test_files_that_are_not_there_empty_or_damaged(path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        list(read_scores(path))
    path.write_text("\n \n")
    with pytest.raises(InputError, match="the file is empty, expected"):
        list(read_scores(path))
    packed = gzip.compress("".join(json.dumps([i, [1, i / 7]]) + "\n" for i in range(4000)).encode())
    for damaged in (packed[: len(packed) // 2], packed[:-8] + bytes(8), b"\x1f\x8b" + bytes(50)):
        path.write_bytes(damaged)
        with pytest.raises(InputError, match=r"scores\.jsonl: the file is damaged"):
            list(read_scores(path))
