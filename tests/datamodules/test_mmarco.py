from __future__ import annotations

import gzip
import json
import shutil
import sys
from pathlib import Path

import pytest

from datamodules.mmarco import MMarcoDataModule
from datamodules.text import hash_share
from retrieval.errors import InputError
from tests.datamodules import mmarco_layout as layout
from tests.datamodules.mmarco_layout import LANGUAGES, PASSAGES, passage, qids, query, relevant


@pytest.fixture(scope="module")
def official(tmp_path_factory) -> Path:
    return layout.write_official(tmp_path_factory.mktemp("mmarco") / "data")


@pytest.fixture
def folder(official: Path, tmp_path: Path) -> Path:
    """A copy to spoil."""
    return Path(shutil.copytree(official, tmp_path / "data"))


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("POTSTILL_CACHE", str(tmp_path / "cache"))


def built(root: Path | None, **options) -> MMarcoDataModule:
    data = MMarcoDataModule(root=None if root is None else str(root), batch_size=2, **options)
    data.setup()
    return data


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
        ("qrels.dev.small.tsv", "1\t0\t1\t1", {}, r"qrels\.dev\.small\.tsv:6: unknown query '1'"),
        ("qrels.dev.small.tsv", "{query}\t0\t99999\t1", {}, r"qrels\.dev\.small\.tsv:6: unknown document '99999'"),
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
        ({"language": "sw"}, "mMARCO version 2 has no language 'sw': choose from ar, de,"),
        ({"language": "hi", "version": 1}, "version 1 has no language 'hi'; version 2 has it: choose from de, es"),
        ({"language": "en"}, "has no language 'en'"),
        ({"version": 3}, "no version 3: choose 1"),
        ({"direction": "hi-en"}, "direction is 'hi-en', expected one of x-en, en-x, x-x"),
        ({"pairs": "documents"}, "pairs is 'documents', expected one of both, passages"),
        ({"pairs": "queries", "scores": "f"}, "scores give candidates for pairs=triples, not for queries"),
        ({"candidates": 8}, "candidates is 8, but only lists with scores can be cut"),
        ({"dev_queries": -1}, "dev_queries is -1"),
        ({"test_documents": -1}, "test_documents is -1"),
    ],
)
def test_wrong_options(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MMarcoDataModule(**options)


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

    def refuse(*_: object, **__: object) -> None:
        raise requests.exceptions.ConnectionError("no network")

    monkeypatch.setattr(requests.Session, "send", refuse)
    path = tmp_path / "home" / "mmarco" / "v2" / "hindi_collection.tsv"
    path.unlink()
    with pytest.raises(
        InputError, match=r"mmarco/v2/hi: its docs are not there .*hindi_collection\.tsv and save it as"
    ):
        built(None, pairs="passages")


SCORES = """["{0}", ["3", 2.5], ["17", -1.0], ["4", 0.25]]
[{1}, [[5, 1], [6, 0.5]]]
"""


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


def test_train(official: Path, script, tiny_bert, tiny_unigram, tmp_path) -> None:
    config = tmp_path / "tiny.yaml"
    config.write_text(
        f"""\
model:
  teacher:
    class_path: lightning_modules.teacher.OnlineTeacher
    init_args: {{model: {tiny_bert}, max_length: 32}}
  student:
    class_path: lightning_modules.encoder.TransformerEncoder
    init_args: {{model: {tiny_unigram}, max_length: 32}}
trainer: {{max_epochs: 1, accelerator: cpu}}
""",
        encoding="utf-8",
    )
    words = ["--data", "mmarco", "--data.root", official, "--config", config, "--strategy", "mse", "--logger", "none"]
    done = script("train.py", *words, "--data.batch_size", 5, "--output", tmp_path, "--name", "run")
    assert done.status == 0, done.err
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert {"mrr@10", "recall@1000"} <= set(json.dumps(metrics).replace('"', " ").split())
    (official / "qrels.dev.tsv").rename(official / "kept")
    try:
        done = script("train.py", *words, "--output", tmp_path, "--name", "other")
    finally:
        (official / "kept").rename(official / "qrels.dev.tsv")
    assert done.status == 2
    assert done.err.strip().endswith("qrels.dev.tsv: no such file")
    assert not (tmp_path / "other").exists()
