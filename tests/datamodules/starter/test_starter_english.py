from __future__ import annotations

import pytest

from datamodules.starter.emoji import is_dev
from datamodules.starter.english import StarterEnglishDataModule, clauses, phrases
from datamodules.text import fold


def built() -> StarterEnglishDataModule:
    data = StarterEnglishDataModule(batch_size=2)
    data.setup()
    return data


def test_names_ask_for_their_keywords(tiny) -> None:
    found = {(pair.source, pair.target) for pair in built().pairs}
    assert ("big cat, Leo, zoo", "lion") in found
    assert ("plus, math", "plus sign") in found  # a symbol that is no emoji
    assert not [pair for pair in found if pair[1] == "dog"]  # its only keyword, "pet", is a query


def test_no_query_is_a_side_of_a_pair(tiny) -> None:
    data = built()
    queries = {text for each in data.collections.values() for text in each.queries.values()}
    assert queries == {"big cat", "Leo", "zoo", "pet", "house", "hot", "water", "cold", "sky"}
    sides = {fold(text) for pair in data.pairs for text in (pair.source, pair.target)}
    assert not sides & {fold(text) for text in queries}
    assert all(pair.source and pair.target for pair in data.pairs)


def test_collections_are_the_english_keywords(tiny) -> None:
    collections = built().collections
    assert set(collections) == {"dev", "test"}
    assert all(
        is_dev(fold(text)) == (name == "dev") for name in collections for text in collections[name].queries.values()
    )
    judged = collections["dev"].qrels | collections["test"].qrels
    assert judged["pet"] == {"1F408": 1, "1F415": 1}


def test_phrases_and_clauses() -> None:
    assert phrases("person in steamy room") == ["person in", "person in steamy", "steamy room", "in steamy room"]
    assert phrases("red heart") == phrases("heart") == phrases("") == []
    text = "Everyone has the right to work, to free choice; and to rest."
    assert list(clauses(text)) == [("to free choice; and to rest.", "Everyone has the right to work,")]
    assert not list(clauses("Everyone has the right to work"))


@pytest.mark.slow
def test_real_sizes(starter) -> None:
    data = built()
    sides = {fold(text) for pair in data.pairs for text in (pair.source, pair.target)}
    assert 4000 < len(data.pairs) < 5500
    assert not sides & {fold(text) for each in data.collections.values() for text in each.queries.values()}
