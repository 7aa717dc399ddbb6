from __future__ import annotations

import bz2
import gzip
import json
import lzma
from itertools import product
from pathlib import Path

import pytest

from datamodules.lines import TextStore
from datamodules.sources import PairSource
from datamodules.text import hash_share
from datamodules.tsv import TSVDataModule
from foundations.errors import InputError
from lightning_modules.distillation import teacher_texts
from lightning_modules.evaluation.callback import RetrievalEvaluation

IDS = [f"q{i}" for i in range(40)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    lines = {
        "pairs.tsv": [f"source {i}\ttarget {i}" for i in range(8)] + ["Source 0\tother"],
        "queries.tsv": [f"{i}\tswali {i}" for i in IDS],
        "documents.tsv": [f"d{i}\tdocument {i}" for i in range(4)],
        "qrels": [f"{i} 0 d{n % 4} {1 + n % 2}" for n, i in enumerate(IDS)],
    }
    for name, content in lines.items():
        (tmp_path / name).write_text("\n".join(content) + "\n", encoding="utf-8")
    return tmp_path


def built(root: Path, **options) -> TSVDataModule:
    data = TSVDataModule(str(root), batch_size=2, **options)
    data.setup()
    return data


def append(path: Path, text: str | bytes) -> None:
    with path.open("ab") as file:
        file.write(text if isinstance(text, bytes) else text.encode())


def test_reads_the_folder(folder: Path) -> None:
    data = built(folder)
    assert (data.pairs[1].source, data.pairs[1].target) == ("source 1", "target 1")
    assert data.pairs[8].id == data.pairs[0].id
    assert len(data.pairs) == 9
    test, dev = data.collections["test"], data.collections["dev"]
    assert test.queries.keys() == test.qrels.keys()
    assert test.qrels["q1" if "q1" in test.qrels else "q3"] in ({"d1": 2}, {"d3": 2})
    assert test.documents == dev.documents == {f"d{i}": f"document {i}" for i in range(4)}
    assert (test.query_side, test.document_side) == ("student", "teacher")
    assert "english" not in data.collections


def test_dev_is_a_share_by_the_hash_of_the_id(folder: Path) -> None:
    collections = built(folder, dev_share=0.3).collections
    assert set(collections["dev"].queries) == {i for i in IDS if hash_share(i, "tsv dev") < 0.3}
    assert set(collections["test"].queries) == {i for i in IDS if hash_share(i, "tsv dev") >= 0.3}


def test_own_dev_files(folder: Path) -> None:
    (folder / "dev.queries.tsv").write_text("q1\tanother text\n")
    (folder / "dev.qrels").write_text("q1 0 d0 1\n")
    collections = built(folder).collections
    assert collections["dev"].queries == {"q1": "another text"}
    assert set(collections["test"].queries) == set(IDS)


def test_dev_judgments_of_queries_in_the_same_file(folder: Path) -> None:
    append(folder / "queries.tsv", "extra\tswali\n")
    (folder / "dev.qrels").write_text("extra 0 d0 1\n")
    assert built(folder).collections["dev"].queries == {"extra": "swali"}
    append(folder / "dev.qrels", "q7 0 d0 1\n")
    with pytest.raises(InputError, match=r"dev\.qrels: query 'q7' is in the test qrels as well \(1 such"):
        built(folder)


def test_english_twin_of_the_queries(folder: Path) -> None:
    (folder / "queries.english.tsv").write_text("".join(f"{i}\tquery {i}\n" for i in IDS))
    english, test = (built(folder).collections[name] for name in ("english", "test"))
    assert english.queries == {i: f"query {i}" for i in test.queries}
    assert english.qrels == test.qrels
    assert english.query_side == english.document_side == "teacher"
    (folder / "queries.english.tsv").write_text("".join(f"{i}\tquery {i}\n" for i in IDS if i != max(test.queries)))
    with pytest.raises(InputError, match=rf"english\.tsv: no line for '{max(test.queries)}' \(1 of"):
        built(folder)


def test_english_twin_of_the_documents(folder: Path) -> None:
    sides = {"query_side": "teacher", "document_side": "student"}
    assert "english" not in built(folder, **sides).collections
    (folder / "documents.english.tsv").write_text("".join(f"d{i}\tin English {i}\n" for i in range(4)))
    collections = built(folder, **sides).collections
    assert collections["english"].documents["d2"] == "in English 2"
    assert collections["english"].queries == collections["test"].queries
    assert collections["test"].document_side == "student"


def test_forms_that_are_accepted(folder: Path) -> None:
    """A byte order mark, Windows line ends, empty lines, decomposed letters, spaces around."""
    content = "\ufeff tree \t mti\r\n\r\ncafe\u0301\tb\n   \n"
    (folder / "pairs.tsv").write_bytes(content.encode())
    assert [(pair.source, pair.target) for pair in built(folder).pairs] == [("tree", "mti"), ("caf\u00e9", "b")]


def test_unjudged_queries_are_left_out_with_a_warning(folder: Path) -> None:
    append(folder / "queries.tsv", "extra\tswali\n")
    with pytest.warns(UserWarning, match="1 queries have no judgments"):
        data = built(folder)
    assert "extra" not in {**data.collections["test"].queries, **data.collections["dev"].queries}


@pytest.mark.parametrize(
    ("name", "line", "message"),
    [
        ("pairs.tsv", "only one column", r"pairs\.tsv:10: found 1 column, expected 2: source<TAB>target"),
        ("pairs.tsv", "a\tb\tc", r"pairs\.tsv:10: found 3 columns, expected 2"),
        ("pairs.tsv", b"a\t\xff", r"pairs\.tsv:10: invalid UTF-8"),
        ("queries.tsv", "q41\t", r"queries\.tsv:41: the second column is empty"),
        ("queries.tsv", "q3\tagain", r"queries\.tsv:41: the id 'q3' is already that of line 4"),
        ("queries.tsv", "a b\ttext", r"queries\.tsv:41: the id 'a b' holds white space"),
        ("documents.tsv", "d9", r"documents\.tsv:5: found 1 column, expected 2: id<TAB>text"),
        ("documents.tsv", "d0\tagain", r"documents\.tsv:5: the id 'd0' is already that of line 1"),
        ("qrels", "q1 0 d0 high", r"qrels:41: the grade is 'high'"),
        ("qrels", "q1 0 d1 1", r"qrels:41: document 'd1' is judged twice"),
    ],
)
def test_wrong_lines(folder: Path, name: str, line: str | bytes, message: str) -> None:
    append(folder / name, line)
    with pytest.raises(InputError, match=message) as error:
        built(folder)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["pairs.tsv", "queries.tsv", "documents.tsv", "qrels"])
def test_missing_and_empty_files(folder: Path, name: str) -> None:
    (folder / name).write_text("\n\n")
    with pytest.raises(InputError, match=rf"{name}: the file is empty, expected"):
        built(folder)
    (folder / name).unlink()
    with pytest.raises(InputError, match=rf"{name}: no such file"):
        built(folder)


def test_missing_folder_and_missing_chosen_files(folder: Path) -> None:
    with pytest.raises(InputError, match=r"no such folder, expected one with pairs\.tsv"):
        built(folder / "elsewhere")
    for option in ("dev_queries", "dev_qrels", "english_queries"):
        with pytest.raises(InputError, match=r"chosen\.tsv: (no such file|there are dev queries without)"):
            built(folder, **{option: "chosen.tsv"})


def test_files_with_other_names(folder: Path) -> None:
    (folder / "pairs.tsv").rename(folder / "bitext.tsv")
    assert len(built(folder, pairs="bitext.tsv", qrels=str(folder / "qrels")).pairs) == 9


def test_too_few_queries_for_dev(folder: Path) -> None:
    (folder / "qrels").write_text("q0 0 d0 1\n")
    with pytest.raises(InputError, match="qrels: 1 judged queries are too few to take 25% of them for dev"):
        built(folder)


def test_wrong_options(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"dev_share is 1\.5"):
        TSVDataModule(str(tmp_path), dev_share=1.5)
    with pytest.raises(ValueError, match="both 'teacher'"):
        TSVDataModule(str(tmp_path), query_side="teacher")


def test_nothing_is_read_before_setup(tmp_path: Path) -> None:
    TSVDataModule(str(tmp_path / "nothing here"))


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POTSTILL_CACHE", str(tmp_path / "cache"))


@pytest.mark.usefixtures("cache")
def test_files_that_stay_on_disk_hold_the_same(folder: Path) -> None:
    (folder / "queries.english.tsv").write_text("".join(f"{i}\tenglish {i}\n" for i in reversed(IDS)))
    (folder / "documents.english.tsv").write_text("".join(f"d{i}\tenglish {i}\n" for i in range(4)))
    sides = {"query_side": "teacher", "document_side": "student"}
    for options in ({}, sides):
        whole, stream = built(folder, **options), built(folder, stream=True, **options)
        assert [(pair.source, pair.target) for pair in stream.pairs] == [
            (pair.source, pair.target) for pair in whole.pairs
        ]
        ids = [pair.id for pair in stream.pairs]
        assert ids[8] == ids[0]
        assert len(set(ids)) == 8
        assert isinstance(stream.pairs, PairSource)
        assert stream.collections == whole.collections
        assert all(isinstance(each.documents, TextStore) for each in stream.collections.values())
        streamed, read = (
            set(teacher_texts(data, RetrievalEvaluation().teacher_sides(data.collections))) for data in (stream, whole)
        )
        assert streamed < read


@pytest.mark.usefixtures("cache")
def test_large_files_stay_on_disk_by_themselves(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(built(folder).pairs, list)
    size = (folder / "queries.tsv").stat().st_size
    monkeypatch.setattr("datamodules.text_files._IN_MEMORY", size)
    append(folder / "pairs.tsv", "a\tb\n" * size)
    data = built(folder)
    assert isinstance(data.pairs, PairSource)
    assert isinstance(data.collections["test"].documents, dict)
    assert isinstance(built(folder, stream=False).pairs, list)


@pytest.mark.usefixtures("cache")
@pytest.mark.parametrize(
    ("name", "line"),
    [
        *product(["pairs.tsv", "queries.tsv", "documents.tsv"], [b"one column\n", b"a\tb\tc\n", b"a\t\xff\n"]),
        *product(["queries.tsv", "documents.tsv"], [b"\tempty\n", b"empty\t \n"]),
    ],
)
def test_streams_refuse_the_same_lines_with_the_same_words(folder: Path, name: str, line: bytes) -> None:
    append(folder / name, b"\n" + line)
    messages = []
    for stream in (False, True):
        with pytest.raises(InputError, match=rf"{name}:\d+: ") as error:
            built(folder, stream=stream)
        messages.append(str(error.value))
    assert messages[0] == messages[1]


@pytest.mark.usefixtures("cache")
@pytest.mark.parametrize("stream", [False, True])
def test_a_pair_without_a_text_is_left_out(folder: Path, stream: bool) -> None:
    before = [(pair.source, pair.target) for pair in built(folder).pairs]
    append(folder / "pairs.tsv", "\tb\n" + "a\t \n" * 4)
    with pytest.warns(
        UserWarning, match=r"pairs\.tsv: 5 pairs lack a text and are left out \(line 10, 11, 12, \.\.\.\)$"
    ):
        data = built(folder, stream=stream)
    assert isinstance(data.pairs, PairSource) == stream
    assert [(pair.source, pair.target) for pair in data.pairs] == before


@pytest.mark.usefixtures("cache")
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("pack", [None, gzip.compress, bz2.compress, lzma.compress])
def test_every_file_may_be_compressed(folder: Path, pack, stream: bool) -> None:
    plain = built(folder)
    (folder / "queries.english.tsv").write_text("".join(f"{i}\tquery {i}\n" for i in IDS))
    for path in list(folder.glob("*")) if pack else []:
        if path.is_file():
            path.with_name(f"{path.name}.{ {gzip.compress: 'gz', bz2.compress: 'bz2'}.get(pack, 'xz') }").write_bytes(
                pack(path.read_bytes())
            )
            path.unlink()
    packed = built(folder, stream=stream)
    assert [pair.source for pair in packed.pairs] == [pair.source for pair in plain.pairs]
    assert packed.collections["test"] == plain.collections["test"]
    assert len(packed.collections["english"].queries) == len(packed.collections["test"].queries)


def test_headers_are_recognised_and_said(folder: Path) -> None:
    plain = built(folder)
    for name, header in {
        "pairs.tsv": "English\tSwahili",
        "queries.tsv": "id\ttext",
        "documents.tsv": "docid\tTitle",
    }.items():
        content = (folder / name).read_text()
        (folder / name).write_text(f"{header}\n{content}")
    with pytest.warns(UserWarning, match="is a header") as caught:
        data = built(folder)
    assert len({str(each.message) for each in caught}) == 3
    assert [pair.source for pair in data.pairs] == [pair.source for pair in plain.pairs]
    assert data.collections == plain.collections


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("nobody 0 d0 1\nnobody 0 d1 0", r"1 judged queries, such as 'nobody', .* \(2 judgments, 1 of them relevant\)"),
        ("nobody 0 d0 0", r"1 judged queries, such as 'nobody', .* \(1 judgments, 0 of them relevant\)"),
        ("q1 0 nothing 1", r"1 judged documents, 1 of them relevant, such as 'nothing', are not in the collection"),
        ("q1 0 nothing 0", r"1 judged documents, 0 of them relevant, such as 'nothing', are not in the collection"),
    ],
)
def test_judgments_of_unknown_ids_are_counted(folder: Path, line: str, message: str) -> None:
    plain = built(folder).collections
    append(folder / "qrels", f"{line}\n")
    with pytest.warns(UserWarning, match=rf"qrels: {message}"):
        collections = built(folder).collections
    assert all("nobody" not in each.qrels and each.queries == plain[name].queries for name, each in collections.items())


@pytest.mark.usefixtures("cache")
@pytest.mark.parametrize("stream", [False, True])
def test_a_folder_of_beir_is_read_as_it_is(folder: Path, tmp_path: Path, stream: bool) -> None:
    beir = tmp_path / "beir"
    (beir / "qrels").mkdir(parents=True)
    corpus = [
        {"_id": f"d{i}", "title": None if i == 1 else "", "text": f"document {i}", "metadata": {}} for i in range(4)
    ]
    queries = [{"_id": i, "text": f"swali {i}"} for i in IDS]
    for name, rows in {"corpus.jsonl": corpus, "queries.jsonl": queries}.items():
        (beir / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    judged = (folder / "qrels").read_text().splitlines()
    for name, lines in {"dev.tsv": judged[:10], "test.tsv": judged[10:]}.items():
        rows = [[query, document, grade] for query, _, document, grade in map(str.split, lines)]
        content = "".join("\t".join(row) + "\n" for row in [["query-id", "corpus-id", "score"], *rows])
        (beir / "qrels" / name).write_text(content)
    data = built(beir, pairs=str(folder / "pairs.tsv"), stream=stream)
    assert data.collections["test"].documents == {f"d{i}": f"document {i}" for i in range(4)}
    assert list(data.collections["dev"].queries) == IDS[:10]
    assert list(data.collections["test"].queries.values()) == [f"swali {i}" for i in IDS[10:]]


@pytest.mark.usefixtures("cache")
def test_streams_refuse_ids_and_missing_files_as_well(folder: Path) -> None:
    append(folder / "documents.tsv", "d1\tagain\n")
    with pytest.raises(InputError, match=r"documents.tsv:5: the id 'd1' is already that of line 2"):
        built(folder, stream=True)
    (folder / "pairs.tsv").unlink()
    for stream in (None, True):
        with pytest.raises(InputError, match=r"pairs.tsv: no such file"):
            built(folder, stream=stream)
