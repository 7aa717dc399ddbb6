"""Two ranks have the gradient of one process on the full batch: kl, relational, contrastive over lists."""

from __future__ import annotations

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
import torch.nn.functional as F
from torch import nn

from strategies.base import Embeddings, ListEmbeddings
from strategies.contrastive import Contrastive
from strategies.kl import KL
from strategies.margin_mse import MarginMSE
from strategies.relational import Relational

RANKS, ROWS, WIDTH = 2, 3, 5
IDS = torch.tensor([7, 1, 2, 2, 7, 3])  # 7 and 2 stand on both ranks
LENGTHS = torch.tensor([2, 0, 1, 3, 2, 1])  # the longest list of rank 0 has 2, that of rank 1 has 3
TOKENS = torch.tensor([2, 3, 1, 4, 2, 3])
BUILD = {
    "kl": lambda: KL(0.3),
    "kl maxsim": lambda: KL(0.3, score="maxsim"),
    "margin_mse": MarginMSE,
    "relational": lambda: Relational(angle_weight=1.0, similarity_weight=1.0),
    "contrastive": lambda: Contrastive(0.3, learnable=True),
    "contrastive maxsim": lambda: Contrastive(0.3, learnable=True, score="maxsim"),
    "contrastive negatives": lambda: Contrastive(0.3, listed="negatives"),
}


class Model(nn.Module):
    """A student and a teacher that is trained too, so that the parity covers every path of the gradient."""

    def __init__(self, name):
        super().__init__()
        torch.manual_seed(0)
        self.student, self.teacher = nn.Linear(4, WIDTH), nn.Linear(4, WIDTH)
        self.loss = BUILD[name]()

    def side(self, layer, own, offset):
        """The pairs of a slice, padded to what the longest of them needs, as a rank has them."""
        generator = torch.Generator().manual_seed(offset)
        total, width, length = RANKS * ROWS, int(LENGTHS.max()), int(TOKENS.max())
        pooled, tokens = torch.randn(total, 4, generator=generator), torch.randn(total, length, 4, generator=generator)
        lists = torch.randn(total, width, 4, generator=generator)
        states = torch.randn(total, width, 2, 4, generator=generator)
        columns, most = max(1, int(LENGTHS[own].max())), int(TOKENS[own].max())
        candidates = Embeddings(
            F.normalize(layer(lists[own, :columns]), dim=-1),
            layer(states[own, :columns]),
            torch.ones(ROWS if own != slice(None) else total, columns, 2).bool(),
            torch.arange(total * width).view(total, width)[own, :columns],
        )
        return ListEmbeddings(
            F.normalize(layer(pooled[own]), dim=-1),
            layer(tokens[own, :most]),
            torch.arange(most) < TOKENS[own, None],
            IDS[own],
            candidates=candidates,
            listed=torch.arange(columns) < LENGTHS[own, None],
            keys=torch.tensor([-1, 9, -1, 4, -1, 3])[own],  # 9 is the first passage of pair 3, on the other rank
        )

    def forward(self, own):
        terms = self.loss(self.side(self.student, own, 1), self.side(self.teacher, own, 2))
        return sum(value for name, value in terms.items() if not name.startswith("info"))


def backward(loss, model):
    loss.backward()
    for parameter in model.parameters():
        if parameter.grad is None:  # of the teacher, where the strategy has no gradient for it
            parameter.grad = torch.zeros_like(parameter)


def on_a_rank(rank, folder):
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=RANKS)
    results = {}
    for name in BUILD:
        model = Model(name)
        loss = model(slice(rank * ROWS, (rank + 1) * ROWS))
        backward(loss, model)
        for parameter in model.parameters():  # as DistributedDataParallel does, which is slow to import
            dist.all_reduce(parameter.grad)
            parameter.grad /= RANKS
        results[name] = loss.detach(), {key: parameter.grad for key, parameter in model.named_parameters()}
    torch.save(results, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    mp.spawn(on_a_rank, (str(folder),), nprocs=RANKS)
    return [torch.load(folder / f"{rank}.pt") for rank in range(RANKS)]


@pytest.mark.parametrize("name", BUILD)
def test_two_ranks_have_the_gradient_of_one_process_on_the_full_batch(ranks, name):
    model = Model(name)
    loss = model(slice(None))
    backward(loss, model)
    torch.testing.assert_close(torch.stack([rank[name][0] for rank in ranks]).mean(), loss.detach())
    for key, parameter in model.named_parameters():
        for rank in ranks:
            torch.testing.assert_close(rank[name][1][key], parameter.grad, atol=1e-6, rtol=1e-4, msg=key)


def test_equal_ids_on_different_ranks_are_not_counted(ranks):
    """The parity would also hold if both ignored ids."""
    side = Model("kl")
    with torch.no_grad():
        sides = [side.side(layer, slice(None), seed) for layer, seed in ((side.student, 1), (side.teacher, 2))]
        plain = [Embeddings(each.pooled, ids=IDS) for each in sides]
        unmasked = [Embeddings(each.pooled) for each in sides]
        strategy = KL(0.3, passages="batch")
        assert (strategy(*plain)["kl"] - strategy(*unmasked)["kl"]).abs() > 1e-3
