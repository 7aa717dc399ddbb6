from __future__ import annotations

from pathlib import Path

import pytest
import torch

from datamodules.pairs import Candidate, Pair, collate, collate_candidates
from datamodules.text import text_id
from datamodules.tsv import TSVDataModule
from foundations.errors import InputError

LISTS = [
    [Candidate("x", "tx", 2.0), Candidate("y"), Candidate("x", "other")],
    [],
    [Candidate("a"), Candidate("y", "ty")],
]


def test_each_text_once_and_each_candidate_at_its_place():
    batch = collate_candidates(["a", "b", "c"], LISTS)
    assert batch.sources == ["x", "y", "a"]
    assert batch.targets == ["tx", "other", "ty"]
    assert batch.listed.tolist() == [[True] * 3, [False] * 3, [True, True, False]]
    for row, column in batch.listed.nonzero().tolist():
        candidate, target = LISTS[row][column], batch.target_index[row, column]
        assert batch.sources[batch.source_index[row, column]] == candidate.source
        assert (batch.targets[target] if target >= 0 else None) == candidate.target
        assert batch.ids[row, column] == text_id(candidate.source)
    assert batch.ids[2, 0] == batch.keys[0]  # the source of the first pair is listed for the third
    assert batch.scores[0, 0] == 2
    assert batch.scores.isnan().sum() == 8


def test_no_scores_no_lists():
    assert collate_candidates(["a"], [[Candidate("x")]]).scores is None
    assert collate_candidates(["a", "b"], [[], []]) is None
    assert collate([Pair("a", "b", 0)]).candidates is None


def test_a_batch_moves_with_its_candidates():
    batch = collate([Pair("a", "b", 7, tuple(LISTS[0])), Pair("c", "d", 8)]).to("meta")
    tensors = [value for value in vars(batch.candidates).values() if isinstance(value, torch.Tensor)]
    assert len(tensors) == 6
    assert {tensor.device.type for tensor in (batch.ids, *tensors)} == {"meta"}
    assert batch.candidates.sources == ["x", "y"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    lines = {
        "pairs.tsv": ["water\tmaji"],
        "queries.tsv": [f"q{i}\tswali {i}" for i in range(40)],
        "documents.tsv": [f"d{i}\tdocument {i}" for i in range(4)],
        "qrels": [f"q{i} 0 d{i % 4} 1" for i in range(40)],
        "train.queries.tsv": ["t1\tred fire\tmoto", "t2\tWater\tmaji mengi", "t3\tcafe\u0301\tkahawa"],
        "candidates.jsonl": ['["t2", ["d3", 1.5], ["d0", -2]]', '["t1", [["d1", 3]]]'],
    }
    for name, content in lines.items():
        (tmp_path / name).write_text("\n".join(content) + "\n", encoding="utf-8")
    return tmp_path


def pairs_of(folder: Path, **options) -> list[Pair]:
    return TSVDataModule(str(folder), **options).load_pairs()


def test_tsv_pairs_and_lists(folder: Path) -> None:
    water, fire, other, coffee = pairs_of(folder)
    assert (fire.source, fire.target) == ("red fire", "moto")
    assert fire.candidates == (Candidate("document 1", None, 3.0),)
    assert other.candidates == (Candidate("document 3", None, 1.5), Candidate("document 0", None, -2.0))
    assert water.candidates == coffee.candidates == ()
    assert coffee.source == "caf\u00e9"
    assert other.id == water.id != fire.id


def test_lists_without_pairs(folder: Path) -> None:
    (folder / "pairs.tsv").unlink()
    assert [pair.source for pair in pairs_of(folder)] == ["red fire", "Water", "caf\u00e9"]


def test_the_student_reads_passages_where_it_reads_the_documents(folder: Path) -> None:
    sides = {"query_side": "teacher", "document_side": "student"}
    with pytest.raises(InputError, match=r"candidates\.jsonl: .*write documents\.english\.tsv"):
        pairs_of(folder, **sides)
    (folder / "documents.english.tsv").write_text("".join(f"d{i}\tin English {i}\n" for i in range(4)))
    assert pairs_of(folder, **sides)[1].candidates == (Candidate("in English 1", "document 1", 3.0),)


def test_files_with_other_names(folder: Path) -> None:
    (folder / "candidates.jsonl").rename(folder / "scores.jsonl")
    assert len(pairs_of(folder)) == 1
    (folder / "train.queries.tsv").rename(folder / "train.tsv")
    assert len(pairs_of(folder, candidates="scores.jsonl", train_queries="train.tsv")) == 4


@pytest.mark.parametrize(
    ("name", "line", "message"),
    [
        ("candidates.jsonl", '["t9", ["d1", 1]]', r"candidates\.jsonl:3: unknown query 't9': .*train\.queries\.tsv"),
        ("candidates.jsonl", '["t3", ["d9", 1]]', r"candidates\.jsonl:3: unknown passage 'd9'"),
        ("candidates.jsonl", '["t3", ["d1", "1"]]', r'candidates\.jsonl:3: the score "1"'),
        ("train.queries.tsv", "t4\tonly", r"train\.queries\.tsv:4: found 2 columns, expected 3: id<TAB>English"),
        ("train.queries.tsv", "t4\t \ttext", r"train\.queries\.tsv:4: the second column is empty"),
        ("train.queries.tsv", "t1\ta\tb", r"train\.queries\.tsv:4: the id 't1' is already that of line 1"),
        ("train.queries.tsv", b"t4\t\xff\tb", r"train\.queries\.tsv:4: invalid UTF-8"),
    ],
)
def test_wrong_lines(folder: Path, name: str, line: str | bytes, message: str) -> None:
    with (folder / name).open("ab") as file:
        file.write(line if isinstance(line, bytes) else line.encode())
    with pytest.raises(InputError, match=message):
        pairs_of(folder)


def test_missing_files(folder: Path) -> None:
    (folder / "train.queries.tsv").unlink()
    with pytest.raises(InputError, match=r"train\.queries\.tsv: no such file"):
        pairs_of(folder)
    (folder / "train.queries.tsv").write_text("a\tb\tc\n")
    with pytest.raises(InputError, match=r"chosen\.jsonl: no such file"):
        pairs_of(folder, candidates="chosen.jsonl")
