"""Mixtures of languages: shares by temperature, ids that hold for all parts, one order for any number of workers."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from datamodules.base import PairsDataModule
from datamodules.mixture import Mixture, MixtureDataModule, quotas
from datamodules.pairs import Pair, make_pairs
from datamodules.sources import ListSource, PairSource
from foundations.errors import InputError
from lightning_modules.distillation import teacher_texts
from lightning_modules.evaluation.callback import RetrievalEvaluation
from retrieval.collection import Collection

SIZES = {"sw": 90, "so": 25, "mr": 5}


class Part(PairsDataModule):
    """Pairs "water 3" -> "sw 3", and a query for each language."""

    def __init__(self, name: str, size: int, twin: bool = True, extra: tuple[tuple[str, str], ...] = (), **options):
        super().__init__(**options)
        self.name, self.size, self.twin, self.extra = name, size, twin, extra

    def load_pairs(self):
        return make_pairs([*((f"Water {i}", f"{self.name} {i}") for i in range(self.size)), *self.extra])

    def load_collections(self):
        documents, qrels = {"d": "water"}, {"q": {"d": 1}}
        names = ["dev", "test", *(["english"] if self.twin else [])]
        return {
            name: Collection(name, {"q": f"{self.name} {name}"}, documents, qrels, "teacher" if i == 2 else "student")
            for i, name in enumerate(names)
        }


class Chunked(PairSource):
    """A source in chunks of 8 rows, as a file of lines has."""

    def __init__(self, pairs):
        self.pairs = pairs

    def chunk_sizes(self):
        return np.array([len(self.read_chunk(i)) for i in range(-(-len(self.pairs) // 8))])

    def read_chunk(self, number):
        return [f"{p.source}\t{p.target}".encode() for p in self.pairs[number * 8 : (number + 1) * 8]]

    def parse(self, row):
        return Pair(*row.decode().split("\t"), id=0)


def mixture(temperature: float = 1.0, **options) -> MixtureDataModule:
    return MixtureDataModule({name: Part(name, size) for name, size in SIZES.items()}, temperature, **options)


def drawn(data: MixtureDataModule, epoch: int = 0) -> list[str]:
    """The targets of an epoch, batch by batch."""
    loader = data.train_dataloader()
    loader.next_position = lambda: type(data._position())(epoch, 0)
    return [target for batch in loader for target in batch.target]


def languages(targets) -> Counter:
    return Counter(target.split()[0] for target in targets)


@pytest.mark.parametrize("temperature", [0.5, 1, 1.5, 2, 3.3, 5, 100, float("inf")])
@pytest.mark.parametrize("sizes", [[90, 25, 5], [7], [1000000, 3], [4, 4, 4], [1, 2, 3, 4, 5, 6]])
def test_shares_against_a_slow_computation(temperature, sizes):
    weights = []
    for size in sizes:
        weights.append((size / sum(sizes)) ** (1 / temperature))
    exact = [weight / sum(weights) * sum(sizes) for weight in weights]
    found = quotas(sizes, temperature)
    assert sum(found) == sum(sizes)
    assert all(abs(share - expected) < 1 for share, expected in zip(found, exact, strict=True))


@pytest.mark.parametrize("temperature", [1, 2, float("inf")])
def test_an_epoch_holds_the_shares(temperature):
    data = mixture(temperature, batch_size=4)
    data.setup("fit")
    for epoch in range(3):
        found = drawn(data, epoch)
        assert (
            languages(found) == data.shares == dict(zip(SIZES, quotas(list(SIZES.values()), temperature), strict=True))
        )
        times = Counter(found)
        for name, size in SIZES.items():
            each = [times[f"{name} {i}"] for i in range(size)]
            assert max(each) - min(each) <= 1, "whole passes and a remainder"
    assert drawn(data, 0) != drawn(data, 1)


def test_the_remainder_is_another_one_in_each_epoch():
    data = mixture(2, batch_size=4)
    data.setup("fit")
    assert data.shares["sw"] < 90
    seen = [{target for target in drawn(data, epoch) if target.startswith("sw")} for epoch in range(6)]
    assert seen[0] != seen[1]
    assert len(set.union(*seen)) == 90


def test_parts_on_disk_are_drawn_by_chunks():
    pairs = {name: make_pairs((f"s {i}", f"{name} {i}") for i in range(size)) for name, size in SIZES.items()}
    source = Mixture({"sw": Chunked(pairs["sw"]), "so": pairs["so"], "mr": Chunked(pairs["mr"])}, 2)
    for epoch in range(4):
        rows = [row for chunk in source.epoch_chunks(epoch, 7) for row in source.read_chunk(chunk)]
        found = languages(source.parse(row).target for row in rows)
        for name, share in zip(SIZES, source.shares, strict=True):
            assert share <= found[name] < share + 8
    assert {pair.target for pair in source} == {pair.target for each in pairs.values() for pair in each}
    assert len(source) == 120


@pytest.mark.parametrize("size", [1, 65536, 65537, 200001])
def test_a_long_list_has_a_bounded_number_of_chunks(size):
    source = ListSource(range(size))
    sizes = source.chunk_sizes()
    assert sizes.sum() == len(source) == size
    assert len(sizes) <= 65536
    assert [len(source.read_chunk(i)) for i in (0, len(sizes) - 1)] == [sizes[0], sizes[-1]]


def test_the_order_depends_on_the_seed_only():
    data = [mixture(2, batch_size=4, seed=seed, num_workers=workers) for seed, workers in ((0, 0), (0, 2), (1, 0))]
    for each in data:
        each.setup("fit")
    first, workers, other = (drawn(each) for each in data)
    assert first == workers
    assert first != other
    assert languages(first) == languages(other)


@pytest.mark.parametrize("temperature", [1, 3])
def test_ranks_share_an_epoch_out(temperature, monkeypatch):
    whole = mixture(temperature, batch_size=8)
    whole.setup("fit")
    slices = [batch.target for batch in whole.train_dataloader()]
    parts = []
    for rank in (0, 1):
        data = mixture(temperature, batch_size=4)
        monkeypatch.setattr(data, "_rank", lambda rank=rank: (rank, 2))
        data.setup("fit")
        parts.append([batch.target for batch in data.train_dataloader()])
    assert [a + b for a, b in zip(*parts, strict=True)] == slices


def test_equal_sources_are_the_same_source():
    data = MixtureDataModule({"sw": Part("sw", 3), "so": Part("so", 3, extra=(("water  2", "biyo"), ("fire", "dab")))})
    data.setup("fit")
    ids = {}
    for pair in data.pairs:
        ids.setdefault(pair.id, set()).add(pair.source.casefold())
    assert sorted(map(sorted, ids.values())) == [["fire"], ["water 0"], ["water 1"], ["water 2"]]


def test_collections_are_named_by_language():
    data = MixtureDataModule({"sw": Part("sw", 3), "so": Part("so", 3, twin=False)})
    data.setup()
    assert list(data.collections) == ["dev/sw", "test/sw", "english/sw", "dev/so", "test/so"]
    assert all(name == collection.name for name, collection in data.collections.items())
    assert len(data.test_dataloader()) == len(data.val_dataloader()) == 1
    texts = set(teacher_texts(data, RetrievalEvaluation().teacher_sides(data.collections)))
    # What the teacher reads for the row "undistilled" is there for each language.
    assert {"sw test", "so test", "sw english", "Water 2"} <= texts
    assert not {"sw dev", "so dev"} & texts


def test_the_shares_are_printed_before_training_only(capsys):
    data = mixture(float("inf"))
    data.setup("test")
    assert capsys.readouterr().err == ""
    data = mixture(float("inf"))
    data.setup("fit")
    data.setup("fit")
    assert capsys.readouterr().err == (
        "pairs -> pairs of an epoch: sw 90 (75.0%) -> 40 (33.3%), so 25 (20.8%) -> 40 (33.3%), mr 5 (4.2%) -> 40 "
        "(33.3%)\n"
    )


@pytest.mark.parametrize("remove", [False, True])
def test_a_query_of_another_language_is_a_leak(remove):
    parts = {"sw": Part("sw", 3, extra=(("so test", "so test"),)), "so": Part("so", 3, extra=(("x", "sw DEV"),))}
    parts = {name: part.with_attributes(remove_leaks=remove) for name, part in parts.items()}
    data = MixtureDataModule(parts, batch_size=1, remove_leaks=remove)
    data.setup("fit")
    assert (data.leaks.pairs, data.leaks.exact, data.leaks.dropped) == (2, 1, remove)
    more = [] if remove else ["so test", "sw DEV"]
    expected = ["sw 0", "sw 1", "sw 2", *more[:1], "so 0", "so 1", "so 2", *more[1:]]
    assert [pair.target for pair in data.pairs] == expected
    assert data.shares == ({"sw": 3, "so": 3} if remove else {"sw": 4, "so": 4})
    assert sorted(drawn(data)) == sorted(expected)


def test_each_part_has_its_limit():
    data = MixtureDataModule({"sw": Part("sw", 90, limit_pairs=10), "so": Part("so", 25)})
    data.setup("fit")
    assert data.shares == {"sw": 10, "so": 25}
    assert languages(pair.target for pair in data.pairs) == {"sw": 10, "so": 25}


@pytest.mark.parametrize(
    ("parts", "options", "message"),
    [
        ({}, {}, "parts is empty"),
        ({"a/b": 1}, {}, "the part 'a/b' needs another name"),
        ({"average": 1}, {}, "the part 'average' needs another name"),
        ({"": 1}, {}, "the part '' needs another name"),
        ({"sw": 1}, {"limit_pairs": 5}, "limit_pairs belongs to the parts"),
        ({"sw": 1}, {"temperature": 0}, "temperature is 0, expected a number above 0"),
        ({"sw": 1}, {"temperature": -1.5}, "temperature is -1.5, expected a number above 0"),
        ({"sw": 1}, {"temperature": float("nan")}, "temperature is nan, expected a number above 0"),
    ],
)
def test_wrong_options(parts, options, message):
    with pytest.raises(ValueError, match=message):
        MixtureDataModule({name: Part(name, size) for name, size in parts.items()}, **options)


def test_one_language_under_two_names():
    data = MixtureDataModule({"sw": Part("sw", 3), "so": Part("so", 3), "Swahili": Part("sw", 3)})
    with pytest.raises(InputError, match="sw and Swahili hold the same data"):
        data.setup("fit")


def test_an_error_names_its_part():
    data = MixtureDataModule({"sw": Part("sw", 3), "so": Part("so", 0)})
    with pytest.raises(InputError, match=r"^so: found no training pair"):
        data.setup("fit")
