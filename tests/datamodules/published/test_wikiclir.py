"""WikiCLIR from files in the official packing: the archive through ir_datasets, and the folder that it unpacks to."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
import tarfile
import unicodedata
from pathlib import Path

import pytest

from datamodules.published.wikiclir import LANGUAGES, WikiCLIRDataModule
from datamodules.text import hash_share
from foundations.errors import InputError

ROOT = Path(__file__).parents[3]
ARCHIVE = "705abb611eb8cbab9ced2b8767a3bdb6"
ENGLISH = ["cat", "mat", "morning", "friend", "sun", "water", "life", "big", "red", "small"]
SWAHILI = ["paka", "mkeka", "asubuhi", "rafiki", "jua", "maji", "uhai", "kubwa", "jekundu", "mdogo"]
QUERIES = 120


def query_id(number: int) -> str:
    return str(1000 + 11 * number)


def write_language(root: Path, folder: str, code: str, queries: range) -> None:
    """Articles of some queries, each linked with its two neighbours, and articles of no query."""
    documents, judgments = [], []
    for number in queries:
        one, two = number % 10, number // 10
        text = f" {SWAHILI[one]} ni {SWAHILI[two % 10]} ( {number} ) ." if number % 10 else ""
        documents.append(f"{9000 + 2 * number}\t{SWAHILI[one]} {number}\t{text}")
        linked = [other for other in (number - 1, number + 1) if other in queries]
        judgments += [f"{query_id(number)}\t{9000 + 2 * number}\t2"]
        judgments += [f"{query_id(number)}\t{9000 + 2 * other}\t1" for other in linked]
    documents += [f"{70000 + number}\tmji {number}\t a\u0301  mji  wa {number}" for number in range(40)]
    (root / folder).mkdir(parents=True)
    (root / folder / f"wiki_{code}.documents").write_text("\n".join(documents) + "\n", encoding="utf-8")
    (root / folder / f"en2{code}.rel").write_text("\n".join(judgments) + "\n", encoding="utf-8")


@pytest.fixture(scope="session")
def official(tmp_path_factory) -> Path:
    """A folder wiki-clir with two languages, as the archive unpacks."""
    root = tmp_path_factory.mktemp("official") / "wiki-clir"
    (root / "english").mkdir(parents=True)
    lines = []
    for number in range(QUERIES + 30):
        title = f"The {ENGLISH[number % 10]} {ENGLISH[number // 10 % 10].title()} ({number})"
        first = "" if number % 11 == 0 else f"the , or , is a  caf\u0065\u0301 {number}."
        lines.append(f"{query_id(number)}\t{title}\t{first}")
    (root / "english/wiki_en.queries").write_text("\n".join(lines) + "\n", encoding="utf-8")
    write_language(root, "swahili", "sw", range(QUERIES))
    write_language(root, "norwegian_(bokmal)", "no", range(60, QUERIES + 30))
    write_language(root, "simple_english", "simple", range(70))
    return root


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POTSTILL_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def copy(official: Path, tmp_path: Path) -> Path:
    """A copy of the folder that a test may spoil."""
    return Path(shutil.copytree(official, tmp_path / "wiki-clir"))


def load(root: Path, **options) -> WikiCLIRDataModule:
    data = WikiCLIRDataModule(root=str(root), **options)
    data.setup()
    return data


def split_of(query: str) -> str:
    share = hash_share(query, "wikiclir")
    return "test" if share < 0.05 else "dev" if share < 0.1 else "train"


def rows(root: Path, name: str) -> list[list[str]]:
    return [line.split("\t") for line in (root / name).read_text(encoding="utf-8").splitlines()]


def everything(data: WikiCLIRDataModule) -> dict:
    """All that a datamodule gives, as plain values; pairs sorted."""
    return {
        "pairs": sorted([pair.source, pair.target, pair.id] for pair in data.pairs),
        "collections": {
            name: [dict(it.queries), dict(it.documents), it.qrels] for name, it in data.collections.items()
        },
    }


THROUGH_IR_DATASETS = """
import hashlib, json, sys
import ir_datasets
from datamodules.published.wikiclir import LANGUAGES, WikiCLIRDataModule
from test_wikiclir import everything

result = {}
paths = {code: ir_datasets.load(f"wikiclir/{code}").docs_handler()._dlc.path(force=False) for code in LANGUAGES}
for code in ("sw", "no", "en-simple"):
    dataset = ir_datasets.load(f"wikiclir/{code}")
    # Nothing else of the loader is touched: the fixture cannot have the checksum of the 7 GB archive.
    dataset.docs_handler()._dlc._streamer._streamer.expected_md5 = sys.argv[2]
    ours = WikiCLIRDataModule(code, dev_queries=0, dev_documents=0)
    ours.setup()
    local = WikiCLIRDataModule(code, root=sys.argv[1], dev_queries=0, dev_documents=0)
    local.setup()
    result[code] = {
        "ours": everything(ours),
        "local": everything(local),
        "docs": {doc.doc_id: " ".join(doc.default_text().split()) for doc in dataset.docs_iter()},
        "queries": {query.query_id: query.default_text() for query in dataset.queries_iter()},
        "qrels": [[q.query_id, q.doc_id, q.relevance] for q in dataset.qrels_iter()],
    }
print(json.dumps([result, paths, sorted(key for key in ir_datasets.registry if key.startswith("wikiclir/"))]))
"""


@pytest.fixture(scope="session")
def through_ir_datasets(official: Path, tmp_path_factory) -> list:
    """The fixture as a tar where ir_datasets looks for the archive, loaded by it, by us, and from the folder."""
    import hashlib

    home, cache = tmp_path_factory.mktemp("irds"), tmp_path_factory.mktemp("cache")
    (home / "downloads").mkdir()
    archive = home / "downloads" / ARCHIVE
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(official, "wiki-clir")
    environment = os.environ | {
        "IR_DATASETS_HOME": str(home),
        "POTSTILL_CACHE": str(cache),
        "PYTHONPATH": f"{ROOT}{os.pathsep}{Path(__file__).parent}",
    }
    done = subprocess.run(
        [sys.executable, "-c", THROUGH_IR_DATASETS, str(official), hashlib.md5(archive.read_bytes()).hexdigest()],
        capture_output=True, text=True, env=environment, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("code", ["sw", "no", "en-simple"])
def test_ir_datasets_and_the_folder_give_the_same(through_ir_datasets, code: str) -> None:
    found = through_ir_datasets[0][code]
    assert found["ours"] == found["local"]
    _, documents, _ = found["ours"]["collections"]["test"]
    assert documents == {key: unicodedata.normalize("NFC", text) for key, text in found["docs"].items()}
    assert list(documents) == list(found["docs"])
    judged = {}
    for name in ("dev", "test"):
        queries, _, qrels = found["ours"]["collections"][name]
        assert queries == {query: found["queries"][query] for query in queries}
        judged |= qrels
    expected: dict[str, dict[str, int]] = {}
    for query, document, grade in found["qrels"]:
        if split_of(query) != "train":
            expected.setdefault(query, {})[document] = grade
    assert judged == expected


def test_the_languages_are_those_of_ir_datasets(through_ir_datasets) -> None:
    _, paths, registered = through_ir_datasets
    assert registered == sorted(f"wikiclir/{code}" for code in LANGUAGES)
    for code, path in paths.items():
        assert path.split("/")[-2:] == [LANGUAGES[code], f"wiki_{code.removeprefix('en-')}.documents"]


def test_the_split_never_changes() -> None:
    train = ["12", "324", "580", "305", "316", "358", "54716724", "54959191", "54964051", "54966439", "54964827"]
    dev = ["3", "45", "64", "72", "89", "236", "254", "265", "271", "292", "303", "314"]
    test = ["25", "54", "75", "78", "90", "102", "137", "165", "200", "210", "212", "220"]
    assert [split_of(query) for query in train + dev + test] == ["train"] * 11 + ["dev"] * 12 + ["test"] * 12


def test_queries_go_where_the_split_says(official: Path) -> None:
    data = load(official, dev_queries=0)
    judged = {row[0] for row in rows(official, "swahili/en2sw.rel")}
    for name in ("dev", "test"):
        assert set(data.collections[name].queries) == {query for query in judged if split_of(query) == name}
        assert len(data.collections[name].queries) >= 3


@pytest.mark.parametrize("min_grade", [1, 2])
def test_pairs_are_those_of_a_slow_loop(official: Path, min_grade: int) -> None:
    judgments = rows(official, "swahili/en2sw.rel")
    held_out = {document for query, document, _ in judgments if split_of(query) != "train"}
    titles = {row[0]: row[1] for row in rows(official, "english/wiki_en.queries")}
    texts = {row[0]: " ".join(f"{row[1]} {row[2]}".split()) for row in rows(official, "swahili/wiki_sw.documents")}
    expected = [
        (titles[query], texts[document])
        for query, document, grade in judgments
        if split_of(query) == "train" and document not in held_out and int(grade) >= min_grade
    ]
    data = load(official, min_grade=min_grade)
    assert [(pair.source, pair.target) for pair in data.pairs] == expected
    assert len(data.pairs) == len(expected) > 50


@pytest.mark.parametrize("min_grade", [1, 2])
def test_no_relevant_article_of_dev_or_test_is_a_training_target(official: Path, min_grade: int) -> None:
    data = load(official, min_grade=min_grade, dev_queries=0)
    targets = {pair.target for pair in data.pairs}
    for name in ("dev", "test"):
        collection = data.collections[name]
        relevant = {document for grades in collection.qrels.values() for document in grades}
        assert len(relevant) > len(collection.queries)
        assert not targets & {collection.documents[document] for document in relevant}


def test_the_order_of_the_files_does_not_matter(official: Path, copy: Path) -> None:
    shuffler = random.Random(0)
    for name in ("english/wiki_en.queries", "swahili/wiki_sw.documents", "swahili/en2sw.rel"):
        lines = (copy / name).read_text(encoding="utf-8").splitlines()
        shuffler.shuffle(lines)
        (copy / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
    options = {"dev_queries": 2, "dev_documents": 30, "test_queries": 2}
    assert everything(load(copy, **options)) == everything(load(official, **options))


def test_a_query_is_in_the_same_split_in_all_languages(official: Path) -> None:
    ours, other = load(official, language="sw"), load(official, language="no")
    for name, opposite in (("dev", "test"), ("test", "dev")):
        assert not ours.collections[name].queries.keys() & other.collections[opposite].queries.keys()
    assert ours.collections["test"].queries.keys() & other.collections["test"].queries.keys()


def test_the_teacher_reads_the_queries_and_the_student_all_articles(official: Path) -> None:
    data = load(official, dev_documents=30)
    assert set(data.collections) == {"dev", "test"}
    for collection in data.collections.values():
        assert (collection.query_side, collection.document_side) == ("teacher", "student")
        assert {grade for grades in collection.qrels.values() for grade in grades.values()} == {1, 2}
    assert len(data.collections["test"].documents) == QUERIES + 40
    dev = data.collections["dev"]
    assert len(dev.documents) == 30
    assert {document for grades in dev.qrels.values() for document in grades} < set(dev.documents)


def test_bounds_of_queries_and_documents_are_nested(official: Path) -> None:
    sizes = [load(official, dev_queries=count, dev_documents=0).collections["dev"].qrels for count in (1, 2, 0)]
    assert [len(qrels) for qrels in sizes[:2]] == [1, 2]
    assert sizes[0].keys() < sizes[1].keys() < sizes[2].keys()
    few, more = (load(official, dev_documents=count).collections["dev"].documents for count in (25, 50))
    assert set(few) < set(more)
    assert (len(few), len(more)) == (25, 50)


def test_texts_of_queries_and_documents_can_be_chosen(official: Path) -> None:
    both = load(official, query_field="both", document_field="title")
    first = load(official, query_field="first_sent", document_field="text")
    pair = next(iter(both.pairs))
    number = int(pair.target.split()[1])
    assert pair.target == f"{SWAHILI[number % 10]} {number}"
    assert pair.source.endswith(f"({number})") if number % 11 == 0 else pair.source.endswith(f"is a café {number}.")
    empty = [pair for pair in first.pairs if not pair.source.startswith("the , or")]
    assert empty
    assert all(pair.source.startswith("The ") for pair in empty)  # the title, where there is no first sentence
    assert {pair.target for pair in first.pairs if pair.target[-1] != "."}  # the title, where there is no text


def test_pairs_come_in_chunks_and_survive_pickle(official: Path) -> None:
    import pickle

    from datamodules.sources import ArticlePairs

    data = load(official, min_grade=1)
    queries, documents, judgments = data._open()
    chosen = judgments.grades > 0
    whole = ArticlePairs(judgments, chosen, queries, documents)
    parts = pickle.loads(pickle.dumps(ArticlePairs(judgments, chosen, queries, documents, chunk_rows=7)))
    assert parts.chunk_sizes().tolist() == [7] * (len(whole) // 7) + [len(whole) % 7]
    assert list(parts) == list(whole)
    assert len({pair.id for pair in whole}) == len({pair.source for pair in whole}) == QUERIES


def test_a_language_is_a_code_or_a_name() -> None:
    assert [WikiCLIRDataModule(language).language for language in ("SW", "Swahili")] == ["sw", "sw"]
    assert WikiCLIRDataModule("simple_english").language == "en-simple"
    expected = r"no language 'swahli', expected one of ar, ca, cs, de, .*, did you mean 'sw'\?"
    with pytest.raises(ValueError, match=expected) as wrong:
        WikiCLIRDataModule("swahli")
    assert str(wrong.value).count(",") == 26
    with pytest.raises(ValueError, match="no language 'so'"):
        WikiCLIRDataModule("so")


@pytest.mark.parametrize(
    ("option", "value"),
    [("query_field", "text"), ("document_field", "body"), ("min_grade", 3), ("dev_queries", -1), ("test_queries", -2)],
)
def test_wrong_options_are_refused(option: str, value) -> None:
    with pytest.raises(ValueError, match=f"{option} is {value!r}, expected"):
        WikiCLIRDataModule(**{option: value})


QUERY, DOCUMENT, REL = "english/wiki_en.queries", "swahili/wiki_sw.documents", "swahili/en2sw.rel"
BAD_LINES = {
    "query without first sentence": (QUERY, b"7\tTitle\n", "found 2 columns, expected 3: query<TAB>title"),
    "query twice": (QUERY, b"1000\tAgain\tit is.\n", "the id '1000' is already that of line 1"),
    "query without title": (QUERY, b"7\t \tit is.\n", "the query '7' has no text"),
    "query in latin-1": (QUERY, b"7\tcaf\xe9\tit is.\n", "invalid UTF-8"),
    "article with a tab": (DOCUMENT, b"7\ta\tb\tc\n", "found 4 columns, expected 3: document<TAB>title"),
    "article twice": (DOCUMENT, b"9000\ta\tb\n", "the id '9000' is already that of line 1"),
    "article without any text": (DOCUMENT, b"7\t\t \n", "the document '7' has no text"),
    "article without id": (DOCUMENT, b"\ta\tb\n", "the id '' is empty"),
    "article with a space in its id": (DOCUMENT, b"7 8\ta\tb\n", "holds white space"),
    "article in UTF-16": (DOCUMENT, "7\tá\tb\n".encode("utf-16"), "invalid UTF-8"),
    "judgment in TREC's four columns": (REL, b"1000 0 9000 1\n", "found 4 columns, expected 3"),
    "judgment without grade": (REL, b"1000 9000\n", "found 2 columns, expected 3"),
    "judgment with another grade": (REL, b"1000 9002 3\n", "the grade is '3', expected 1 or 2"),
    "judgment with a word for a grade": (REL, b"1000 9002 twin\n", "the grade is 'twin', expected 1 or 2"),
    "judgment of an unknown query": (REL, b"7 9000 2\n", "unknown query '7': wiki_en.queries has no such id"),
    "judgment of an unknown article": (REL, b"1000 7 1\n", "unknown document '7': wiki_sw.documents has no such id"),
    "judgment in latin-1": (REL, b"1000 caf\xe9 1\n", "invalid UTF-8"),
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


@pytest.mark.parametrize("name", [QUERY, DOCUMENT, REL])
@pytest.mark.parametrize(("spoil", "message"), [
    (lambda path: path.write_bytes(b""), "the file is empty"),
    (lambda path: path.write_bytes(b"\n \n"), "the file is empty"),
    (lambda path: path.unlink(), "no such file"),
    (lambda path: (path.unlink(), path.mkdir()), "this is a folder, expected a file"),
])  # fmt: skip
def test_a_bad_file_is_named(copy: Path, name: str, spoil, message: str) -> None:
    spoil(copy / name)
    with pytest.raises(InputError, match=message) as error:
        load(copy)
    assert str(error.value).startswith(f"{copy / name}: ")


def test_a_wrong_folder_is_named(official: Path, tmp_path: Path) -> None:
    assert len(load(official.parent).pairs) == len(load(official).pairs)
    with pytest.raises(InputError, match="expected the unpacked folder wiki-clir"):
        load(tmp_path)
    with pytest.raises(InputError, match="expected the unpacked folder wiki-clir"):
        load(tmp_path / "none")
    with pytest.raises(InputError, match="no folder 'german' for language 'de'"):
        load(official, language="de")


def test_unknown_ids_can_be_skipped(official: Path, copy: Path) -> None:
    with (copy / REL).open("a") as file:
        file.write("1000 7 1\n1000 8 1\n7 9000 2\n")
    with pytest.raises(InputError, match=r"unknown query '7'.*--data.skip_unknown true"):
        load(copy, skip_unknown=False)
    with pytest.warns(UserWarning, match=r"unknown (query '7'|document '7': .* \(and 1 more\))"):
        skipped = load(copy)
    assert everything(skipped) == everything(load(official))


def test_repeated_judgments_keep_the_highest_grade(official: Path, copy: Path) -> None:
    with (copy / REL).open("a") as file:
        file.write("1000 9000 1\n1000 9000 2\n")
    with pytest.warns(UserWarning, match="1 judgments repeat others with another grade"):
        repeated = load(copy)
    assert everything(repeated) == everything(load(official))


def test_a_file_that_changes_is_read_again(copy: Path) -> None:
    before = load(copy)
    with (copy / DOCUMENT).open("a", encoding="utf-8") as file:
        file.write("80000\tmpya\tmpya\n")
    assert len(load(copy).collections["test"].documents) == len(before.collections["test"].documents) + 1


def test_an_index_is_made_again_when_the_file_that_it_was_checked_against_changes(copy: Path) -> None:
    load(copy)
    lines = (copy / QUERY).read_text(encoding="utf-8").splitlines(keepends=True)
    (copy / QUERY).write_text("".join(lines[1:]), encoding="utf-8")
    with pytest.raises(InputError, match=r"en2sw.rel:1: unknown query '1000'"):
        load(copy, skip_unknown=False)


def test_line_ends_empty_lines_and_byte_order_marks_do_not_matter(official: Path, copy: Path) -> None:
    for name in (QUERY, DOCUMENT, REL):
        content = (copy / name).read_bytes().replace(b"\n", b"\r\n").replace(b"\r\n", b"\r\n\r\n", 3).rstrip()
        (copy / name).write_bytes(b"\xef\xbb\xbf" + content)
    assert everything(load(copy, min_grade=1)) == everything(load(official, min_grade=1))


def test_train_end_to_end(official: Path, tiny_config: Path, tmp_path: Path, script) -> None:
    words = ["--config", tiny_config, "--strategy", "ot", "--data", "wikiclir", "--data.root", official]
    words += ["--trainer.max_steps", 3, "--data.dev_documents", 50, "--logger", "csv"]
    done = script("train.py", *words, "--output", tmp_path, "--name", "run")
    assert done.status == 0, done.err
    assert set(json.loads((tmp_path / "run/metrics.json").read_text())) == {"test", "undistilled", "bm25", "hybrid"}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--data.language", "swahly"], "no language 'swahly', expected one of ar, ca, cs"),
        (["--data.root", "nowhere"], "expected the unpacked folder wiki-clir"),
        (["--data.min_grade", "4"], "min_grade is 4, expected one of 1, 2"),
    ],
)
def test_mistakes_end_with_status_2(tiny_config: Path, tmp_path: Path, script, words, message: str) -> None:
    done = script("train.py", "--config", tiny_config, "--data", "wikiclir", *words, "--output", tmp_path)
    assert done.status == 2
    assert message in done.err
    assert "Traceback" not in done.err
    assert len(done.err.strip().splitlines()) <= 2


def test_a_bad_line_ends_with_status_2(copy: Path, tiny_config: Path, tmp_path: Path, script) -> None:
    (copy / REL).write_text("1000 9000 2\n1000 9000 two\n")
    words = ["--config", tiny_config, "--data", "wikiclir", "--data.root", copy]
    done = script("train.py", *words, "--output", tmp_path)
    assert done.status == 2
    assert f"{copy / REL}:2: the grade is 'two', expected 1 or 2" in done.err
    assert "Traceback" not in done.err


def test_a_failed_download_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    from datamodules.published import wikiclir

    def fail(identifier: str, kind: str) -> Path:
        raise InputError(f"{identifier}: its {kind} are not there")

    monkeypatch.setattr(wikiclir, "official_file", fail)
    with pytest.raises(InputError, match=r"wikiclir/sw: its docs are not there; or unpack it and .* --data.root"):
        WikiCLIRDataModule().setup()
