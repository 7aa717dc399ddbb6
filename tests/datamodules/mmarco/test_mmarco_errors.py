from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from datamodules.mmarco.datamodule import MMarcoDataModule
from foundations.errors import InputError
from tests.datamodules.mmarco.layout import SCORES, built, qids


def hindi(kind: str, split: str = "train") -> str:
    if kind == "passages":
        return "google/collections/hindi_collection.tsv"
    return f"google/queries/{split.partition('.')[0]}/hindi_queries.{split}.tsv"


@pytest.mark.parametrize(
    ("name", "line", "options", "message"),
    [
        (hindi("queries"), "77777", {}, r"queries\.train\.tsv:21: found 1 column, expected 2: id<TAB>text"),
        (hindi("queries"), "1\ta\tb", {}, r"hindi_queries\.train\.tsv:21: found 3 columns, expected 2"),
        (hindi("queries"), b"1\t\xff", {}, r"hindi_queries\.train\.tsv:21: invalid UTF-8"),
        (hindi("queries"), "qid\tquery", {}, r"train\.tsv:21: the id is 'qid', expected id<TAB>text with a number"),
        (hindi("queries"), "1\ta", {}, r"train\.tsv:21: there is no English text with the id '1' in .*english_quer"),
        (hindi("passages"), "\ta", {"pairs": "passages"}, r"hindi_collection\.tsv:41: the id is ''"),
        (hindi("passages"), "0\ta", {"direction": "en-x"}, r"tion\.tsv:41: the id '0' is already that of line 1"),
        ("google/collections/english_collection.tsv", "0\ta", {}, r"tion\.tsv:41: the id '0' is already that of li"),
        ("google/collections/english_collection.tsv", "0 a", {}, r"english_collection\.tsv:41: found 1 column"),
        ("qrels.dev.tsv", "{query}\t0\t1\thigh", {}, r"qrels\.dev\.tsv:13: the grade is 'high'"),
        ("qrels.dev.tsv", "{query} 0", {}, r"qrels\.dev\.tsv:13: found 2 columns"),
        ("triples.train.ids.small.tsv", "1\t2", {"pairs": "triples"}, r"small\.tsv:41: found 2 columns, expected 3"),
        ("triples.train.ids.small.tsv", "1\tx\t2", {"pairs": "triples"}, r"small\.tsv:41: found '1\\tx\\t2', expected"),
        ("triples.train.ids.small.tsv", "1\t2\t3", {"pairs": "triples"}, r"small\.tsv:41: unknown query '1': .*queri"),
        ("triples.train.ids.small.tsv", "{train}\t2\t99", {"pairs": "triples"}, r"ll\.tsv:41: unknown passage '99'"),
    ],
)
def test_wrong_lines(folder: Path, name: str, line: str | bytes, options: dict, message: str) -> None:
    ids = {"query": qids()["dev.small"][0], "train": qids()["train"][0]}
    content = line if isinstance(line, bytes) else line.format(**ids).encode()
    with (folder / name).open("ab") as file:
        file.write(content + b"\n")
    with pytest.raises(InputError, match=message) as error:
        list(built(folder, **options).pairs)
    assert "\n" not in str(error.value)


def test_judgments_of_unknown_ids_are_counted(folder: Path) -> None:
    before = built(folder).collections["test"]
    with (folder / "qrels.dev.small.tsv").open("a") as file:
        file.write(f"1\t0\t1\t1\n{qids()['dev.small'][0]}\t0\t99999\t1\n")
    with pytest.warns(UserWarning, match=r"dev\.small\.tsv: 1 judged") as caught:
        after = built(folder).collections["test"]
    messages = " ".join(str(each.message) for each in caught)
    assert "queries, such as '1'" in messages
    assert "such as '99999', are not in the collection" in messages
    assert after.queries == before.queries
    assert dict(after.documents) == dict(before.documents)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("qrels.dev.tsv", {}),
        ("qrels.dev.small.tsv", {}),
        ("triples.train.ids.small.tsv", {"pairs": "triples"}),
        (hindi("queries"), {}),
        (hindi("queries", "dev"), {}),
        (hindi("passages"), {"direction": "en-x"}),
    ],
)
def test_missing_and_empty_files(folder: Path, name: str, options: dict) -> None:
    (folder / name).write_text("\n\n")
    with pytest.raises(InputError, match=rf"{Path(name).name}: the file is empty"):
        built(folder, **options)
    (folder / name).unlink()
    with pytest.raises(InputError, match=rf"{Path(name).name}: no such file"):
        built(folder, **options)


def test_a_clone_without_its_large_files(folder: Path) -> None:
    path = folder / "google" / "collections" / "english_collection.tsv"
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:4d7a214614ab2935\nsize 3060000000\n")
    with pytest.raises(InputError, match=r"english_collection\.tsv: this is a pointer of Git LFS, .*git lfs pull"):
        built(folder)


def test_no_dev_query_outside_the_reported_ones(folder: Path) -> None:
    shutil.copy(folder / "qrels.dev.small.tsv", folder / "qrels.dev.tsv")
    with pytest.raises(InputError, match=r"qrels\.dev\.tsv: judges no query outside qrels\.dev\.small\.tsv"):
        built(folder)


def test_wrong_folders(official: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nothing: no such folder, expected one with a folder 'google' in it"):
        built(tmp_path / "nothing")
    with pytest.raises(InputError, match="no folder 'helsinki' in it"):
        built(official / "google", version=1, language="de")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"language": "sw"}, "mMARCO version 2 has no language 'sw', expected one of ar, de,"),
        ({"language": "hi", "version": 1}, r"1 has no language 'hi' \(version 2 has it\), expected one of de, es"),
        ({"language": "en"}, "has no language 'en'"),
        ({"version": 3}, "no version 3, expected 1"),
        ({"direction": "hi-en"}, "direction is 'hi-en', expected one of x-en, en-x, x-x"),
        ({"pairs": "documents"}, "pairs is 'documents', expected one of queries, passages, both"),
        ({"pairs": "queries", "scores": "f"}, "scores give candidates for pairs=triples, not for queries"),
        ({"candidates": 8}, "candidates is 8, but only lists with scores can be cut"),
        ({"dev_queries": -1}, "dev_queries is -1"),
        ({"test_documents": -1}, "test_documents is -1"),
    ],
)
def test_wrong_options(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MMarcoDataModule(**options)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('["1", ["2", 0.5]]', r"scores\.jsonl:3: unknown query '1'"),
        ('["{0}", ["99", 0.5]]', r"scores\.jsonl:3: unknown passage '99'"),
        ('["{0}", ["x", 0.5]]', r"scores\.jsonl:3: unknown passage 'x'"),
        ('["{0}", ["2", "high"]]', r"scores\.jsonl:3: the score"),
        ('["{0}"', r"scores\.jsonl:3: invalid JSON"),
        ('["{0}"]', r"scores\.jsonl:3: the list names no passage"),
    ],
)
def test_wrong_scores(official: Path, tmp_path: Path, line: str, message: str) -> None:
    path, train = tmp_path / "scores.jsonl", qids()["train"]
    path.write_text(SCORES.format(*train) + line.format(*train))
    with pytest.raises(InputError, match=message):
        list(built(official, scores=str(path)).pairs)


def test_errors_of_the_command_line(folder: Path, script, tiny_models: Path, tmp_path: Path) -> None:
    words = ["--data", "mmarco", "--data.root", folder, "--config", tiny_models, "--logger", "none"]
    (folder / "qrels.dev.tsv").write_text("1 0\n")
    done = script("train.py", *words, "--output", tmp_path, "--name", "run")
    assert done.status == 2
    assert done.err.strip().endswith("qrels.dev.tsv:1: found 2 columns, expected 'query 0 document grade' or "
                                     "'query document grade', separated by spaces or tabs")  # fmt: skip
    assert not (tmp_path / "run").exists()
    done = script("train.py", *words, "--data.language", "sw")
    assert (done.status, done.err.splitlines()) == (
        2, ["train.py: error: mMARCO version 2 has no language 'sw', expected one of ar, de, es, fr, hi, id, it, ja, "
            "nl, pt, ru, vi, zh"],
    )  # fmt: skip
