"""Schamoni et al. 2014: German queries and English articles, in the three files of each split, plain or compressed."""

from __future__ import annotations

import bz2
import gzip
import itertools
import json
import shutil
from pathlib import Path

import pytest

from datamodules.published.schamoni import SchamoniDataModule
from foundations.cache import unpacked
from foundations.errors import InputError

GERMAN = {"cat": "katze", "sun": "sonne", "water": "wasser", "life": "leben", "big": "gross", "red": "rot"}
COUPLES = list(itertools.permutations(GERMAN, 2))
SPLITS = {"train": range(20), "dev": range(20, 25), "test": range(25, 30)}


@pytest.fixture(scope="session")
def official(tmp_path_factory) -> Path:
    """Nine plain files; each query has a twin and two linked articles, and there are articles of no query."""
    root = tmp_path_factory.mktemp("schamoni")
    for split, numbers in SPLITS.items():
        queries, documents, qrels = [], [], []
        for number in numbers:
            one, two = COUPLES[number]
            queries.append(f"{4000 + number}\tist {GERMAN[one]} und  {GERMAN[two]} ({number}) .")
            documents.append(f"{7000 + number}\tThe {one} {two} ({number}) .")
            qrels.append(f"{4000 + number}\t{7000 + number}\t3")
            qrels += [f"{4000 + number}\t{8000 + (number + shift) % 10}\t2" for shift in (1, 2)]
        documents += [f"{8000 + number}\tLinked article {number}" for number in range(10)]
        for kind, lines in (("queries", queries), ("docs", documents), ("qrels", qrels)):
            (root / f"{split}.{kind}").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return root


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("POTSTILL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def copy(official: Path, tmp_path: Path) -> Path:
    """A copy of the folder that a test may spoil."""
    return Path(shutil.copytree(official, tmp_path / "schamoni"))


def load(root: Path, **options) -> SchamoniDataModule:
    data = SchamoniDataModule(str(root), **options)
    data.setup()
    return data


def test_prepare_data_leaves_nothing_to_unpack_or_to_check(copy: Path, own_cache: Path) -> None:
    for path in copy.iterdir():
        path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()
    options = {"dev_documents": 0}
    SchamoniDataModule(str(copy), **options).prepare_data()
    made = {path for path in own_cache.rglob("*") if path.is_file()}
    assert made
    assert len(load(copy, **options).pairs)
    assert {path for path in own_cache.rglob("*") if path.is_file()} == made


def everything(data: SchamoniDataModule) -> list:
    collections = [(name, dict(it.queries), dict(it.documents), it.qrels) for name, it in data.collections.items()]
    return [list(data.pairs), collections]


def lines(path: Path) -> dict[str, str]:
    return dict(line.split("\t", 1) for line in path.read_text(encoding="utf-8").splitlines())


@pytest.mark.parametrize("min_grade", [2, 3])
def test_pairs_are_article_and_query(official: Path, min_grade: int) -> None:
    queries, documents = lines(official / "train.queries"), lines(official / "train.docs")
    judgments = [line.split("\t") for line in (official / "train.qrels").read_text().splitlines()]
    expected = [
        (documents[document], " ".join(queries[query].split()))
        for query, document, grade in judgments
        if int(grade) >= min_grade
    ]
    pairs = list(load(official, min_grade=min_grade).pairs)
    assert [(pair.source, pair.target) for pair in pairs] == expected
    assert len(pairs) == (20 if min_grade == 3 else 60)
    assert len({pair.id for pair in pairs}) == len({pair.source for pair in pairs})


def test_the_student_reads_the_queries_of_the_official_splits(official: Path) -> None:
    data = load(official)
    assert set(data.collections) == {"dev", "test"}
    for name, collection in data.collections.items():
        assert (collection.query_side, collection.document_side) == ("student", "teacher")
        assert list(collection.queries) == [str(4000 + number) for number in SPLITS[name]]
        assert set(collection.documents) == set(lines(official / f"{name}.docs"))
        assert [sorted(grades.values()) for grades in collection.qrels.values()] == [[2, 2, 3]] * 5


def test_dev_and_test_can_be_bounded(official: Path) -> None:
    dev, test = load(official, dev_queries=2, dev_documents=9, test_queries=3).collections.values()
    assert (len(dev.queries), len(dev.documents), len(test.queries), len(test.documents)) == (2, 9, 3, 15)
    assert {document for grades in dev.qrels.values() for document in grades} < set(dev.documents)


@pytest.mark.parametrize("layout", ["gz", "bz2", "named", "folders"])
def test_files_are_found_in_other_packings(official: Path, copy: Path, layout: str) -> None:
    for path in list(copy.iterdir()):
        if layout in ("gz", "bz2"):
            compress = gzip.compress if layout == "gz" else bz2.compress
            path.with_name(f"{path.name}.{layout}").write_bytes(compress(path.read_bytes()))
            path.unlink()
        elif layout == "named":
            path.rename(path.with_name(f"wikiclir-de_en.{path.name}"))
        else:
            (copy / path.stem).mkdir(exist_ok=True)
            path.rename(copy / path.stem / f"wiki{path.suffix}")
    assert everything(load(copy)) == everything(load(official))


def test_a_compressed_file_is_unpacked_once_and_again_when_it_changes(tmp_path: Path) -> None:
    path = tmp_path / "train.docs.gz"
    path.write_bytes(gzip.compress(b"1\tone\n"))
    first = unpacked(path)
    time = first.stat().st_mtime_ns
    assert (first.read_bytes(), unpacked(path), first.stat().st_mtime_ns) == (b"1\tone\n", first, time)
    path.write_bytes(gzip.compress(b"1\tone\n2\ttwo\n"))
    assert unpacked(path).read_bytes() == b"1\tone\n2\ttwo\n"


BAD_LINES = {
    "query without a sentence": ("train.queries", b"7\n", "found 1 column, expected 2"),
    "query with an empty sentence": ("dev.queries", b"7\t \n", "the second column is empty"),
    "query twice": ("dev.queries", b"4020\tnoch einmal\n", "the id '4020' is already that of line 1"),
    "query in latin-1": ("test.queries", b"7\tsch\xf6n\n", "invalid UTF-8"),
    "article with a tab": ("train.docs", b"7\ta\tb\n", "found 3 columns, expected 2"),
    "article twice": ("test.docs", b"7025\tagain\n", "the id '7025' is already that of line 1"),
    "article with a space in its id": ("dev.docs", b"7 8\ta\n", "holds white space"),
    "judgment with the grade of another collection": ("train.qrels", b"4000\t8005\t1\n", "'1', expected 2 or 3"),
    "judgment with half a grade": ("train.qrels", b"4000\t8005\t2.5\n", "'2.5', expected 2 or 3"),
    "judgment without grade": ("dev.qrels", b"4020\t8005\n", "found 2 columns, expected 3"),
    "judgment of a query of another split": ("dev.qrels", b"4000\t8005\t2\n", "unknown query '4000'"),
    "judgment of an article of another split": ("dev.qrels", b"4020\t7000\t2\n", "unknown document '7000'"),
}


@pytest.mark.parametrize("kind", BAD_LINES)
def test_a_bad_line_is_named(copy: Path, kind: str) -> None:
    name, line, message = BAD_LINES[kind]
    number = len((copy / name).read_bytes().splitlines()) + 1
    with (copy / name).open("ab") as file:
        file.write(line)
    with pytest.raises(InputError) as error:
        load(copy, skip_unknown=False)
    assert str(error.value).startswith(f"{copy / name}:{number}: ")
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"4000\t7000\t3\n", "damaged or not compressed"),
        (gzip.compress(b"4000\t7000\t3\n" * 1000)[:-9], "damaged or not compressed"),
        (gzip.compress(b"4000\t7000\t3\n" * 1000)[:20] + b"\xff" * 20, "damaged or not compressed"),
        (gzip.compress(b""), "the file is empty"),
    ],
    ids=["not compressed", "cut short", "overwritten", "empty"],  # the bytes hold the time, which workers disagree on
)
def test_a_damaged_archive_is_named(copy: Path, own_cache: Path, content: bytes, message: str) -> None:
    (copy / "train.qrels").unlink()
    (copy / "train.qrels.gz").write_bytes(content)
    with pytest.raises(InputError, match=message) as error:
        load(copy)
    assert "train.qrels" in str(error.value)
    assert not list(own_cache.rglob("*.tmp"))


def test_a_file_that_is_no_bz2_is_named(copy: Path) -> None:
    (copy / "dev.docs").rename(copy / "dev.docs.bz2")
    with pytest.raises(InputError, match=r"dev.docs.bz2: the file is damaged or not compressed"):
        load(copy)


def test_missing_and_doubtful_files_are_named(copy: Path) -> None:
    with pytest.raises(InputError, match=r"no such folder, expected one with the .queries, .docs and .qrels"):
        load(copy / "none")
    (copy / "old-train.docs").write_text("1\tone\n")
    with pytest.raises(InputError, match=r"several files look like the docs of train: old-train.docs, train.docs"):
        load(copy)
    (copy / "old-train.docs").rename(copy / "constrained.docs")  # no word of it is "train"
    load(copy)
    (copy / "test.qrels").unlink()
    with pytest.raises(InputError, match=r"no qrels of test, expected a file such as test.qrels or test.qrels.gz"):
        load(copy)


def test_wrong_options_are_refused(official: Path) -> None:
    for option, value in (("min_grade", 1), ("dev_queries", -1), ("dev_documents", -1), ("test_queries", -1)):
        with pytest.raises(ValueError, match=f"{option} is {value}, expected"):
            SchamoniDataModule(str(official), **{option: value})


def test_train_end_to_end(official: Path, tiny_config: Path, tmp_path: Path, script) -> None:
    words = ["--config", tiny_config, "--strategy", "mse", "--data", "schamoni", "--data.root", official]
    words += ["--trainer.max_epochs", 1, "--logger", "csv", "--output", tmp_path, "--name", "run"]
    done = script("train.py", *words)
    assert done.status == 0, done.err
    assert set(json.loads((tmp_path / "run/metrics.json").read_text())) == {"test", "undistilled", "bm25", "hybrid"}


@pytest.mark.parametrize("spoil", ["missing folder", "bad line", "no root"])
def test_mistakes_end_with_status_2(copy: Path, tiny_config: Path, tmp_path: Path, script, spoil: str) -> None:
    words = ["--config", tiny_config, "--data", "schamoni", "--output", tmp_path]
    if spoil == "bad line":
        (copy / "train.qrels").write_text("4000\t7000\t3\n4000\t8001\t0\n")
    if spoil != "no root":
        words += ["--data.root", copy if spoil == "bad line" else copy / "none"]
    done = script("train.py", *words)
    assert done.status == 2
    message = {"missing folder": f"{copy / 'none'}: no such folder", "bad line": "train.qrels:2: the grade is '0'"}
    assert message.get(spoil, "root") in done.err
    assert "Traceback" not in done.err
