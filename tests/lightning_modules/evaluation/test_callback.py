from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch

from datamodules.pairs import TextBatch, text_batches
from lightning_modules.distillation import DistillationModule
from lightning_modules.evaluation import callback as retrieval_evaluation
from lightning_modules.evaluation.callback import RetrievalEvaluation
from lightning_modules.evaluation.encoding import EncodedTexts
from lightning_modules.evaluation.ranking import rank
from lightning_modules.students.transformer import TransformerEncoder
from lightning_modules.teachers.online import OnlineTeacher
from retrieval.collection import Collection
from strategies.base import Embeddings
from strategies.mse import MSE

QUERIES = {"q1": "paka", "q2": "maji ni uhai", "q3": "jua kubwa", "q4": "rafiki"}
DOCUMENTS = {f"d{i}": text for i, text in enumerate(["the cat", "water", "the big red sun", "my friend", "good"])}
QRELS = {"q1": {"d0": 1}, "q2": {"d1": 2, "d4": 1}, "q3": {"d2": 1}, "q4": {"d3": 0, "d0": 1}}
METRICS = ["map", "mrr", "ndcg@3", "recall@2"]


def collection(name: str = "test", **sides: str) -> Collection:
    return Collection(name, QUERIES, DOCUMENTS, QRELS, **sides)


@pytest.fixture
def module(tiny_bert, tiny_unigram) -> DistillationModule:
    student = TransformerEncoder(tiny_unigram, max_length=32)
    return DistillationModule(student, OnlineTeacher(tiny_bert, max_length=32), MSE(), score="both").eval()


def trainer_with(*collections: Collection) -> SimpleNamespace:
    return SimpleNamespace(datamodule=SimpleNamespace(collections={each.name: each for each in collections}))


def evaluate(callback: RetrievalEvaluation, module: DistillationModule, data: Collection, batches=None, test=True):
    """What the trainer does in a test, or in a validation."""
    logged: dict[str, float] = {}
    module.log = lambda name, value, **_: logged.update({name: value})
    trainer = trainer_with(data)
    stage = "test" if test else "validation"
    getattr(callback, f"on_{stage}_epoch_start")(trainer, module)
    for number, batch in enumerate(batches or text_batches([data], 2, 0, 1)):
        with torch.no_grad():
            outputs = module.validation_step(batch, number)
        getattr(callback, f"on_{stage}_batch_end")(trainer, module, outputs, batch, number)
    getattr(callback, f"on_{stage}_epoch_end")(trainer, module)
    return logged


def vectors(encode, texts: dict[str, str]) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """Pooled vector and unit token vectors of each text, encoded alone."""
    result = {}
    for name, text in texts.items():
        with torch.no_grad():
            found = encode([text], tokens=True)
        tokens = torch.nn.functional.normalize(found.tokens[0][found.mask[0]], dim=-1)
        result[name] = found.pooled[0], tokens
    return result


def by_hand(queries, documents, maxsim: bool) -> dict[str, dict[str, float]]:
    """Metric -> query -> value, from the definitions, with loops."""
    values: dict[str, dict[str, float]] = {metric: {} for metric in METRICS}
    for query, (q_pooled, q_tokens) in queries.items():
        scores = {}
        for document, (d_pooled, d_tokens) in documents.items():
            scores[document] = float((q_tokens @ d_tokens.T).max(1).values.sum() if maxsim else q_pooled @ d_pooled)
        ranking = sorted(scores, key=scores.get, reverse=True)
        relevant = {name for name, grade in QRELS[query].items() if grade > 0}
        hits = [rank for rank, name in enumerate(ranking, 1) if name in relevant]
        values["map"][query] = sum((i + 1) / rank for i, rank in enumerate(hits)) / len(relevant)
        values["mrr"][query] = 1 / hits[0]
        gains = [QRELS[query].get(name, 0) for name in ranking[:3]]
        ideal = sorted(QRELS[query].values(), reverse=True)[:3]
        dcg, best = (sum(g / math.log2(i + 2) for i, g in enumerate(each)) for each in (gains, ideal))
        values["ndcg@3"][query] = dcg / best
        values["recall@2"][query] = sum(rank <= 2 for rank in hits) / len(relevant)
    return values


@pytest.mark.parametrize("sides", [("student", "teacher"), ("teacher", "student"), ("student", "student")])
def test_equals_the_definitions(module, sides):
    data = collection(query_side=sides[0], document_side=sides[1])
    callback = RetrievalEvaluation(METRICS)
    logged = evaluate(callback, module, data)
    readers = {"student": module, "teacher": module.teacher.encode}
    queries, documents = vectors(readers[sides[0]], QUERIES), vectors(readers[sides[1]], DOCUMENTS)
    for prefix, maxsim in (("", False), ("maxsim/", True)):
        expected = by_hand(queries, documents, maxsim)
        for metric in METRICS:
            found = callback.results["test"].per_query[prefix + metric]
            assert found == pytest.approx(expected[metric]), prefix + metric
            assert logged[f"test/{prefix}{metric}"] == pytest.approx(sum(expected[metric].values()) / len(QUERIES))
    assert set(logged) == {f"test/{prefix}{metric}" for prefix in ("", "maxsim/") for metric in METRICS}
    assert set(callback.results["test"].runs) == {"pooled", "maxsim"}


@pytest.mark.parametrize("score", ["pooled", "maxsim"])
def test_one_score_alone_has_plain_names(module, score):
    module.score = score
    callback = RetrievalEvaluation(["map"])
    assert list(evaluate(callback, module, collection())) == ["test/map"]
    assert list(callback.results["test"].runs) == [score]


def test_undistilled_is_the_teacher_on_both_sides(module):
    callback = RetrievalEvaluation(["map"])
    evaluate(callback, module, collection())
    read = module.teacher.encode
    expected = by_hand(vectors(read, QUERIES), vectors(read, DOCUMENTS), maxsim=False)
    assert callback.results["undistilled"].per_query["map"] == pytest.approx(expected["map"])
    assert "teacher" not in callback.results


def test_teacher_row_is_the_english_twin(module):
    english = Collection("english", {q: DOCUMENTS[f"d{i}"] for i, q in enumerate(QUERIES)}, DOCUMENTS, QRELS, "teacher")
    callback = RetrievalEvaluation(["mrr"])
    module.log = lambda *_, **__: None
    callback.on_test_epoch_end(trainer_with(collection(), english), module)
    assert callback.results["teacher"].per_query["mrr"]["q1"] == 1.0  # the query is the document
    assert set(callback.results) == {"undistilled", "teacher"}


def test_items_that_come_twice_count_once(module):
    """Ranks pad their share by repeating: the same texts in other batches, some of them twice, give the same."""
    plain, repeated = RetrievalEvaluation(METRICS), RetrievalEvaluation(METRICS)
    data = collection()
    first = evaluate(plain, module, data)
    shares = [batch for rank_ in (0, 1, 2) for batch in text_batches([data], 1, rank_, 3)]
    assert len(shares) > len(QUERIES)
    assert evaluate(repeated, module, data, shares[::-1]) == first
    assert repeated.results["test"].per_query == plain.results["test"].per_query
    assert len(repeated.results["test"].runs["pooled"]) == len(QUERIES)


def test_each_validation_starts_anew(module):
    callback = RetrievalEvaluation(["map"])
    data = collection("dev")
    first = evaluate(callback, module, data, test=False)
    with torch.no_grad():
        for weight in module.student.parameters():
            weight.add_(torch.randn_like(weight))
    second = evaluate(callback, module, data, test=False)
    expected = by_hand(vectors(module, QUERIES), vectors(module.teacher.encode, DOCUMENTS), maxsim=False)["map"]
    assert second["dev/map"] == pytest.approx(sum(expected.values()) / len(QUERIES))
    assert list(first) == list(second) == ["dev/map", "dev/maxsim/map"]
    assert set(callback.results) == {"dev"}


def test_the_teacher_reads_the_documents_once(module, monkeypatch):
    calls = []
    encode = retrieval_evaluation.encode_with_teacher
    monkeypatch.setattr(
        retrieval_evaluation, "encode_with_teacher", lambda *args: calls.append(len(args[1])) or encode(*args)
    )
    callback = RetrievalEvaluation(["map"])
    for _ in range(3):
        evaluate(callback, module, collection("dev"), test=False)
    assert calls == [len(DOCUMENTS)]
    evaluate(callback, module, collection())
    evaluate(callback, module, collection())
    assert sorted(calls) == sorted([len(DOCUMENTS), len(DOCUMENTS), len(QUERIES)])


def test_concatenated_texts_are_sorted_and_unique():
    tokens = torch.arange(12.0).reshape(3, 2, 2) + 1
    mask = torch.tensor([[True, False], [True, True], [True, False]])
    embeddings = Embeddings(pooled=torch.arange(6.0).reshape(3, 2), tokens=tokens, mask=mask)
    part = EncodedTexts.from_embeddings(["b", "c", "a"], embeddings)
    merged = EncodedTexts.concatenate([part, part])
    assert merged.ids == ["a", "b", "c"]
    assert merged.pooled.tolist() == [[4, 5], [0, 1], [2, 3]]
    assert merged.tokens is not None
    assert merged.tokens.lengths.tolist() == [1, 1, 2]
    assert merged.tokens.values.dtype == torch.float16


def test_k_bounds_the_lists(module):
    callback = RetrievalEvaluation(["map"], k=2)
    evaluate(callback, module, collection())
    assert {len(found) for found in callback.results["test"].runs["pooled"].values()} == {2}


def test_maxsim_without_tokens_is_refused():
    texts = EncodedTexts(["a"], torch.ones(1, 2), None)
    with pytest.raises(ValueError, match="MaxSim needs token states"):
        rank(texts, texts, collection(), ["map"], "maxsim", 10)


def test_wrong_metric():
    with pytest.raises(ValueError, match="did you mean 'map'"):
        RetrievalEvaluation(["mapp"])


def test_batch_of_texts_moves_nowhere():
    batch = TextBatch("test", "queries", ["a"], ["b"])
    assert batch.to("cpu") is batch
