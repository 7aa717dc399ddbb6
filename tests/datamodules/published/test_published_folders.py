"""Collections in the layouts in which they are published, read from a folder."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from datamodules.base import PairsDataModule
from datamodules.pairs import make_pairs
from datamodules.published.africlirmatrix import AfriCLIRMatrixDataModule
from datamodules.published.ciral import CIRALDataModule
from datamodules.published.miracl import MIRACLDataModule
from foundations.errors import InputError
from tests.datamodules.published.hc4_layout import COUPLES, WORDS
from tests.datamodules.published.published_layout import ALL, write, write_africlirmatrix, write_ciral, write_miracl

TEXTS = {f"{n}#0": f"Kuhusu {WORDS[a]} {WORDS[a]} {WORDS[b]}" for n, (a, b) in enumerate(COUPLES)}
SWAHILI = list(WORDS.values())


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch) -> Path:
    monkeypatch.setenv("POTSTILL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def bitext(tmp_path: Path) -> str:
    return str(write(tmp_path / "bitext.tsv", "".join(f"{a}\t{b}\n" for a, b in WORDS.items())))


def loaded(data: PairsDataModule) -> PairsDataModule:
    data.remove_leaks = False
    data.setup()
    return data


def words_of(collection) -> list[str]:
    return list(collection.queries.values())


def test_africlirmatrix(tmp_path: Path, bitext: str) -> None:
    write_africlirmatrix(tmp_path)
    data = loaded(AfriCLIRMatrixDataModule(str(tmp_path), "swa", pairs=bitext))
    dev, test = data.collections["dev"], data.collections["test"]
    assert sorted(words_of(dev) + words_of(test)) == sorted(ALL)
    assert dev.queries
    assert (test.query_side, test.document_side) == ("teacher", "student")
    without_title = {key: text.split(" ", 2)[2] for key, text in TEXTS.items()}
    assert dict(test.documents) == without_title
    grades = {grade for collection in (dev, test) for judged in collection.qrels.values() for grade in judged.values()}
    assert grades == {0, 1, 6}
    assert data.pairs == make_pairs(WORDS.items())
    with pytest.warns(UserWarning, match="dev_share is 0"):
        whole = loaded(AfriCLIRMatrixDataModule(str(tmp_path), "Swahili", pairs=bitext, dev_share=0))
    assert words_of(whole.collections["test"]) == ALL
    assert set(words_of(whole.collections["dev"])) <= set(ALL)


def test_ciral(tmp_path: Path, bitext: str) -> None:
    write_ciral(tmp_path)
    pools = loaded(CIRALDataModule(str(tmp_path), "sw", pairs=bitext))
    assert words_of(pools.collections["test"]) == ALL[2:6]
    assert words_of(pools.collections["dev"]) == ALL[:1]
    assert dict(pools.collections["test"].documents) == TEXTS
    assert words_of(loaded(CIRALDataModule(str(tmp_path), test="test-a", pairs=bitext)).collections["test"]) == ALL[2:3]
    assert words_of(loaded(CIRALDataModule(str(tmp_path), test="test-b", pairs=bitext)).collections["test"]) == ALL[6:7]


def test_native_queries_of_ciral_are_for_the_student(tmp_path: Path, bitext: str) -> None:
    write_ciral(tmp_path)
    data = loaded(CIRALDataModule(str(tmp_path), "sw", queries="native", pairs=bitext))
    test, english = data.collections["test"], loaded(CIRALDataModule(str(tmp_path), pairs=bitext)).collections["test"]
    assert words_of(test) == SWAHILI[2:6]
    assert test.queries.keys() == english.queries.keys()
    assert (test.query_side, test.document_side) == ("student", "student")
    assert (english.query_side, english.document_side) == ("teacher", "student")
    chosen = CIRALDataModule(str(tmp_path), queries="native", query_side="teacher", pairs=bitext)
    assert loaded(chosen).collections["dev"].query_side == "teacher"


@pytest.mark.parametrize("grade", [0, 1])
def test_a_stray_judgment_does_not_stop_a_published_set(tmp_path: Path, bitext: str, grade: int) -> None:
    write_ciral(tmp_path)
    before = loaded(CIRALDataModule(str(tmp_path), pairs=bitext)).collections["test"]
    qrels = tmp_path / "ciral-swahili/qrels/qrels.ciral-v1.0-sw-test-a-pools.tsv"
    qrels.write_text(f"{qrels.read_text()}999 Q0 0#0 {grade}\n")
    with pytest.warns(
        UserWarning, match=rf"1 judged queries, such as '999', .* \(1 judgments, {grade} of them relevant"
    ):
        after = loaded(CIRALDataModule(str(tmp_path), pairs=bitext)).collections["test"]
    assert after.qrels == before.qrels
    assert after.queries == before.queries


def test_a_passage_without_a_title(tmp_path: Path, bitext: str) -> None:
    write_ciral(tmp_path)
    passages = tmp_path / "passages-v1.0/swahili_passages.jsonl"
    title, missing, *others = passages.read_text().splitlines()
    records = [json.loads(title) | {"title": None}, {k: v for k, v in json.loads(missing).items() if k != "title"}]
    passages.write_text("\n".join([*map(json.dumps, records), *others]))
    documents = loaded(CIRALDataModule(str(tmp_path), pairs=bitext)).collections["test"].documents
    without = {key: TEXTS[key].split(" ", 2)[2] for key in list(TEXTS)[:2]}
    assert dict(documents) == TEXTS | without


def test_the_bitext_of_each_language_of_a_mixture(tmp_path: Path) -> None:
    write_ciral(tmp_path)
    write(tmp_path / "en-swa.tsv", "cat\tpaka\n")
    data = loaded(CIRALDataModule(str(tmp_path), "sw", pairs=str(tmp_path / "en-{language}.tsv")))
    assert data.pairs == make_pairs([("cat", "paka")])


def test_ciral_as_two_copied_repositories(tmp_path: Path, bitext: str) -> None:
    write_ciral(tmp_path / "root")
    for repository, folder in (("ciral", "ciral-swahili"), ("ciral-corpus", "passages-v1.0")):
        (tmp_path / "root" / repository).mkdir()
        (tmp_path / "root" / folder).rename(tmp_path / "root" / repository / folder)
    passages = tmp_path / "root/ciral-corpus/passages-v1.0/swahili_passages.jsonl"
    passages.with_suffix(".jsonl.gz").write_bytes(gzip.compress(passages.read_bytes()))
    passages.unlink()
    assert dict(loaded(CIRALDataModule(str(tmp_path / "root"), pairs=bitext)).collections["test"].documents) == TEXTS


def test_miracl_trains_on_its_judgments_and_tests_on_its_dev_set(tmp_path: Path, cache: Path) -> None:
    write_miracl(tmp_path)
    data = loaded(MIRACLDataModule(str(tmp_path), "sw"))
    dev, test = data.collections["dev"], data.collections["test"]
    assert list(test.documents.items()) == list(TEXTS.items())  # the parts in the order of their numbers
    assert [test.documents[key] for key in list(TEXTS)[::7]] == list(TEXTS.values())[::7]
    assert "90#0" not in test.documents
    assert [test.documents.item_at(row) for row in range(len(TEXTS))] == list(TEXTS.items())
    assert list(test.documents.values()) == list(TEXTS.values())
    assert words_of(test) == SWAHILI[6:]
    assert (test.query_side, test.document_side) == ("student", "student")
    trained = {pair.source for pair in data.pairs}
    assert dev.queries
    assert trained | set(words_of(dev)) == set(SWAHILI[:6])
    assert not trained & set(words_of(dev))
    expected = sorted(
        (word, TEXTS[key])
        for word in trained
        for key, couple in zip(TEXTS, COUPLES, strict=True)
        if word in (WORDS[couple[0]], WORDS[couple[1]])
    )
    assert sorted((pair.source, pair.target) for pair in data.pairs) == expected
    assert len({pair.id for pair in data.pairs}) == len(trained)
    assert len(list(cache.rglob("docs-*.jsonl"))) == 12  # unpacked once


def test_miracl_without_a_train_set(tmp_path: Path, bitext: str) -> None:
    write_miracl(tmp_path, parts=1)
    for name in ("topics", "qrels"):
        (tmp_path / f"miracl-v1.0-sw/{name}/{name}.miracl-v1.0-sw-train.tsv").unlink()
    with pytest.raises(InputError, match=r"nothing to train on: give a file of bitext with --data\.pairs"):
        loaded(MIRACLDataModule(str(tmp_path)))
    data = loaded(MIRACLDataModule(str(tmp_path), pairs=bitext, dev_share=0.5))
    assert sorted(words_of(data.collections["dev"]) + words_of(data.collections["test"])) == sorted(SWAHILI[6:])


def test_dev_is_bounded(tmp_path: Path, bitext: str) -> None:
    write_africlirmatrix(tmp_path)
    options = {"pairs": bitext, "dev_share": 0.6, "dev_queries": 1, "dev_documents": 40}
    whole = loaded(AfriCLIRMatrixDataModule(str(tmp_path), pairs=bitext, dev_share=0.6)).collections
    first = loaded(AfriCLIRMatrixDataModule(str(tmp_path), **options)).collections["dev"]
    assert len(first.queries) == 1
    assert first.queries.items() <= whole["dev"].queries.items()
    assert len(first.documents) == 40
    assert first.documents.items() <= dict(whole["dev"].documents).items()
    judged = {document for grades in first.qrels.values() for document in grades}
    assert judged <= first.documents.keys()
    again = loaded(AfriCLIRMatrixDataModule(str(tmp_path), **options)).collections["dev"]
    assert (again.queries, again.documents) == (first.queries, first.documents)
    other = loaded(AfriCLIRMatrixDataModule(str(tmp_path), **options, seed=1)).collections["dev"]
    assert other.documents.keys() != first.documents.keys()
    few = loaded(AfriCLIRMatrixDataModule(str(tmp_path), **options | {"dev_documents": 1})).collections["dev"]
    assert few.documents.keys() == judged  # never fewer than the judged ones


def replaced(line: int, content: str) -> Callable[[str], str]:
    def change(text: str) -> str:
        rows = text.splitlines(keepends=True)
        rows[line - 1] = content + "\n"
        return "".join(rows)

    return change


CORPUS = "africlirmatrix-v1.0-swahili/corpus.jsonl"
TOPICS = "test/queries/topics.africlirmatrix-v1.0.en.swa.tsv"
QRELS = "test/qrels/qrels.africlirmatrix-v1.0.en.swa.txt"
MALFORMED = [
    (CORPUS, 3, "{'id': '1'}", "invalid JSON"),
    (CORPUS, 4, '["1", "text"]', "found a JSON list"),
    (CORPUS, 5, '{"id": "x"}', "the field 'contents' is missing"),
    (CORPUS, 6, '{"id": 7, "contents": "text"}', "the field 'id' is no string"),
    (CORPUS, 7, '{"id": "x", "contents": null}', "the field 'contents' is no string"),
    (CORPUS, 8, '{"id": "a b", "contents": "text"}', "holds white space"),
    (CORPUS, 9, '{"id": "", "contents": "text"}', "is empty or holds"),
    (CORPUS, 10, '{"id": "3#0", "contents": "text"}', "already that of line 4"),
    (CORPUS, 11, '{"id": "x", "contents": "te', "invalid JSON"),
    (CORPUS, 12, '{"id": "x\udcff", "contents": "text"}', "invalid UTF-8"),
    (TOPICS, 2, "102", "found 1 column, expected 2"),
    (TOPICS, 3, "103\tmat\tmore", "found 3 columns"),
    (TOPICS, 4, "104\t ", "the second column is empty"),
    (TOPICS, 5, "100\tagain", "already that of line 1"),
    (TOPICS, 6, "10 6\ttext", "holds white space"),
    (QRELS, 2, "100 Q0 2#0", "found 3 columns, expected 4"),
    (QRELS, 3, "100 Q0 2#0 yes", "the grade is 'yes'"),
    (QRELS, 4, "100 Q0 0#0 6", "judged twice"),
    (QRELS, 5, "100 Q0 2#0 99999999999999999999", "the grade is 99999999999999999999, expected at most"),
]


def test_malformed_lines(tmp_path: Path, bitext: str) -> None:
    write_africlirmatrix(tmp_path)
    for file, line, content, reason in MALFORMED:
        path = tmp_path / file
        good = path.read_bytes()
        changed = replaced(line, content)(good.decode())
        path.write_bytes(changed.encode("utf-8", "surrogateescape"))
        with pytest.raises(InputError) as error:
            loaded(AfriCLIRMatrixDataModule(str(tmp_path), pairs=bitext))
        assert str(error.value).startswith(f"{path}:{line}: "), (content, str(error.value))
        assert reason in str(error.value)
        path.write_bytes(good)


def test_malformed_compressed_parts(tmp_path: Path) -> None:
    write_miracl(tmp_path)
    part = tmp_path / "miracl-corpus-v1.0-sw/docs-3.jsonl.gz"
    good = part.read_bytes()
    record = b'{"docid": "x", "title": "t", "text": "t"}\n'
    for content, where, reason in [
        (gzip.compress(record + b'{"docid": "y", "title": "t"}\n'), ":2: ", "the field 'text' is missing"),
        (gzip.compress(record + b"\n" + record), ":3: ", "already that of line 1"),
        (good[:-10], ": ", "damaged"),
        (b"not compressed", ": ", "damaged"),
        (gzip.compress(b"\n"), ": ", "the file is empty"),
    ]:
        part.write_bytes(content)
        with pytest.raises(InputError) as error:
            loaded(MIRACLDataModule(str(tmp_path)))
        assert str(error.value).startswith(f"{part}{where}")
        assert reason in str(error.value)
    part.write_bytes(good)
    loaded(MIRACLDataModule(str(tmp_path)))


@pytest.mark.parametrize(
    ("file", "wanted"),
    [
        ("passages-v1.0/swahili_passages.jsonl", "passages-v1.0/swahili_passages.jsonl: no such file"),
        ("ciral-swahili/topics/topics.ciral-v1.0-sw-dev.tsv", "topics.ciral-v1.0-sw-dev.tsv: no such file"),
        ("ciral-swahili/qrels/qrels.ciral-v1.0-sw-test-a-pools.tsv", "test-a-pools.tsv: no such file"),
    ],
)
def test_missing_files_are_named(tmp_path: Path, bitext: str, file: str, wanted: str) -> None:
    write_ciral(tmp_path)
    (tmp_path / file).unlink()
    with pytest.raises(InputError) as error:
        loaded(CIRALDataModule(str(tmp_path), pairs=bitext))
    assert wanted in str(error.value)
    assert "it is part of CIRAL" in str(error.value)


def test_judgments_that_fit_no_document(tmp_path: Path, bitext: str) -> None:
    write_ciral(tmp_path)
    qrels = tmp_path / "ciral-swahili/qrels/qrels.ciral-v1.0-sw-test-b.tsv"
    qrels.write_text(qrels.read_text() + "106 Q0 VOA#1#1 1\n")
    with pytest.warns(UserWarning, match="1 judged documents, 1 of them relevant, such as 'VOA#1#1', are not"):
        data = loaded(CIRALDataModule(str(tmp_path), test="test-b", pairs=bitext))
    assert "VOA#1#1" in data.collections["test"].qrels["106"]
    qrels.write_text("106 Q0 VOA#1#1 1\n")
    with pytest.raises(InputError, match="none of the relevant documents is in the collection"):
        loaded(CIRALDataModule(str(tmp_path), test="test-b", pairs=bitext))


def test_wrong_options(tmp_path: Path, bitext: str) -> None:
    root = str(tmp_path)
    for make, reason in [
        (lambda: CIRALDataModule(root, "mr"), "CIRAL has no language 'mr', expected one of hau, som"),
        (lambda: MIRACLDataModule(root, "swa"), "MIRACL has no language 'swa'"),
        (lambda: AfriCLIRMatrixDataModule(root, dev_share=1), "dev_share is 1"),
        (lambda: AfriCLIRMatrixDataModule(root, dev_documents=-1), "dev_documents is -1"),
        (lambda: CIRALDataModule(root, document_side="teacher"), "both 'teacher'"),
    ]:
        with pytest.raises(ValueError, match=reason):
            make()
    with pytest.raises(InputError, match="no such folder, expected one with the files of AfriCLIRMatrix"):
        loaded(AfriCLIRMatrixDataModule(root + "/x", pairs=bitext))
