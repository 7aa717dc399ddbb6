"""Texts through ir_datasets itself, from a home folder with the files that it would have downloaded."""

from __future__ import annotations

import gzip
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

from datamodules.published.ir_texts import IrDocuments, ir_qrels, ir_queries, load_dataset
from foundations.errors import InputError
from tests.datamodules.published.hc4_layout import COUPLES, FILTERED, SPLITS, documents, lines, topic, write_hc4

ROOT = Path(__file__).parents[3]
ID = "neuclir/1/fa/hc4-filtered"


@pytest.fixture
def home(ir_home: Path) -> Path:
    write_hc4(ir_home)
    return ir_home


def test_texts_and_grades_are_those_of_the_files(home: Path) -> None:
    dataset = load_dataset(ID)
    texts = IrDocuments(dataset)
    assert list(texts) == [f"{a}-{b}" for a, b in COUPLES if f"{a}-{b}" in FILTERED]
    assert dict(texts) == dict(texts.items())
    assert len(texts) == len(FILTERED)
    assert [texts.item_at(row) for row in (0, 7, len(FILTERED) - 1)] == [list(texts.items())[n] for n in (0, 7, -1)]
    assert list(texts.values()) == list(dict(texts).values())
    assert texts["cat-sun"] == "paka paka jua"  # title and text, white space normalised
    assert "cat-sun" in texts
    assert "cat-mat" not in texts
    assert 3 not in texts
    with pytest.raises(KeyError):
        texts["cat-mat"]
    words = SPLITS["dev"] + SPLITS["test"]
    assert ir_queries(dataset) == {f"t-{word}": word for word in words}
    qrels = ir_qrels(dataset)
    assert qrels["t-big"]["big-cat"] == 3
    assert qrels["t-big"]["cat-big"] == 1
    assert 0 in qrels["t-red"].values()
    assert all(document in FILTERED for grades in qrels.values() for document in grades)


def test_fields(home: Path) -> None:
    dataset = load_dataset(ID)
    assert IrDocuments(dataset, "text")["cat-sun"] == "paka jua"
    assert ir_queries(dataset, "ht_title mt_title")["t-big"] == "kubwa kubwa?"
    for read in (IrDocuments, ir_queries):
        with pytest.raises(ValueError, match=r"no field 'body', expected one of .*title") as error:
            read(dataset, "title body")
        assert not isinstance(error.value, InputError)


def test_documents_are_read_by_forked_and_spawned_processes(home: Path) -> None:
    texts = IrDocuments(load_dataset(ID))
    expected = dict(texts)
    children = []
    for order in (1, -1):
        child = os.fork()
        if child == 0:
            right = all(texts[key] == expected[key] for _ in range(20) for key in list(expected)[::order])
            os._exit(0 if right else 1)
        children.append(child)
    assert all(texts[key] == expected[key] for _ in range(20) for key in expected)
    assert [os.waitpid(child, 0)[1] for child in children] == [0, 0]
    assert dict(pickle.loads(pickle.dumps(texts))) == expected


def test_two_processes_build_one_store(home: Path) -> None:
    program = f"from datamodules.published.ir_texts import *; print(len(IrDocuments(load_dataset({ID!r}))))"
    children = [
        subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE, text=True) for _ in range(2)
    ]
    assert [int(child.communicate()[0]) for child in children] == [len(FILTERED)] * 2
    assert len(list(IrDocuments(load_dataset(ID)))) == len(FILTERED)


def test_ids_that_cannot_be_used(ir_home: Path) -> None:
    for identifier, words in [
        ("neuclir/1/fa/hc4-filterd", ["knows no", ID]),
        ("!", ["knows no", "https://ir-datasets.com"]),
        ("hc4/fa", ["no queries and no qrels", "hc4/fa/dev", "hc4/fa/test"]),
        ("hc4", ["no docs and no queries and no qrels", "hc4/fa/dev"]),
    ]:
        with pytest.raises(InputError) as error:
            load_dataset(identifier)
        assert all(word in str(error.value) for word in words)


@pytest.mark.parametrize("name", ["file", "file/below"])
def test_a_folder_that_cannot_be_used(ir_home: Path, monkeypatch, name: str) -> None:
    (ir_home / "file").write_text("")
    monkeypatch.setenv("IR_DATASETS_HOME", str(ir_home / name))
    with pytest.raises(InputError, match=r"ir_datasets cannot write to its folder: .*; set IR_DATASETS_HOME"):
        ir_queries(load_dataset(ID))


def test_a_file_that_cannot_be_downloaded_is_named_with_its_place(ir_home: Path) -> None:
    for _ in range(2):  # a failure leaves nothing that the next attempt takes for the data
        with pytest.raises(InputError) as error:
            len(IrDocuments(load_dataset("wikiclir/sw")))
        message = str(error.value)
        assert "www.cs.jhu.edu/~kevinduh/a/wikiclir2018/wiki-clir.tar.gz" in message
        assert str(ir_home / "downloads/705abb611eb8cbab9ced2b8767a3bdb6") in message
        assert "IR_DATASETS_HOME" in message
        assert "\n" not in message
        assert "Connection refused" in message
    with pytest.raises(InputError, match=r"its queries .*dev\.topics\.v1-0\.jsonl"):
        ir_queries(load_dataset(ID))
    with pytest.raises(InputError, match=r"trec-spanish/corpus\.tgz"):  # not for download at all
        len(IrDocuments(load_dataset("trec-spanish/trec3")))


def spoil(path: Path, line: int, content: str) -> None:
    rows = path.read_text(encoding="utf-8").splitlines(keepends=True)
    rows[line - 1] = content + "\n"
    path.write_text("".join(rows), encoding="utf-8")


def test_malformed_lines_are_named(home: Path) -> None:
    test, dev = "hc4/fa/test", "hc4/fa/dev"
    for dataset, file, line, content, reason in [
        (test, "hc4/fas/test.qrels.v1-0.txt", 3, "t-red 0 red-cat", "expected 4 columns, got 3"),
        (test, "hc4/fas/test.qrels.v1-0.txt", 4, "t-red 0 red-cat high", "'high'"),
        (dev, "hc4/fas/dev.qrels.v1-0.txt", 2, "t-life\t0\tlife-cat\t3\t4", "got 5"),
        (test, "hc4/test.topics.v1-0.jsonl", 2, "{'topic_id'", "Expecting property name"),
        (ID, "hc4/test.topics.v1-0.jsonl", 2, "{'topic_id'", "Expecting property name"),
    ]:
        good = (home / file).read_bytes()
        spoil(home / file, line, content)
        with pytest.raises(InputError) as error:
            ir_queries(load_dataset(dataset)), ir_qrels(load_dataset(dataset))
        assert str(error.value).startswith(f"{home / file}:{line}: {dataset}: cannot read its ")
        assert reason in str(error.value)
        assert "\n" not in str(error.value)
        (home / file).write_bytes(good)


def test_files_with_other_records_are_named(home: Path) -> None:
    """Only ir_datasets knows what a record holds, so the line is not known."""
    for dataset, file, content, reason in [
        ("hc4/fa/dev", "hc4/dev.topics.v1-0.jsonl", '{"topic_id": "1"}', "languages_with_qrels"),
        ("hc4/fa/test", "hc4/test.topics.v1-0.jsonl", '{"topic_id": "1", "languages_with_qrels": 3}', "not iterable"),
    ]:
        good = (home / file).read_bytes()
        spoil(home / file, 1, content)
        with pytest.raises(InputError) as error:
            ir_queries(load_dataset(dataset))
        assert str(error.value).startswith(f"{home / file}: {dataset}: cannot read its queries: ")
        assert reason in str(error.value)
        with pytest.raises(InputError, match=rf"^{ID}: .*{reason}.* in one of .*dev\.topics.*, .*test\.topics"):
            ir_queries(load_dataset(ID))  # which has two files
        (home / file).write_bytes(good)


def test_malformed_documents_are_named(home: Path) -> None:
    path, good = home / "neuclir/1/fas/docs.jsonl.gz", lines(documents()[:2])
    for line, where, reason in [
        ('{"id": "x", "title": "no text"}\n', "", "missing 4 required"),
        ('"text"\n', "", "string indices"),
        (lines([documents()[2] | {"extra": 1}]), "", "extra"),
        ("{\n", ":3", "Expecting property name"),
    ]:
        path.write_bytes(gzip.compress((good + line).encode()))
        with pytest.raises(InputError) as error:
            len(IrDocuments(load_dataset(ID)))
        assert str(error.value).startswith(f"{path}{where}: {ID}: cannot read its documents: ")
        assert reason in str(error.value)


def test_a_truncated_file_is_an_input_error(home: Path) -> None:
    path = home / "neuclir/1/fas/docs.jsonl.gz"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(InputError, match=r"docs\.jsonl\.gz") as error:
        len(IrDocuments(load_dataset(ID)))
    assert "ended before" in str(error.value)
    path.write_bytes(gzip.compress(lines(documents()).encode()))
    assert len(IrDocuments(load_dataset(ID))) == len(FILTERED)  # the attempt left no half-made store


def test_a_store_of_a_killed_process_is_made_again(home: Path) -> None:
    expected = dict(IrDocuments(load_dataset(ID)))
    store = home / "neuclir/1/fas/docs.jsonl.gz.filtered.pklz4"
    for path in store.glob("idx.*"):  # killed before the index was written
        path.unlink()
    assert "cat-sun" in IrDocuments(load_dataset(ID))
    for path in store.iterdir():  # killed while documents were written
        path.write_bytes(path.read_bytes()[:100]) if path.name == "bin" else path.unlink()
    documents = IrDocuments(load_dataset(ID))
    assert {key: documents[key] for key in expected} == dict(documents) == expected


def test_repeated_queries_and_judgments(home: Path) -> None:
    path = home / "hc4/fas/test.qrels.v1-0.txt"
    path.write_text(path.read_text() + "t-red 0 red-cat 1\nt-red 0 red-sun 3\n")
    with pytest.warns(UserWarning, match="1 judgments repeat others with another grade"):
        assert ir_qrels(load_dataset(ID))["t-red"]["red-cat"] == 3
    topics = home / "hc4/test.topics.v1-0.jsonl"
    topics.write_text(topics.read_text() + lines([topic("cat") | {"topic_id": "t-red"}]))
    with pytest.raises(InputError, match="the query id 't-red' appears twice with other texts"):
        ir_queries(load_dataset(ID))
