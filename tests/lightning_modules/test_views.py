from __future__ import annotations

import statistics

import pytest
import torch

from lightning_modules.encoded_texts import EncodedTexts
from lightning_modules.ranking import rank
from retrieval.collection import Collection, View
from retrieval.tokens import TokenMatrix

IMAGES, CAPTIONS = 13, 5
METRICS = ["rsum", "success@1", "success@5", "success@10", "median_rank"]


def flickr_like(captions: int = CAPTIONS, name: str = "test") -> Collection:
    """Images with some captions each; the last image has one only."""
    queries = {f"i{i:02}#{c}": f"caption {c} of {i}" for i in range(IMAGES) for c in range(captions if i < 12 else 1)}
    documents = {f"i{i:02}": f"image {i}" for i in range(IMAGES)}
    qrels = {query: {query[:3]: 1} for query in queries}
    back = {image: {query: 1 for query in queries if query[:3] == image} for image in documents}
    views = (View("text_to_image", qrels), View("image_to_text", back, transposed=True))
    return Collection(name, queries, documents, qrels, views=views)


def random_texts(ids, seed: int) -> EncodedTexts:
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, 5, (len(ids),), generator=generator)
    tokens = torch.nn.functional.normalize(torch.randn(int(lengths.sum()), 6, generator=generator), dim=1)
    pooled = torch.randn(len(ids), 4, generator=generator).round()  # many equal vectors, so many ties
    pooled[pooled.abs().sum(1) == 0, 0] = 1
    return EncodedTexts(list(ids), pooled, TokenMatrix(tokens, torch.nn.functional.pad(lengths.cumsum(0), (1, 0))))


def scores_by_hand(asking: EncodedTexts, asked: EncodedTexts, kind: str) -> dict[str, dict[str, float]]:
    table = {}
    for row, name in enumerate(asking.ids):
        table[name] = {}
        for place, other in enumerate(asked.ids):
            if kind == "pooled":
                value = torch.cosine_similarity(asking.pooled[row].double(), asked.pooled[place].double(), dim=0)
                table[name][other] = round(float(value), 6)
            else:
                mine, theirs = (
                    each.tokens.select(torch.tensor([at])).values for each, at in ((asking, row), (asked, place))
                )
                table[name][other] = float((mine @ theirs.T).max(1).values.sum())
    return table


def best_rank(scores: dict[str, float], relevant) -> int:
    order = sorted(scores, reverse=True)
    order.sort(key=scores.get, reverse=True)  # stable: ties by descending id
    return min(order.index(name) + 1 for name in relevant)


@pytest.mark.parametrize("kind", ["pooled", "maxsim"])
def test_image_text_metrics_equal_a_slow_loop(kind):
    collection = flickr_like()
    queries, documents = random_texts(sorted(collection.queries), 0), random_texts(collection.documents, 1)
    result = rank(queries, documents, collection, METRICS, kind, 100)
    images = {image: [query for query in collection.queries if query[:3] == image] for image in collection.documents}
    forward = scores_by_hand(queries, documents, kind)
    backward = scores_by_hand(documents, queries, kind)
    ranks = {
        "text_to_image": {query: best_rank(forward[query], [query[:3]]) for query in forward},
        "image_to_text": {image: best_rank(backward[image], captions) for image, captions in images.items()},
    }
    total = 0.0
    for view, found in ranks.items():
        assert result.means[f"{view}/median_rank"] == statistics.median(found.values())
        for k in (1, 5, 10):
            share = sum(place <= k for place in found.values()) / len(found)
            assert result.means[f"{view}/success@{k}"] == pytest.approx(share)
            assert result.per_query[f"{view}/success@{k}"] == {name: place <= k for name, place in found.items()}
            total += 100 * share
    assert result.means["rsum"] == pytest.approx(total)
    assert 0 < total < 600
    assert sum(result.per_query["rsum"].values()) / IMAGES == pytest.approx(total)
    assert list(result.per_query["rsum"]) == list(collection.documents)
    assert set(result.runs) == {f"text_to_image.{kind}", f"image_to_text.{kind}"}
