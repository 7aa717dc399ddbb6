import math
import random
from collections import Counter

import pytest

from retrieval.index.bm25 import BM25, make_lexicon, translate, words
from retrieval.trec import ranked_documents


@pytest.fixture(scope="module")
def documents():
    random.seed(0)
    vocabulary = [f"w{i}" for i in range(30)]
    texts = {f"d{i:02}": " ".join(random.choices(vocabulary, k=random.randint(1, 20))) for i in range(40)}
    return texts | {"empty": "", "signs": "!?"}


def slow_scores(documents, query, k1, b):
    """BM25 as the formula says, one document and one word at a time."""
    split = {name: words(text) for name, text in documents.items()}
    mean = sum(map(len, split.values())) / len(split)
    scores = {}
    for name, text in split.items():
        total = 0.0
        for word, weight in query.items():
            n = sum(word in other for other in split.values())
            tf = text.count(word)
            idf = math.log(1 + (len(split) - n + 0.5) / (n + 0.5))
            total += weight * idf * tf / (tf + k1 * (1 - b + b * len(text) / mean))
        if total > 0:
            scores[name] = total
    return scores


@pytest.mark.parametrize(("k1", "b"), [(0.9, 0.4), (1.5, 0.75), (0.5, 0.0)])
def test_scores_equal_the_formula(documents, k1, b):
    queries = {"one": "w3", "more": "w3 W4, w5 w3 unknown", "weighted": {"w1": 0.5, "w2": 2.0}}
    run = BM25(documents, k1, b).search(queries, k=len(documents))
    for name, query in queries.items():
        expected = slow_scores(documents, Counter(words(query)) if isinstance(query, str) else query, k1, b)
        assert run[name] == pytest.approx(expected, rel=1e-5)


def test_cut_off_ranks_ties_as_trec_eval_does():
    engine = BM25(dict.fromkeys("abcdef", "moto"))
    assert list(engine.search({"q": "moto"}, k=3)["q"]) == ["f", "e", "d"]


def test_blocks_of_queries_change_nothing(documents, monkeypatch):
    queries = {f"q{i}": f"w{i} w{i + 1}" for i in range(20)}
    engine = BM25(documents)
    whole = engine.search(queries, k=5)
    monkeypatch.setattr("retrieval.index.bm25._BLOCK_BYTES", 3 * 4 * len(documents))
    assert engine.search(queries, k=5) == whole
    assert list(whole["q0"]) == ranked_documents(whole["q0"])


def test_query_without_a_known_word_finds_nothing(documents):
    assert set(BM25(documents).search({"known": "w1", "unknown": "zzz", "none": ""}, k=3)) == {"known"}


@pytest.mark.parametrize(("options", "message"), [({"k1": -1.0}, "k1 is -1"), ({"b": 1.5}, "b is 1.5")])
def test_parameters_out_of_range(options, message):
    with pytest.raises(ValueError, match=message):
        BM25({"a": "moto"}, **options)


def test_documents_without_a_word():
    with pytest.raises(ValueError, match="hold no word"):
        BM25({"a": "", "b": "!"})


def test_lexicon():
    entries = [("Moto", "fire"), ("moto", "hot"), ("moto", "fire"), ("maji", "water body"), ("two words", "x")]
    lexicon = make_lexicon(entries)
    assert lexicon == {"moto": ["fire", "hot"], "maji": ["water body"]}
    assert translate("Moto maji, mbwa moto", lexicon) == {
        "fire": 1.0, "hot": 1.0, "water": 1.0, "body": 1.0, "mbwa": 1.0,
    }  # fmt: skip
