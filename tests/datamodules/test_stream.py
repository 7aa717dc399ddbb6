"""Streamed pairs: what an epoch holds, in which order, on how many ranks and workers."""

from __future__ import annotations

import itertools
import pickle
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from datamodules.base import PairsDataModule
from datamodules.loading import PairLoader, Position, StreamDataset, StreamSampler, stream_loader
from datamodules.pairs import Pair, PairBatch, make_pairs
from datamodules.sources import PairFile, PairSource, SampledSource
from datamodules.text import fold, text_id
from foundations.errors import InputError
from lightning_modules.distillation import teacher_texts
from lightning_modules.evaluation.callback import RetrievalEvaluation
from retrieval.collection import Collection

ROOT = Path(__file__).parents[2]


class Numbers(PairSource):
    """Rows 0, 1, 2, ... in chunks of given sizes; counts what is read and parsed."""

    def __init__(self, sizes: Sequence[int]) -> None:
        self.sizes = np.array(sizes)
        self.starts = np.cumsum(self.sizes) - self.sizes
        self.chunks_read: list[int] = []
        self.parsed: list[int] = []

    def chunk_sizes(self) -> Any:
        return self.sizes

    def read_chunk(self, number: int) -> list[int]:
        self.chunks_read.append(number)
        start = int(self.starts[number])
        return list(range(start, start + int(self.sizes[number])))

    def parse(self, row: int) -> Pair:
        self.parsed.append(row)
        return Pair(f"s {row}", f"t {row}", row)

    def row_length(self, row: int) -> int:
        return row * 7919 % 101


SIZES = [7] * 20 + [3]  # 143 rows


def batches(
    batch: int = 5,
    world: int = 1,
    rank: int = 0,
    at: Position | None = None,
    workers: int = 0,
    buffer: int = 40,
    seed: int = 0,
    bucket: bool = True,
    source: PairSource | None = None,
) -> list[list[int]]:
    source = source or Numbers(SIZES)
    loader = stream_loader(source, batch, seed, rank, world, buffer, bucket, workers, lambda: at or Position())
    result = []
    for each in loader:
        assert isinstance(each, PairBatch)
        assert each.source == [f"s {row}" for row in each.ids.tolist()]
        result.append(each.ids.tolist())
    return result


@pytest.mark.parametrize("buffer", [1, 40, 64, 1000])
@pytest.mark.parametrize("bucket", [False, True])
@pytest.mark.parametrize("world", [1, 2, 3])
def test_an_epoch_holds_every_row_once_over_all_ranks(world: int, bucket: bool, buffer: int) -> None:
    ranks = [batches(4, world, rank, bucket=bucket, buffer=buffer) for rank in range(world)]
    rows = [row for rank in ranks for batch in rank for row in batch]
    assert len(rows) == len(set(rows)) == 143 // (4 * world) * 4 * world
    assert set(rows) <= set(range(143))
    assert {len(rank) for rank in ranks} == {143 // (4 * world)}
    assert {len(batch) for rank in ranks for batch in rank} == {4}


@pytest.mark.parametrize("bucket", [False, True])
def test_ranks_share_the_batches_of_one_process(bucket: bool) -> None:
    one = batches(12, bucket=bucket)
    many = [batches(4, 3, rank, bucket=bucket) for rank in range(3)]
    assert [first + second + third for first, second, third in zip(*many, strict=True)] == one


def test_workers_change_nothing() -> None:
    assert batches(workers=2) == batches() == batches(workers=3)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("start", [0, 1, 7, 8, 9, 20, 28])
def test_resume_goes_on_with_the_next_batch(start: int, workers: int) -> None:
    assert batches(at=Position(3, start), workers=workers) == batches(at=Position(3))[start:]
    assert len(batches()) == 28


def test_resume_reads_only_the_windows_that_are_left() -> None:
    source = Numbers(SIZES)
    rest = batches(at=Position(0, 24), source=source)  # windows of 8 batches, so the last one
    assert sorted(source.parsed) == sorted(itertools.chain(*rest))
    assert len(source.chunks_read) == 4  # rows 120 to 140 of the order


def test_a_rank_parses_its_own_rows_alone() -> None:
    source = Numbers(SIZES)
    own = batches(4, 3, 1, source=source)
    assert source.parsed == list(itertools.chain(*own))


def test_seeds_and_epochs_have_orders_of_their_own() -> None:
    orders = [batches(at=Position(epoch), seed=seed) for epoch, seed in itertools.product(range(3), range(3))]
    assert all(first != second for first, second in itertools.combinations(orders, 2))
    assert batches(seed=4) == batches(seed=4)


@pytest.mark.parametrize("buffer", [40, 1000])
def test_one_loader_goes_from_epoch_to_epoch(buffer: int) -> None:
    positions = [Position(), Position(1), Position(1, 27), Position(2), Position()]
    remaining = iter(positions)
    loader = stream_loader(Numbers(SIZES), 5, buffer=buffer, position=lambda: next(remaining))
    for position in positions:
        assert [batch.ids.tolist() for batch in loader] == batches(at=position, buffer=buffer)


def test_each_window_of_the_buffer_is_shuffled_by_itself() -> None:
    source = Numbers(SIZES)
    rows = list(itertools.chain(*batches(source=source, bucket=False)))
    order = [row for chunk in source.epoch_chunks(0, 0) for row in Numbers(SIZES).read_chunk(chunk)]
    shuffles = []
    for start in range(0, 120, 40):
        assert sorted(rows[start : start + 40]) == sorted(order[start : start + 40])
        shuffles.append([order.index(row) - start for row in rows[start : start + 40]])
    assert all(first != second for first, second in itertools.combinations([list(range(40)), *shuffles], 2))


def test_batches_hold_rows_of_similar_length() -> None:
    source = Numbers([100] * 100)

    def spread(bucket: bool) -> float:
        found = batches(10, source=source, buffer=5000, bucket=bucket)
        return float(np.mean([np.ptp([source.row_length(row) for row in batch]) for batch in found]))

    assert spread(True) < spread(False) / 5
    lengths = [np.mean([source.row_length(row) for row in batch]) for batch in batches(10, source=source, buffer=5000)]
    assert lengths != sorted(lengths)


class Subsets(Numbers):
    """Epochs of different sizes, with repeated chunks, as a mixture of languages has."""

    def epoch_chunks(self, epoch: int, seed: int) -> list[int]:
        return [[0, 1, 1, 2], [3], [5, 6, 7, 8, 9]][epoch]


def test_all_epochs_have_the_batches_of_the_first() -> None:
    source = Subsets([10] * 10)
    found = [Counter(itertools.chain(*batches(at=Position(epoch), source=source))) for epoch in range(3)]
    assert [sum(counts.values()) for counts in found] == [40, 40, 40]
    assert set(found[0].values()) == {1, 2}
    assert found[1] == dict.fromkeys(range(30, 40), 4)
    assert found[2] == dict.fromkeys(range(50, 90), 1)


def test_too_few_pairs_for_a_batch() -> None:
    with pytest.raises(InputError, match="found 143 training pairs, fewer than one batch of 72 on each of 2"):
        StreamSampler(Numbers(SIZES), 72, world_size=2)


def test_the_dataset_can_be_sent_to_another_process() -> None:
    source = Numbers(SIZES)
    dataset = StreamDataset(source, StreamSampler(source, 5), 40)
    first = dataset.__getitems__([9])
    assert pickle.loads(pickle.dumps(dataset)).__getitems__([9]) == first


@pytest.mark.parametrize("rows", [1, 5, 50, 142, 143])
def test_a_sample_is_a_random_subset(rows: int) -> None:
    samples = [SampledSource(Numbers(SIZES), rows, seed) for seed in (0, 0, 1)]
    ids = [[pair.id for pair in sample] for sample in samples]
    assert len(samples[0]) == rows == len(set(ids[0]))
    assert ids[0] == ids[1]
    assert ids[0] != ids[2] or rows > 140
    assert sorted(row for batch in batches(1, source=samples[0]) for row in batch) == sorted(ids[0])
    assert (samples[0].chunk_sizes() > 0).all()


def test_a_sample_reads_few_chunks_and_all_parts_of_the_file() -> None:
    source = Numbers([10] * 10_000)
    ids = np.array([pair.id for pair in SampledSource(source, 1000, 0)])
    assert len(ids) == 1000
    assert len(source.chunks_read) <= 256
    assert np.histogram(ids, 4, (0, 100_000))[0].min() > 150
    assert len(set((ids % 10).tolist())) == 10
    with pytest.raises(ValueError, match="cannot take 11 rows of a source with 10"):
        SampledSource(Numbers([10]), 11)


def test_ids_are_those_of_the_folded_source(tmp_path: Path) -> None:
    (tmp_path / "pairs.tsv").write_text(" Maji\u00a0 safi\tb \n", encoding="utf-8")
    assert list(PairFile(tmp_path / "pairs.tsv")) == [Pair("Maji safi", "b", text_id("maji SAFI"))]
    assert text_id("maji") != text_id("majj")
    ids = [text_id(str(n)) for n in range(1000)]
    assert len(set(ids)) == 1000
    assert torch.tensor(ids, dtype=torch.int64).min() >= 0
    assert max(ids) > 2**62


def write_pairs(path: Path, count: int, words: int = 4) -> Path:
    with path.open("w", encoding="utf-8") as file:
        for n in range(count):
            file.write(f"source {n} {'word ' * (n % words)}\ttarget {n} {'neno ' * (n % words)}\n")
    return path


@pytest.fixture
def pair_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PairFile:
    monkeypatch.setenv("POTSTILL_CACHE", str(tmp_path / "cache"))
    return PairFile(write_pairs(tmp_path / "pairs.tsv", 1000), chunk_rows=64)


def test_a_file_gives_the_pairs_that_reading_it_whole_gives(pair_file: PairFile) -> None:
    rows = [line.split("\t") for line in pair_file.path.read_text().splitlines()]
    expected = make_pairs((source, target) for source, target in rows)
    assert [(pair.source, pair.target) for pair in pair_file] == [(pair.source, pair.target) for pair in expected]
    assert [pair.id for pair in pair_file] == [text_id(fold(pair.source)) for pair in expected]
    sampler = StreamSampler(pair_file, 8)
    dataset = pickle.loads(pickle.dumps(StreamDataset(pair_file, sampler, 256)))
    loader = PairLoader(dataset, sampler, 2, Position)
    assert {pair for batch in loader for pair in batch.target} == {pair.target for pair in expected}


class StreamData(PairsDataModule):
    def load_pairs(self) -> PairSource:
        return Numbers(SIZES)

    def load_collections(self) -> dict[str, Collection]:
        return {
            name: Collection(name, {"q": "which 1?"}, {"d": "s 1", "e": f"{name} text"}, {"q": {"d": 1}})
            for name in ("dev", "test")
        }


def built(**options: Any) -> StreamData:
    data = StreamData(**{"remove_leaks": False} | options)
    data.setup()
    return data


def test_the_datamodule_streams() -> None:
    data = built(batch_size=5, shuffle_buffer=40)
    loader = data.train_dataloader()
    assert len(loader) == 28
    assert [batch.ids.tolist() for batch in loader] == batches()
    limited = built(batch_size=5, limit_pairs=30)
    assert len(limited.pairs) == 30
    assert {row for batch in limited.train_dataloader() for row in batch.ids.tolist()} == {
        pair.id for pair in limited.pairs
    }
    with pytest.warns(UserWarning, match="limit_pairs is 144, but there are 143 pairs only"):
        assert len(built(limit_pairs=144).pairs) == 143
    for option in ("shuffle_buffer", "vocabulary_sample"):
        with pytest.raises(ValueError, match=f"{option} is 0, expected at least 1"):
            StreamData(**{option: 0})


def test_the_teacher_reads_streamed_sources_only_on_demand() -> None:
    collections = ["s 1", "dev text", "s 1", "test text", "which 1?"]
    data = built()
    assert not data.caches_pairs
    assert list(teacher_texts(data, RetrievalEvaluation().teacher_sides(data.collections))) == collections
    data = built(cache_pairs=True)
    assert data.caches_pairs
    data.pairs.parsed.clear()  # type: ignore[union-attr]
    texts = iter(teacher_texts(data, RetrievalEvaluation().teacher_sides(data.collections)))
    assert next(texts) == "s 0"
    assert data.pairs.parsed == [0]  # type: ignore[union-attr]
    assert list(texts) == [f"s {n}" for n in range(1, 143)] + collections


def test_a_sample_of_the_pairs_for_the_vocabulary() -> None:
    assert sorted(pair.id for pair in built().sample_pairs()) == list(range(143))
    some = built(vocabulary_sample=20)
    assert len({pair.id for pair in some.sample_pairs()}) == 20
    assert some.sample_pairs() == some.sample_pairs() != built(vocabulary_sample=20, seed=1).sample_pairs()


MEASURE = """
import sys
from datamodules.sources import PairFile
from datamodules.loading import stream_loader
def peak():
    return max(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM")) / 1024
before, size = peak(), 0
for batch in stream_loader(PairFile(sys.argv[1]), 256, buffer=8192):
    size += len(batch)
print(size, before, peak())
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads the peak memory from /proc")
def test_memory_does_not_grow_with_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POTSTILL_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "pairs.tsv"
    with path.open("w") as file:
        for n in range(100_000):
            file.write(f"source {n} {'word ' * 50}\ttarget {n} {'neno ' * 50}\n")
    assert path.stat().st_size > 50e6
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, str(path)], capture_output=True, text=True, cwd=ROOT, check=True
    )
    rows, before, after = map(float, done.stdout.split())
    assert rows == 100_000 // 256 * 256
    # A window of 8,192 rows is 5 MB; the rows of the whole file would be 60 MB.
    assert after - before < 25


class ListData(StreamData):
    def load_pairs(self) -> Any:
        return make_pairs((f"s {n}", f"t {n}") for n in range(5))


def test_pairs_in_memory_need_not_be_encoded_before_training() -> None:
    sources = {f"s {n}" for n in range(5)}
    for cache_pairs, expected in ((None, True), (True, True), (False, False)):
        data = ListData(batch_size=2, cache_pairs=cache_pairs)
        data.setup()
        assert data.caches_pairs == expected
        assert (sources <= set(teacher_texts(data, RetrievalEvaluation().teacher_sides(data.collections)))) == expected
        assert len(data.sample_pairs()) == 5
