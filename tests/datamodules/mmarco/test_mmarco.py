from __future__ import annotations

import gzip
import json
import pickle
import sys
from pathlib import Path

import pytest

from datamodules.mmarco.datamodule import MMarcoDataModule
from datamodules.text import hash_share
from foundations.errors import InputError
from tests.datamodules.mmarco import layout
from tests.datamodules.mmarco.layout import LANGUAGES, PASSAGES, SCORES, built, passage, qids, query, relevant


def texts_of(data: MMarcoDataModule) -> list[tuple[str, str]]:
    return [(pair.source, pair.target) for pair in data.pairs]


@pytest.mark.parametrize("language", ["hindi", "german", "dutch"])
def test_queries_of_version_2(official: Path, language: str) -> None:
    expected = [(query("english", number), query(language, number)) for number in qids()["train"]]
    assert texts_of(built(official, language=LANGUAGES[language])) == expected


def test_passages_of_version_1(official: Path) -> None:
    data = built(official, language="de", version=1, pairs="passages")
    expected = [(passage("english", n), passage("german", n, "helsinki")) for n in range(PASSAGES)]
    assert texts_of(data) == expected
    assert len({pair.id for pair in data.pairs}) == PASSAGES


def test_both(official: Path) -> None:
    data = built(official, pairs="both")
    queries, passages = (built(official, pairs=kind) for kind in ("queries", "passages"))
    assert sorted(texts_of(data)) == sorted(texts_of(queries) + texts_of(passages))


def test_pairs_go_with_the_direction(official: Path) -> None:
    """What the student will read in the search, unless something else is asked for."""
    kinds = {"x-en": "queries", "en-x": "passages", "x-x": "both"}
    for direction, kind in kinds.items():
        assert MMarcoDataModule(direction=direction).kind == kind
    assert MMarcoDataModule(direction="en-x", pairs="queries").kind == "queries"
    assert MMarcoDataModule(scores="scores.jsonl").kind == "triples"


def test_translations_in_another_order(folder: Path) -> None:
    path = folder / "google" / "collections" / "hindi_collection.tsv"
    lines = path.read_text().splitlines()
    layout.write(path, lines[::-1])
    expected = [(passage("english", n), passage("hindi", n)) for n in reversed(range(PASSAGES))]
    assert texts_of(built(folder, pairs="passages")) == expected


def test_incomplete_translations_are_named(folder: Path) -> None:
    path = folder / "google" / "collections" / "hindi_collection.tsv"
    layout.write(path, [line for line in path.read_text().splitlines() if not line.startswith("3")])
    with pytest.warns(UserWarning, match=r"hindi_collection\.tsv has 29 of the 40 texts of english_collection\.tsv"):
        assert len(MMarcoDataModule(root=str(folder), pairs="passages").load_pairs()) == 29


def test_an_empty_translation_is_an_empty_text(folder: Path) -> None:
    path = folder / "google" / "collections" / "hindi_collection.tsv"
    lines = path.read_text().splitlines()
    layout.write(path, [*lines[:3], "3\t", *lines[4:]])
    assert texts_of(built(folder, pairs="passages"))[3] == (passage("english", 3), "")
    assert built(folder, direction="en-x").collections["test"].documents["3"] == ""


def test_triples(official: Path) -> None:
    data = built(official, pairs="triples")
    pairs, train = list(data.pairs), qids()["train"]
    assert len(pairs) == 2 * len(train)
    first, second, number = pairs[0], pairs[1], train[0]
    assert (first.source, first.target) == (query("english", number), query("hindi", number))
    assert [candidate.id for candidate in first.candidates] == [relevant(number), (relevant(number) + 1) % PASSAGES]
    assert [each.source for each in first.candidates] == [passage("english", each.id) for each in first.candidates]
    assert {each.target for each in first.candidates} == {None}
    assert {each.score for each in first.candidates} == {None}
    assert first.id == second.id != pairs[2].id


@pytest.mark.parametrize("direction", ["en-x", "x-x"])
def test_triples_with_passages_for_the_student(official: Path, direction: str) -> None:
    data = built(official, pairs="triples", direction=direction)
    for pair in data.pairs:
        assert [each.target for each in pair.candidates] == [passage("hindi", each.id) for each in pair.candidates]
        assert [each.source for each in pair.candidates] == [passage("english", each.id) for each in pair.candidates]


@pytest.mark.parametrize("kind", ["both", "triples"])
def test_other_processes_read_the_same(official: Path, kind: str) -> None:
    """Worker processes that are not forked get the pairs by pickle, used before or not."""
    pairs = built(official, pairs=kind, direction="x-x").pairs
    expected = list(pairs)
    assert list(pickle.loads(pickle.dumps(pairs))) == expected


SIDES = {"x-en": ("student", "teacher"), "en-x": ("teacher", "student"), "x-x": ("student", "student")}


@pytest.mark.parametrize("direction", SIDES)
@pytest.mark.parametrize(("version", "folder_name"), [(1, "helsinki"), (2, "google")])
def test_collections(official: Path, direction: str, version: int, folder_name: str) -> None:
    collections = built(official, language="de", version=version, direction=direction).collections
    test, english, splits = collections["test"], collections["english"], qids()
    asks, holds = (("german", "english")[side == "teacher"] for side in SIDES[direction])
    assert (test.query_side, test.document_side) == SIDES[direction]
    assert test.queries == {str(n): query(asks, n, folder_name) for n in splits["dev.small"]}
    assert dict(test.documents) == {str(n): passage(holds, n, folder_name) for n in range(PASSAGES)}
    assert test.qrels == {str(n): {str(relevant(n)): 1} for n in splits["dev.small"]}
    assert (english.query_side, english.document_side, english.qrels) == ("teacher", "teacher", test.qrels)
    assert english.queries == {str(n): query("english", n) for n in splits["dev.small"]}
    assert english.documents["7"] == passage("english", 7)
    assert (english.documents is test.documents) == (direction == "x-en")
    assert collections["dev"].documents == test.documents
    assert "english" not in built(official, direction=direction, ceiling=False).collections


def test_dev_is_a_fixed_choice_of_queries_that_are_not_reported(official: Path) -> None:
    splits = qids()
    rest = {str(number) for number in splits["dev"]} - {str(number) for number in splits["dev.small"]}
    for count in (1, 3, 0):
        dev = built(official, dev_queries=count).collections["dev"]
        chosen = sorted(rest, key=lambda number: hash_share(number, "mmarco dev"))[: count or None]
        assert set(dev.queries) == set(dev.qrels) == set(chosen)
        assert dev.queries == {number: query("hindi", int(number)) for number in chosen}


def test_bounded_documents_hold_the_relevant_ones_and_are_the_same_in_all_languages(official: Path) -> None:
    data = built(official, dev_documents=12, dev_queries=3)
    dev, other = (
        built(official, language=language, direction=direction, dev_documents=12, dev_queries=3).collections["dev"]
        for language, direction in (("hi", "x-en"), ("de", "x-x"))
    )
    assert len(dev.documents) == 12
    assert {document for grades in dev.qrels.values() for document in grades} <= set(dev.documents)
    assert set(dev.documents) == set(other.documents)
    assert len(data.collections["test"].documents) == PASSAGES


def test_a_bounded_test_is_called_not_comparable(official: Path) -> None:
    with pytest.warns(UserWarning, match="NOT comparable with published ones"):
        collections = built(official, test_documents=11).collections
    assert len(collections["test"].documents) == len(collections["english"].documents) == 11
    assert set(collections["test"].documents) == set(collections["english"].documents)


def test_forms_of_the_folder_that_are_accepted(folder: Path) -> None:
    """The folder above ``data``; no English in one of the versions; no own file for dev.small."""
    expected = built(folder).collections["test"].queries
    (folder / "google" / "queries" / "dev" / "hindi_queries.dev.small.tsv").unlink()
    for name in ("collections/english_collection.tsv", "queries/dev/english_queries.dev.small.tsv"):
        (folder / "google" / name).unlink()
    data = built(folder.parent)
    assert data.collections["test"].queries == expected
    assert data.collections["english"].queries.keys() == expected.keys()


def test_dutch_has_two_codes() -> None:
    assert MMarcoDataModule(language="dt").language == MMarcoDataModule(language="NL").language == "nl"


@pytest.fixture
def ir_home(official: Path, tmp_path: Path, monkeypatch) -> None:
    """The same files for ir_datasets, imported anew, since it reads where its home is when it is imported."""
    monkeypatch.setenv("IR_DATASETS_HOME", str(layout.write_ir_home(tmp_path / "home", official)))
    for name in [name for name in sys.modules if name.partition(".")[0] == "ir_datasets"]:
        monkeypatch.delitem(sys.modules, name)
    yield
    for name in [name for name in sys.modules if name.partition(".")[0] == "ir_datasets"]:
        del sys.modules[name]


def collections_of(data: MMarcoDataModule) -> dict:
    return {name: (dict(each.queries), dict(each.documents), each.qrels) for name, each in data.collections.items()}


@pytest.mark.parametrize(
    ("version", "language", "name", "part"),
    [
        (1, "pt", "mmarco/pt", "dev/small/v1.1"),
        (1, "zh", "mmarco/zh", "dev/small/v1.1"),
        (1, "de", "mmarco/de", "dev/small"),
        (2, "hi", "mmarco/v2/hi", "dev/small"),
        (2, "nl", "mmarco/v2/dt", "dev/small"),
    ],
)
def test_the_same_through_ir_datasets(
    ir_home: None, official: Path, version: int, language: str, name: str, part: str
) -> None:
    import ir_datasets

    options = {"language": language, "version": version}
    local, remote = (built(root, direction="x-x", **options) for root in (official, None))
    assert list(local.pairs) == list(remote.pairs)
    assert collections_of(local) == collections_of(remote)
    triples = (built(root, pairs="triples", **options).pairs for root in (official, None))
    assert list(next(triples)) == list(next(triples))
    # What ir_datasets itself gives.
    queries, documents, qrels = collections_of(remote)["test"]
    small = ir_datasets.load(f"{name}/{part}")
    assert documents == {each.doc_id: each.text for each in ir_datasets.load(name).docs_iter()}
    assert queries == {each.query_id: each.text for each in small.queries_iter()}
    assert qrels == {each.query_id: {each.doc_id: each.relevance} for each in small.qrels_iter()}
    english = {each.doc_id: each.text for each in ir_datasets.load("msmarco-passage").docs_iter()}
    assert collections_of(remote)["english"][1] == english


def test_files_that_ir_datasets_cannot_get(ir_home: None, official: Path, tmp_path: Path, monkeypatch) -> None:
    """Without a network, the message says where to put the file."""
    import requests

    def refuse(_: object, request: requests.PreparedRequest, **__: object) -> None:
        raise requests.exceptions.ConnectionError("no network", request=request)

    monkeypatch.setattr(requests.Session, "send", refuse)
    path = tmp_path / "home" / "mmarco" / "v2" / "hindi_collection.tsv"
    path.unlink()
    with pytest.raises(
        InputError, match=r"mmarco/v2/hi: its documents are not there .*hindi_collection\.tsv and save it as"
    ):
        built(None, pairs="passages")


@pytest.mark.parametrize("name", ["scores.jsonl", "scores.jsonl.gz"])
def test_scores_give_the_candidates(official: Path, tmp_path: Path, name: str) -> None:
    path, train = tmp_path / name, qids()["train"]
    with gzip.open(path, "wt") if name.endswith("gz") else path.open("w") as file:
        file.write(SCORES.format(*train))
    first, second = built(official, scores=str(path)).pairs
    assert (first.source, first.target) == (query("english", train[0]), query("hindi", train[0]))
    assert [(each.id, each.score, each.target) for each in first.candidates] == [
        (3, 2.5, None), (17, -1.0, None), (4, 0.25, None)
    ]  # fmt: skip
    assert [each.source for each in second.candidates] == [passage("english", 5), passage("english", 6)]
    first, second = built(official, scores=str(path), candidates=2, direction="en-x").pairs
    assert [each.target for each in first.candidates] == [passage("hindi", 3), passage("hindi", 17)]


@pytest.mark.parametrize(
    "words",
    [["--strategy", "mse"], ["--strategy", "margin_mse", "--data.pairs", "triples", "--data.direction", "x-x"]],
    ids=lambda words: words[1],
)
def test_train(official: Path, script, tiny_models: Path, tmp_path: Path, words: list[str]) -> None:
    words = [*words, "--data", "mmarco", "--data.root", official, "--config", tiny_models, "--logger", "none"]
    done = script("train.py", *words, "--data.batch_size", 5, "--output", tmp_path, "--name", "run")
    assert done.status == 0, done.err
    means = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert means["test"].keys() == {"mrr@10", "recall@1000"}
    assert means["test"]["recall@1000"] == 1
    assert means["teacher"]["mrr@10"] == 1
