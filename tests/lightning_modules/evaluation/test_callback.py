from __future__ import annotations

import math

import pytest
import torch

from lightning_modules.distillation import DistillationModule
from lightning_modules.evaluation import encoding
from lightning_modules.evaluation.callback import RetrievalEvaluation
from lightning_modules.evaluation.encoding import EncodedTexts, StudentEncoder, encode
from lightning_modules.evaluation.ranking import rank
from lightning_modules.students.transformer import TransformerEncoder
from lightning_modules.teachers.base import Teacher
from lightning_modules.teachers.online import OnlineTeacher
from retrieval.collection import Collection
from retrieval.results import LEXICAL
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


def vectors(read, texts: dict[str, str]) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """Pooled vector and unit token vectors of each text, encoded alone."""
    result = {}
    for name, text in texts.items():
        with torch.no_grad():
            found = read([text], tokens=True)
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
def test_equals_the_definitions(module, evaluate, sides):
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
def test_one_score_alone_has_plain_names(module, evaluate, score):
    module.score = score
    callback = RetrievalEvaluation(["map"])
    assert list(evaluate(callback, module, collection())) == ["test/map"]
    assert list(callback.results["test"].runs) == [score]


def test_undistilled_is_the_teacher_on_both_sides(module, evaluate):
    callback = RetrievalEvaluation(["map"])
    evaluate(callback, module, collection())
    read = module.teacher.encode
    expected = by_hand(vectors(read, QUERIES), vectors(read, DOCUMENTS), maxsim=False)
    assert callback.results["undistilled"].per_query["map"] == pytest.approx(expected["map"])
    assert "teacher" not in callback.results


def test_teacher_row_is_the_english_twin(module, evaluate):
    english = Collection("english", {q: DOCUMENTS[f"d{i}"] for i, q in enumerate(QUERIES)}, DOCUMENTS, QRELS, "teacher")
    callback = RetrievalEvaluation(["mrr"])
    evaluate(callback, module, collection(), english)
    assert callback.results["teacher"].per_query["mrr"]["q1"] == 1.0  # the query is the document
    assert set(callback.results) - set(LEXICAL) == {"test", "undistilled", "teacher"}


LIMITS = [{"limit_test_batches": 1}, {"limit_test_batches": 0.3}, {"fast_dev_run": True}, {"overfit_batches": 0.1}]


@pytest.mark.parametrize("test", [True, False])
@pytest.mark.parametrize("limits", LIMITS)
def test_a_trainer_with_limits_evaluates_whole_collections(module, evaluate, limits, test):
    if not test:
        limits = {name.replace("test", "val"): value for name, value in limits.items()}
    data = collection("test" if test else "dev")
    limited, whole = RetrievalEvaluation(METRICS), RetrievalEvaluation(METRICS)
    assert evaluate(limited, module, data, test=test, **limits) == evaluate(whole, module, data, test=test)
    assert limited.results == whole.results


@pytest.mark.parametrize("test", [True, False])
def test_nothing_is_evaluated_where_nothing_is_asked_for(module, evaluate, test):
    callback = RetrievalEvaluation(METRICS)
    limits = {"limit_test_batches" if test else "limit_val_batches": 0}
    assert evaluate(callback, module, collection("test" if test else "dev"), test=test, **limits) == {}
    assert callback.results == {}


def test_the_student_encodes_in_eval_mode_and_in_the_precision_of_the_trainer(module, evaluate):
    seen = []
    forward = module.student.forward
    module.student.forward = lambda *args, **options: (
        seen.append((torch.is_autocast_enabled("cpu"), module.student.training)) or forward(*args, **options)
    )
    module.train()
    evaluate(RetrievalEvaluation(["map"]), module, collection(), precision="bf16-mixed")
    assert set(seen) == {(True, False)}
    assert module.student.training
    seen.clear()
    result = StudentEncoder(module).encode(["maji"])
    assert seen == [(False, False)]
    assert module.student.training
    assert not result.pooled.requires_grad


@pytest.mark.parametrize("world_size", [1, 2, 3, 50])
@pytest.mark.parametrize("reader", ["student", "teacher"])
def test_ranks_share_the_work_and_each_text_counts_once(module, monkeypatch, world_size, reader):
    encoder = StudentEncoder(module) if reader == "student" else module.teacher
    whole = encode(encoder, QUERIES, "queries", tokens=True, batch_size=1)
    shares = []
    monkeypatch.setattr(encoding, "gathered", lambda parts: shares.append(parts) or [parts])
    for number in range(world_size):
        monkeypatch.setattr(encoding, "rank_and_world_size", lambda number=number: (number, world_size))
        encode(encoder, QUERIES, "queries", tokens=True, batch_size=1)
    assert len({len(share) for share in shares}) == 1, "sharded models wait for each other in each batch"
    merged = EncodedTexts.concatenate([part for share in shares[::-1] for part in share])
    assert merged.ids == whole.ids == sorted(QUERIES)
    assert merged.pooled.equal(whole.pooled)
    assert merged.tokens.values.equal(whole.tokens.values)


def test_texts_of_similar_length_go_together_longest_first():
    class Counting(Teacher):
        dim = 1
        seen: list[list[str]] = []  # noqa: RUF012
        prepare = fit_idf = lambda *_, **__: None

        def encode(self, texts, tokens=False, device=None, side="queries"):
            self.seen.append(texts)
            return Embeddings(torch.ones(len(texts), 1))

    texts = {f"d{number}": "x" * length for number, length in enumerate([3, 9, 1, 9, 5])}
    encoded = encode(Counting(), texts, "documents", tokens=False, batch_size=2)
    assert [list(map(len, batch)) for batch in Counting.seen] == [[9, 9], [5, 3], [1]]
    assert encoded.ids == list(texts)
    assert encoded.of(["d3", "d0"]).ids == ["d3", "d0"]


def test_each_validation_starts_anew(module, evaluate):
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


def test_the_teacher_reads_the_documents_once(module, evaluate, monkeypatch):
    read: list[str] = []
    original = module.teacher.encode
    monkeypatch.setattr(module.teacher, "encode", lambda texts, *args, **options: (
        read.extend(texts) or original(texts, *args, **options)
    ))  # fmt: skip
    callback = RetrievalEvaluation(["map"])
    for _ in range(3):
        evaluate(callback, module, collection("dev"), test=False)
    assert sorted(read) == sorted(DOCUMENTS.values())
    read.clear()
    evaluate(callback, module, collection())
    evaluate(callback, module, collection())
    assert sorted(read) == sorted([*DOCUMENTS.values(), *QUERIES.values()])
    other = Collection("test", QUERIES | {"q1": "mbwa"}, DOCUMENTS, QRELS)
    evaluate(callback, module, other)
    assert sorted(read[-4:]) == sorted(other.queries.values()), "these queries are new"


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


def test_k_bounds_the_lists(module, evaluate):
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
