"""``--data ir_datasets``: any judged dataset, from pairs to results."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from datamodules.published.ir_collection import IrDatasetsDataModule
from datamodules.published.ir_texts import IrDocuments, ir_qrels, ir_queries, load_dataset
from datamodules.published.judged import GradedPairs, Judged, bounded
from foundations.errors import InputError
from retrieval.trec import read_run
from tests.datamodules.published.hc4_layout import COUPLES, FILTERED, SPLITS, WORDS, write_hc4

ID = "neuclir/1/fa/hc4-filtered"


@pytest.fixture
def home(ir_home: Path) -> Path:
    write_hc4(ir_home)
    return ir_home


def loaded(**options: object) -> IrDatasetsDataModule:
    data = IrDatasetsDataModule(**{"remove_leaks": False} | options)
    data.setup()
    return data


def test_collections_and_judged_pairs(home: Path) -> None:
    data = loaded(id="hc4/fa/test", dev_id="hc4/fa/dev", train_id="hc4/fa/train", document_field="text")
    dev, test = data.collections["dev"], data.collections["test"]
    assert (test.query_side, test.document_side) == ("teacher", "student")  # English topics, Persian documents
    assert list(test.queries.values()) == SPLITS["test"]
    assert list(dev.queries.values()) == SPLITS["dev"]
    assert len(test.documents) == len(dev.documents) == len(COUPLES)
    assert isinstance(test.documents, IrDocuments)
    expected = [(word, f"{WORDS[a]} {WORDS[b]}") for word in SPLITS["train"] for a, b in COUPLES if word in (a, b)]
    assert sorted((pair.source, pair.target) for pair in data.pairs) == sorted(expected)
    first = loaded(id="hc4/fa/test", dev_id="hc4/fa/dev", train_id="hc4/fa/train", min_grade=3).pairs
    assert len(first) == len(SPLITS["train"]) * (len(WORDS) - 1)


def test_a_share_of_the_queries_is_dev_without_a_dev_id(home: Path) -> None:
    data = loaded(id=ID, train_id="hc4/fa/train", dev_share=0.5, dev_documents=30)
    dev, test = data.collections["dev"], data.collections["test"]
    assert dev.queries.keys() | test.queries.keys() == {f"t-{word}" for word in SPLITS["dev"] + SPLITS["test"]}
    assert not dev.queries.keys() & test.queries.keys()
    assert len(test.documents) == len(FILTERED)
    assert 30 <= len(dev.documents) < len(FILTERED)


def test_english_ceiling_reads_the_english_dataset(home: Path, tmp_path: Path) -> None:
    bitext = str(tmp_path / "bitext.tsv")
    Path(bitext).write_text("cat\tpaka\n")
    data = loaded(id=ID, dev_id="hc4/fa/train", pairs=bitext, english_id="hc4/fa/test")
    english, test = data.collections["english"], data.collections["test"]
    assert (english.query_side, english.document_side) == ("teacher", "teacher")
    assert english.queries == test.queries
    assert len(english.documents) == len(COUPLES)  # those of the other dataset: here, the unfiltered one
    with pytest.raises(InputError, match=f"{ID}: no document 'mat-red'"):
        loaded(id="hc4/fa/test", dev_id="hc4/fa/train", pairs=bitext, english_id=ID)
    with pytest.raises(InputError, match="hc4/fa/dev: no query 't-red'"):
        loaded(id="hc4/fa/test", dev_id="hc4/fa/train", pairs=bitext, english_id="hc4/fa/dev", query_side="student")


def test_pairs_of_a_split_stay_on_disk(home: Path) -> None:
    dataset = load_dataset("hc4/fa/train")
    judged = Judged("train", ir_queries(dataset), IrDocuments(dataset), ir_qrels(dataset))
    pairs = GradedPairs(judged, min_grade=1, chunk_rows=25)
    assert pairs.chunk_sizes().sum() == len(pairs) == sum(1 for _ in pairs)
    assert pairs.chunk_sizes().max() == 25
    assert [pairs.parse(row) for n in range(len(pairs.chunk_sizes())) for row in pairs.read_chunk(n)] == list(pairs)
    turned = GradedPairs(judged, min_grade=1, document_first=True)
    assert [(pair.target, pair.source) for pair in turned] == [(pair.source, pair.target) for pair in pairs]
    assert len({pair.id for pair in pairs}) == len(SPLITS["train"])
    with pytest.raises(InputError, match="no judgment of a known document has grade 4 or more; the grades are 0, 1, 3"):
        GradedPairs(judged, min_grade=4)


def test_a_sample_does_not_read_the_texts_of_the_others() -> None:
    class Counted(dict[str, str]):
        reads = 0

        def __getitem__(self, key: str) -> str:
            self.reads += 1
            return super().__getitem__(key)

    documents = Counted({str(n): "text" for n in range(10_000)})
    sample = bounded(Judged("x", {"q": "text"}, documents, {"q": {"17": 1, "lost": 1}}), 0, 500)
    assert len(sample.documents) == 500
    assert "17" in sample.documents
    assert documents.reads <= 501
    # Every part of the collection has its share.
    assert 150 < sum(int(key) < 5000 for key in sample.documents) < 350


def test_options_that_cannot_be_used(home: Path) -> None:
    for options, reason in [
        ({"id": ID, "train_id": ID}, "id and train_id are both"),
        ({"id": ID, "dev_id": ID}, "id and dev_id are both"),
        ({"id": ID, "document_side": "teacher", "pairs": "x.tsv"}, "set query_side or document_side to 'student'"),
        ({"id": ID}, r"nothing to train on: .* --data\.pairs FILE .*, or .* --data\.train_id ID"),
        ({"id": ID, "train_id": "hc4/fa/trai"}, "knows no 'hc4/fa/trai'; the nearest ids are hc4/fa/train"),
        ({"id": "hc4/fa/dev", "train_id": "hc4/fa/train", "dev_share": 0.01}, "too few to take 1% of them for dev"),
    ]:
        with pytest.raises(ValueError, match=reason):
            loaded(**options)


def test_sides_follow_the_languages(ir_home: Path) -> None:
    """Swahili queries and passages: the student reads both."""
    folder = ir_home / "mr-tydi/sw.data/mrtydi-v1.0-swahili"
    (folder / "collection").mkdir(parents=True)
    passages = [{"id": f"{n}#0", "contents": f"{WORDS[a]}\n\n{WORDS[b]}"} for n, (a, b) in enumerate(COUPLES)]
    content = "".join(json.dumps(passage) + "\n" for passage in passages)
    (folder / "collection/docs.jsonl.gz").write_bytes(gzip.compress(content.encode()))
    for part, words in SPLITS.items():
        (folder / f"topic.{part}.tsv").write_text("".join(f"{word}\t{WORDS[word]}\n" for word in words))
        rows = [f"{word}\tQ0\t{n}#0\t1\n" for word in words for n, couple in enumerate(COUPLES) if word == couple[0]]
        (folder / f"qrels.{part}.txt").write_text("".join(rows))
    data = loaded(id="mr-tydi/sw/test", dev_id="mr-tydi/sw/dev", train_id="mr-tydi/sw/train")
    assert data.sides() == ("student", "student")
    assert data.collections["test"].documents["0#0"] == f"{WORDS['cat']} {WORDS['mat']}"
    assert data.pairs[0].source == WORDS["cat"]


def test_train_and_test_from_the_command_line(home: Path, tmp_path: Path, tiny_config: Path, script) -> None:
    text = tiny_config.read_text(encoding="utf-8")
    config = tmp_path / "tiny.yaml"
    config.write_text(text[: text.index("data:")] + text[text.index("trainer:") :], encoding="utf-8")
    words = ["train.py", "--data", "ir_datasets", "--strategy", "mse", "--config", config, "--output", tmp_path]
    words += ["--data.id", ID, "--data.train_id", "hc4/fa/train", "--data.dev_id", "hc4/fa/train/"]
    done = script(*words, "--name", "run")
    assert done.status == 2
    assert done.err.strip().splitlines()[-1].startswith("train.py: error: ir_datasets knows no 'hc4/fa/train/'")
    words[words.index("hc4/fa/train/")] = "hc4/fa/dev"
    with pytest.warns(UserWarning, match="2 of the 2 dev queries are test queries as well"):
        done = script(*words, "--data.batch_size", "16", "--trainer.max_steps", "3", "--name", "run")
    assert done.status == 0, done.err
    run = read_run(next((tmp_path / "run").glob("test*.run")))
    assert run.keys() == {f"t-{word}" for word in SPLITS["dev"] + SPLITS["test"]}
    assert all(set(scores) == FILTERED for scores in run.values())
