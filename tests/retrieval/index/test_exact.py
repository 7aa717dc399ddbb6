"""The fast search gives the bits of the slow one, whatever the vectors are."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import retrieval.index.search as module
from retrieval.index import exact as preselection
from retrieval.index.exact import POOLED_GRID, error_bound, on_grid
from retrieval.index.search import _search_slowly, search

CPU = torch.device("cpu")


def random_ids(count):
    return [f"d{i}" for i in np.random.default_rng(0).permutation(count)]


def slowly(queries, documents, k, ids):
    return _search_slowly(queries, [documents], k, ids, len(documents), "cosine", 256, CPU, lambda _: None)


def vectors(kind: str, count: int, width: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    normal = torch.randn(count, width, generator=generator)
    return {
        "normal": normal,
        "unit": torch.nn.functional.normalize(normal, dim=1),
        "half": normal.half(),
        "double": normal.double() * 10.0 ** torch.randint(-100, 100, (count, 1), generator=generator).double(),
        "near": 1 + 1e-4 * normal,  # all cosines are about 1
        "copies": normal[torch.randint(min(count, 20), (count,), generator=generator)],
        "integers": torch.randint(-1, 2, (count, width), generator=generator).float(),
        "zeros": normal * (torch.rand(count, 1, generator=generator) < 0.7),
        "huge": normal * 1e30,
        "tiny": normal * 1e-30,
    }[kind]


KINDS = ["normal", "unit", "half", "double", "near", "copies", "integers", "zeros", "huge", "tiny"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("k", [1, 10, 100])
def test_fast_equals_slow_bit_for_bit(kind, k):
    queries, documents, ids = vectors(kind, 30, 48, 1), vectors(kind, 1500, 48, 2), random_ids(1500)
    expected = slowly(queries, documents, k, ids)
    for memory, parts in ((1, documents), (256, documents), (1, documents.split(401))):
        scores, indices = search(queries, parts, k, ids, memory_mb=memory)
        assert torch.equal(scores, expected[0])
        assert torch.equal(indices, expected[1])


def test_best_documents_come_last():
    """Ascending scores: each block has better documents than all before it."""
    queries = torch.randn(5, 16, generator=torch.Generator().manual_seed(0))
    noise = torch.randn(4000, 16, generator=torch.Generator().manual_seed(1))
    documents = queries.mean(0) + noise * torch.linspace(10, 0.01, 4000)[:, None]
    ids = random_ids(4000)
    expected = slowly(queries, documents, 20, ids)
    found = search(queries, documents.split(50), 20, ids)
    assert torch.equal(found[0], expected[0])
    assert torch.equal(found[1], expected[1])


def test_only_what_is_too_dense_is_searched_slowly(monkeypatch):
    documents, queries = vectors("normal", 2000, 32, 0), vectors("normal", 8, 32, 1)
    documents[:500] = queries[3]  # more copies than are kept
    ids, redone = random_ids(2000), []
    original = module._search_slowly
    monkeypatch.setattr(module, "_search_slowly", lambda q, *rest: redone.append(len(q)) or original(q, *rest))
    scores, indices = search(queries, documents, 10, ids)
    expected = original(queries, [documents], 10, ids, 2000, "cosine", 256, CPU, lambda _: None)
    assert torch.equal(scores, expected[0])
    assert torch.equal(indices, expected[1])
    dense = (expected[1] < 500).any(dim=1)
    assert redone == [int(dense.sum())]
    assert 1 <= redone[0] < 4


@pytest.mark.parametrize("width", [1, 3, 64, 384, 1024])
def test_single_precision_stays_within_the_bound(width):
    for kind in ("normal", "half", "near", "integers"):
        queries, documents = vectors(kind, 20, width, 3), vectors(kind, 2000, width, 4)
        exact = on_grid(queries, POOLED_GRID)[0] @ on_grid(documents, POOLED_GRID)[0].T
        single = on_grid(queries, POOLED_GRID)[0].float() @ preselection._unit(documents, 0).T
        assert float((single.double() - exact.float().double()).abs().max()) < error_bound(width)


def test_a_machine_that_multiplies_worse_than_it_says_is_found_out(monkeypatch):
    documents, queries, ids = vectors("normal", 2000, 32, 0), vectors("normal", 8, 32, 1), random_ids(2000)
    unit = preselection._unit
    monkeypatch.setattr(preselection, "_unit", lambda *args: unit(*args).bfloat16().float())
    scores, indices = search(queries, documents, 10, ids)
    expected = slowly(queries, documents, 10, ids)
    assert torch.equal(scores, expected[0])
    assert torch.equal(indices, expected[1])


def test_autocast_does_not_slow_it_down(monkeypatch):
    documents, queries, ids = vectors("normal", 2000, 32, 0), vectors("normal", 8, 32, 1), random_ids(2000)
    expected = slowly(queries, documents, 10, ids)
    monkeypatch.setattr(module, "_search_slowly", None)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        scores, indices = search(queries, documents, 10, ids)
    assert torch.equal(scores, expected[0])
    assert torch.equal(indices, expected[1])


def test_a_vector_that_is_not_finite_is_named_by_its_number_in_the_whole():
    documents = vectors("normal", 2000, 32, 0)
    documents[1234, 5] = float("inf")
    with pytest.raises(ValueError, match="the vector of document 1234 is not finite"):
        search(documents[:3], documents.split(300), 10, random_ids(2000))
