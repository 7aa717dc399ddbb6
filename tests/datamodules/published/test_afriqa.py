"""AfriQA as its authors publish it, and bitext by name."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from datamodules.bitext.published import bitext_pairs
from datamodules.published.afriqa import AfriQADataModule
from foundations.errors import InputError
from tests.datamodules.published.afriqa_layout import (
    COUNT,
    PASSAGES,
    english,
    question,
    write_afriqa,
    write_lines,
    write_ntrex,
    write_tico19,
)

WITH_PASSAGE = [number for number in range(0, COUNT, 2) if number != 6]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_afriqa(tmp_path / "afriqa")


def all_questions(language: str, *parts: str) -> set[str]:
    return {question(language, part, number) for part in parts for number in range(COUNT)}


def test_documents_are_the_passages_of_all_languages_and_splits_each_once(root: Path) -> None:
    texts = [
        ("" if number == 4 else f"Title {language} ") + f"passage {part} {0 if number == 2 else number}"
        for language, parts in PASSAGES.items()
        for part in parts
        for number in WITH_PASSAGE
    ]
    for collection in AfriQADataModule(str(root), "hau").load_collections().values():
        assert sorted(collection.documents.values()) == sorted(set(texts))
        assert collection.document_side == "teacher"


@pytest.mark.parametrize("language", list(PASSAGES))
def test_each_query_finds_the_passage_of_its_line(root: Path, language: str) -> None:
    for split, collection in AfriQADataModule(str(root), language).load_collections().items():
        for query, text in collection.queries.items():
            part, number = query.split("-")
            assert text == (english if split == "english" else question)(language, part, int(number))
            (relevant,) = collection.qrels[query]
            assert collection.documents[relevant].endswith(f"passage {part} {0 if number == '2' else number}")
        assert collection.query_side == ("teacher" if split == "english" else "student")


def test_splits_and_pairs_where_dev_has_passages(root: Path) -> None:
    data = AfriQADataModule(str(root), "ha")
    collections = data.load_collections()
    assert list(collections["dev"].queries) == [f"dev-{number}" for number in WITH_PASSAGE]
    assert list(collections["test"].queries) == list(collections["english"].queries)
    assert list(collections["test"].queries) == [f"test-{number}" for number in WITH_PASSAGE]
    held_out = {question("hau", "dev", number) for number in WITH_PASSAGE}
    assert {pair.target for pair in data.load_pairs()} == all_questions("hau", "train", "dev") - held_out
    assert all(pair.source == pair.target.replace("swali", "question") for pair in data.load_pairs())


def test_dev_is_half_of_the_train_questions_or_a_share_of_the_test_questions_elsewhere(root: Path) -> None:
    data = AfriQADataModule(str(root), "yo")
    dev = data.load_collections()["dev"]
    assert 0 < len(dev.queries) < len(WITH_PASSAGE)
    assert {query.split("-")[0] for query in dev.queries} == {"train"}
    known = all_questions("yor", "train", "dev")
    assert {pair.target for pair in data.load_pairs()} == known - set(dev.queries.values())
    data = AfriQADataModule(str(root), "SW")
    dev, test = data.load_collections()["dev"], data.load_collections()["test"]
    assert sorted([*dev.queries, *test.queries]) == sorted(f"test-{number}" for number in WITH_PASSAGE)
    assert dev.queries
    assert {pair.target for pair in data.load_pairs()} == all_questions("swa", "train", "dev")


def test_a_train_question_that_the_test_asks_as_well_is_no_pair(root: Path) -> None:
    path = root / "data/queries/hau/queries.afriqa.hau.en.train.json"
    asked = question("hau", "test", 0).upper()
    names = ("id", "question", "translated_question")
    lines = [(0, asked, "x"), (1, "a", "b"), (2, None, "c")]
    write_lines(path, [dict(zip(names, line, strict=True)) for line in lines])
    targets = [pair.target for pair in AfriQADataModule(str(root), "hau").load_pairs()]
    assert "a" in targets
    assert not {asked, ""} & set(targets)


def test_bitext_by_name_and_from_a_file(root: Path, tmp_path: Path) -> None:
    sources = f"ntrex:{write_ntrex(tmp_path / 'n')}, tico19:{write_tico19(tmp_path / 't')}"
    (tmp_path / "en-swa.tsv").write_text("one\tmoja\n", encoding="utf-8")
    plain = AfriQADataModule(str(root), "swa").load_pairs()
    data = AfriQADataModule(str(root), "swa", bitext=sources, pairs=str(tmp_path / "en-{language}.tsv"))
    added = [(pair.source, pair.target) for pair in data.load_pairs()[len(plain) :]]
    assert added == [("news one", "habari 1"), ("news three", "habari 3"), ("fever", "homa"), ("one", "moja")]
    assert data.load_pairs()[: len(plain)] == plain


def test_a_source_without_the_language_is_passed_over(tmp_path: Path) -> None:
    write_tico19(tmp_path / "t/data/TM", "ha")
    sources = f"ntrex:{write_ntrex(tmp_path / 'n', 'swa')}/NTREX-128,tico19:{tmp_path}/t"
    with pytest.warns(UserWarning, match="ntrex is passed over: it has no hau, only swa"):
        assert bitext_pairs(sources, "hau") == [("fever", "homa")]


def test_wrong_bitext_is_told(tmp_path: Path) -> None:
    for sources, message in (
        ("ntrx:x", r"bitext is 'ntrx:x', expected NAME:FOLDER with one of .* ntrex, tico19, did you mean 'ntrex'\?"),
        ("ntrex", "bitext is 'ntrex', expected NAME:FOLDER"),
        (f"ntrex:{tmp_path}/no", "no: no such folder"),
        (f"tico19:{tmp_path}", r"the folder has no file all.en-\*.tmx"),
    ):
        with pytest.raises(InputError, match=message):
            bitext_pairs(sources, "swa")
    (write_ntrex(tmp_path) / "NTREX-128/newstest2019-ref.swa.txt").write_text("habari\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"ref.swa.txt: 1 lines, expected 3 as in newstest2019-src.eng.txt"):
        bitext_pairs(f"ntrex:{tmp_path}", "swa")


def test_wrong_folders_languages_and_lines_are_told(root: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"data.language is 'zul', expected one of hau, swa, yor"):
        AfriQADataModule(str(root), "zul").load_pairs()
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"no such file; it is part of AfriQA"):
        AfriQADataModule(str(tmp_path / "empty")).load_pairs()
    path = root / "data/gold_passages/swa/gold_span_passages.afriqa.swa.en.test.json"
    first = path.read_text(encoding="utf-8").splitlines()[0]
    for second, message in (
        (json.dumps({"id": "1", "context": 3}), "test.json:2: a field is missing or no string, expected a JSON object"),
        ("[1]", "test.json:2: a field is missing"),
        (first, "test.json:2: .*'0'"),
    ):
        path.write_text(f"{first}\n{second}\n", encoding="utf-8")
        with pytest.raises(InputError, match=message):
            AfriQADataModule(str(root), "hau").load_collections()
