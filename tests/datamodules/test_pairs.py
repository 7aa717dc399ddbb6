from __future__ import annotations

import itertools
from types import SimpleNamespace
from typing import Any

import jsonargparse
import pytest
import torch

from datamodules import DATAMODULES
from datamodules.base import PairsDataModule
from datamodules.loading import PairSampler
from datamodules.pairs import Pair, PairBatch, make_pairs, without_repeats
from datamodules.text import fold, hash_share
from foundations.errors import InputError
from lightning_modules.distillation import teacher_texts
from lightning_modules.evaluation.callback import RetrievalEvaluation
from retrieval.collection import Collection


def collection(name: str, queries: int = 7, documents: int = 5, **sides: Any) -> Collection:
    return Collection(
        name,
        {f"q{i}": "x" * (i % 4 + 1) for i in range(queries)},
        {f"d{i}": "y" * (i + 1) for i in range(documents)},
        {"q0": {"d0": 1, "d1": 0}},
        **sides,
    )


class Data(PairsDataModule):
    def __init__(self, count: int = 20, collections: dict[str, Collection] | None = None, **options: Any) -> None:
        super().__init__(**options)
        self.count, self.given, self.loads = count, collections, 0

    def load_pairs(self) -> list[Pair]:
        self.loads += 1
        return make_pairs((f"source {i // 2}", f"target {i}") for i in range(self.count))

    def load_collections(self) -> dict[str, Collection]:
        return self.given if self.given is not None else {name: collection(name) for name in ("dev", "test")}


def built(rank: int = 0, world_size: int = 1, **options: Any) -> Data:
    data = Data(**options)
    data.trainer = SimpleNamespace(global_rank=rank, world_size=world_size, num_training_batches=float("inf"))  # type: ignore[assignment]
    data.setup("fit")
    return data


def test_case_and_white_space_make_no_new_source() -> None:
    pairs = make_pairs([("Big  cat", "a"), ("dog", "b"), ("big cat", "c"), ("E\u0301", "d"), ("\u00e9", "e")])
    assert [pair.id for pair in pairs] == [0, 1, 0, 2, 2]
    assert pairs[0].source == "Big cat"


def test_repeats_go() -> None:
    assert list(without_repeats([("a", "b"), ("A ", "B"), ("a", "c")])) == [("a", "b"), ("a", "c")]


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_ranks_together_see_what_one_process_sees(world_size: int) -> None:
    ranks = [PairSampler(50, 12 // world_size, 5, rank, world_size) for rank in range(world_size)]
    together = [list(itertools.chain(*batches)) for batches in zip(*ranks, strict=True)]
    assert together == list(PairSampler(50, 12, 5))
    assert len(ranks[0]) == 4
    assert len({index for batch in together for index in batch}) == 48


def test_permutation_depends_on_seed_and_epoch() -> None:
    orders = set()
    for seed in range(3):
        sampler = PairSampler(20, 4, seed)
        for epoch in range(3):
            sampler.set_epoch(epoch)
            orders.add(tuple(map(tuple, sampler)))
    assert len(orders) == 9


def test_start_leaves_out_what_is_done() -> None:
    sampler = PairSampler(20, 4)
    sampler.set_epoch(3)
    whole = list(sampler)
    sampler.set_epoch(3, start=2)
    assert list(sampler) == whole[2:]
    assert len(sampler) == 5


def test_too_few_pairs_for_one_batch() -> None:
    with pytest.raises(InputError, match="found 7 training pairs, fewer than one batch of 4 on each of 2 device"):
        PairSampler(7, 4, world_size=2)


@pytest.mark.parametrize("workers", [0, 2])
def test_training_batches(workers: int) -> None:
    data = built(batch_size=4, num_workers=workers)
    batches = list(data.train_dataloader())
    assert len(batches) == 5
    assert all(isinstance(batch, PairBatch) and len(batch) == 4 for batch in batches)
    assert sorted(text for batch in batches for text in batch.target) == sorted(f"target {i}" for i in range(20))
    for batch in batches:
        assert batch.ids.dtype == torch.int64
        assert [f"source {i}" for i in batch.ids.tolist()] == batch.source


def test_there_is_one_empty_batch_to_validate_and_to_test() -> None:
    data = built(eval_batch_size=4)
    assert len(list(data.val_dataloader())) == len(list(data.test_dataloader())) == 1
    del data.collections["dev"]
    assert list(data.val_dataloader()) == []


def test_batches_move_to_a_device_as_lightning_does_it() -> None:
    from lightning.fabric.utilities import move_data_to_device

    batch = PairBatch(["a"], ["b"], torch.tensor([3]))
    moved = move_data_to_device(batch, torch.device("meta"))
    assert moved.ids.device.type == "meta"
    assert moved.source == ["a"]


def test_setup_reads_once() -> None:
    data = built()
    data.setup("test")
    assert data.loads == 1


def test_limit_pairs_is_a_seeded_subset_in_order() -> None:
    first, again, other = built(limit_pairs=8), built(limit_pairs=8), built(limit_pairs=8, seed=1)
    assert first.pairs == again.pairs
    assert len(first.pairs) == 8
    assert first.pairs != other.pairs
    everything = built().pairs
    assert [pair for pair in everything if pair in first.pairs] == first.pairs
    with pytest.warns(UserWarning, match="limit_pairs is 99, but there are 20"):
        assert built(limit_pairs=99).pairs == everything


def test_teacher_texts_are_unique_and_in_order() -> None:
    collections = {
        "dev": Collection("dev", {"q": "dev query"}, {"d": "doc"}, {"q": {"d": 1}}),
        "test": Collection("test", {"q": "test query"}, {"d": "doc"}, {"q": {"d": 1}}),
        "english": Collection("english", {"q": "in English"}, {"d": "doc"}, {"q": {"d": 1}}, "teacher", "teacher"),
    }
    data = built(count=4, collections=collections, batch_size=2)
    sides = RetrievalEvaluation().teacher_sides(data.collections)
    assert teacher_texts(data, sides) == [
        "source 0",
        "source 1",
        "doc",
        "test query",
        "in English",
    ]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"queries": {}}, "'test' has no query"),
        ({"documents": {}}, "'test' has no document"),
        ({"qrels": {"q0": {"d0": 0}}}, "'test' has no relevant document"),
    ],
)
def test_an_empty_collection_is_refused(changes: dict[str, Any], message: str) -> None:
    parts = {"queries": {"q0": "a"}, "documents": {"d0": "b"}, "qrels": {"q0": {"d0": 1}}} | changes
    with pytest.raises(InputError, match=message):
        built(collections={"dev": collection("dev"), "test": Collection("test", **parts)})


def test_nothing_for_the_student_is_refused() -> None:
    with pytest.raises(ValueError, match="nothing is left for the student"):
        built(collections={"test": collection("test", query_side="teacher")})


def test_no_pairs_are_refused() -> None:
    with pytest.raises(InputError, match="found no training pair"):
        built(count=0)


@pytest.mark.parametrize(
    "options", [{"batch_size": 0}, {"eval_batch_size": -1}, {"num_workers": -1}, {"limit_pairs": 0}]
)
def test_wrong_numbers(options: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(options))} is .*, expected at least"):
        Data(**options)


OWN_OPTIONS = {
    "starter": ["language=so"],
    "starter_english": [],
    "afriqa": ["root=/nowhere"],
    "starter_images": ["language=so"],
    "flickr30k": ["root=/nowhere"],
    "flickr30k_entities": ["root=/nowhere"],
    "tsv": ["root=/nowhere"],
    "wikiclir": ["language=sw"],
    "schamoni": ["root=/nowhere"],
    "mmarco": ["language=hi"],
    "ir_datasets": ["id=hc4/fa/test"],
    "africlirmatrix": ["root=/nowhere", "language=som"],
    "ciral": ["root=/nowhere", "language=som"],
    "miracl": ["root=/nowhere", "language=sw"],
}
"""Options that a dataset cannot do without."""


@pytest.mark.parametrize("name", sorted(DATAMODULES.keys() - {"mixture"}))
def test_the_command_line_builds_each_datamodule(name: str) -> None:
    parser = jsonargparse.ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(PairsDataModule, "data")
    own = [f"--data={DATAMODULES[name]}", *(f"--data.{option}" for option in OWN_OPTIONS[name])]
    config = parser.parse_args([*own, "--data.batch_size=8", "--data.limit_pairs=5"])
    instantiate = getattr(parser, "instantiate", None) or parser.instantiate_classes  # named so before 4.49
    data = instantiate(config).data
    assert isinstance(data, PairsDataModule)
    assert (data.batch_size, data.limit_pairs, data.eval_batch_size) == (8, 5, 256)
    with pytest.raises(jsonargparse.ArgumentError):
        parser.parse_args([*own, "--data.batch_size=many"])


def test_hash_share_is_fixed_and_even() -> None:
    """A split that moves would make old and new figures incomparable."""
    assert hash_share("maji", "x") == 0.9145287443989589
    assert hash_share("maji", "y") != hash_share("maji", "x")
    shares = [hash_share(str(i), "x") for i in range(2000)]
    assert 0.22 < sum(share < 0.25 for share in shares) / 2000 < 0.28
    assert fold("ΣΑΣ") == fold("σας")
