"""Ranks that train in chunks have the gradient of one process on the whole batch, as DDP reduces it."""

from __future__ import annotations

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch.nn.parallel import DistributedDataParallel

from tests.lightning_modules.test_chunks import PAIRS, Step, assert_equal, gradients
from tests.strategies.test_all_strategies import VARIANTS

BUILDS = {name: builds[0] for name, builds in VARIANTS.items()}


def on_a_rank(rank, ranks, folder, folders):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=ranks)
    rows, results = len(PAIRS) // ranks, {}
    for name, build in BUILDS.items():
        step = DistributedDataParallel(Step(build, folders, 1), find_unused_parameters=True)
        results[name] = gradients(step, PAIRS[rank * rows : (rank + 1) * rows])
    torch.save(results, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [2, 4])
def test_ranks_have_the_gradient_of_one_process(ranks, tmp_path, tiny_bert, tiny_unigram):
    folders = tiny_bert, tiny_unigram
    mp.spawn(on_a_rank, (ranks, str(tmp_path), folders), nprocs=ranks)
    results = [torch.load(tmp_path / f"{rank}.pt") for rank in range(ranks)]
    for name, build in BUILDS.items():
        whole = gradients(Step(build, folders, 0))
        for rank in results:
            assert_equal(rank[name], whole, 1e-5)
