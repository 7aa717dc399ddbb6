from __future__ import annotations

import dataclasses
import math

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
import torch.nn.functional as F
from torch import nn

from strategies.base import Embeddings
from strategies.contrastive import Contrastive
from strategies.distributed import gather

RANKS, ROWS, WIDTH = 2, 3, 5
PARITY = [(symmetric, score) for symmetric in (False, True) for score in ("pooled", "maxsim")]
IDS = torch.tensor([7, 1, 2, 2, 7, 3])  # 7 and 2 stand on both ranks


def slow_infonce(rows, candidates, temperature, ids):
    losses = []
    for i, row in enumerate(rows):
        scores = {j: row @ candidates[j] / temperature for j in range(len(rows)) if j == i or ids[j] != ids[i]}
        losses.append(torch.logsumexp(torch.stack(list(scores.values())), 0) - scores[i])
    return torch.stack(losses).mean()


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("ids", [None, torch.tensor([4, 4, 1, 2, 4, 2])])
def test_equals_a_slow_loop(symmetric, ids, make_side):
    teacher, student = make_side(seed=1), dataclasses.replace(make_side(seed=2), ids=ids)
    vectors = teacher.pooled.requires_grad_(), student.pooled.requires_grad_()
    labels = list(range(6)) if ids is None else ids.tolist()
    wanted = slow_infonce(student.pooled, teacher.pooled, 0.2, labels)
    if symmetric:
        wanted = (wanted + slow_infonce(teacher.pooled, student.pooled, 0.2, labels)) / 2
    loss = Contrastive(temperature=0.2, symmetric=symmetric)(student, teacher)["contrastive"]
    assert torch.isclose(loss, wanted)
    gradients = zip(torch.autograd.grad(loss, vectors), torch.autograd.grad(wanted, vectors), strict=True)
    assert all(torch.allclose(ours, slow, atol=1e-6) for ours, slow in gradients)


def test_ids_of_the_teacher_serve_where_the_student_has_none(make_side):
    teacher, student = make_side(seed=1), make_side(seed=2)
    ids = torch.tensor([4, 4, 1, 2, 4, 2])
    one = Contrastive()(student, dataclasses.replace(teacher, ids=ids))
    other = Contrastive()(dataclasses.replace(student, ids=ids), teacher)
    assert torch.equal(one["contrastive"], other["contrastive"])
    assert not torch.isclose(one["contrastive"], Contrastive()(student, teacher)["contrastive"])


def test_accuracy_counts_students_nearest_to_their_own_source():
    teacher = Embeddings(torch.eye(4))
    student = Embeddings(0.8 * torch.eye(4)[[0, 1, 3, 2]] + 0.6 * torch.eye(4))
    assert Contrastive()(student, teacher)["info/accuracy"] == 0.5
    same = dataclasses.replace(student, ids=torch.tensor([0, 1, 2, 2]))  # the confused two share a source
    assert Contrastive()(same, teacher)["info/accuracy"] == 1


def test_learnable_temperature_has_a_gradient_and_stays_in_bounds(make_side):
    teacher, student = make_side(seed=1), make_side(seed=2)
    strategy = Contrastive(temperature=0.1, learnable=True)
    terms = strategy(student, teacher)
    assert terms["info/temperature"].item() == pytest.approx(0.1)
    assert torch.isclose(terms["contrastive"], Contrastive(temperature=0.1)(student, teacher)["contrastive"])
    (gradient,) = torch.autograd.grad(terms["contrastive"], strategy.log_scale)
    assert gradient != 0
    for beyond, bound in ((100.0, 0.01), (-100.0, 1.0)):
        with torch.no_grad():
            strategy.log_scale.fill_(beyond)
        terms = strategy(student, teacher)
        assert terms["info/temperature"].item() == pytest.approx(bound)
        (gradient,) = torch.autograd.grad(terms["contrastive"], strategy.log_scale)
        assert gradient != 0  # it can come back from the bound


def test_fixed_temperature_has_no_parameter():
    assert not list(Contrastive().parameters())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": 0.0}, r"temperature is .*, expected a number above 0"),
        ({"temperature": math.inf}, r"temperature is .*, expected a number above 0"),
        ({"temperature": 0.001, "learnable": True}, "expected 0.01 to 1 where it is learnable"),
        ({"temperature": 2.0, "learnable": True}, "expected 0.01 to 1 where it is learnable"),
    ],
)
def test_wrong_options(options, message):
    with pytest.raises(ValueError, match=message):
        Contrastive(**options)


class Pair(nn.Module):
    """A student, a teacher that is trained too, and the loss: so the parity covers every path of the gradient."""

    def __init__(self, symmetric, score="pooled"):
        super().__init__()
        torch.manual_seed(0)
        self.student, self.teacher = nn.Linear(4, WIDTH), nn.Linear(4, WIDTH)
        self.loss = Contrastive(temperature=0.3, learnable=True, symmetric=symmetric, score=score)

    def forward(self, x, y, ids):
        return self.loss(encoded(self.student, x, ids, 1), encoded(self.teacher, y, None, 2))["contrastive"]


def encoded(layer, x, ids, least):
    """Texts of several lengths, which depend on the values, so that the two ranks pad to others."""
    lengths = (x[:, 0] > 0.5).long() + (x[:, 1] > 0.5).long() + least
    tokens = torch.stack([layer(x.roll(shift, 1)) for shift in range(int(lengths.max()))], 1)
    mask = torch.arange(tokens.shape[1]) < lengths[:, None]
    return Embeddings(F.normalize(layer(x), dim=-1), tokens, mask, ids)


def full_batch():
    generator = torch.Generator().manual_seed(1)
    return torch.randn(RANKS * ROWS, 4, generator=generator), torch.randn(RANKS * ROWS, 4, generator=generator), IDS


def on_a_rank(rank, folder):
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=RANKS)
    own = slice(rank * ROWS, (rank + 1) * ROWS)
    results = {}
    for options in PARITY:
        model = Pair(*options)
        loss = model(*(tensor[own] for tensor in full_batch()))
        loss.backward()
        for parameter in model.parameters():  # as DistributedDataParallel does, which is slow to import
            dist.all_reduce(parameter.grad)
            parameter.grad /= RANKS
        results[options] = loss.detach(), {n: p.grad for n, p in model.named_parameters()}
    try:
        gather(torch.zeros(ROWS + rank, 2))
    except AssertionError as error:
        results["unequal"] = str(error)
    torch.save(results, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    mp.spawn(on_a_rank, (str(folder),), nprocs=RANKS)
    return [torch.load(folder / f"{rank}.pt") for rank in range(RANKS)]


@pytest.mark.parametrize("options", PARITY)
def test_two_ranks_have_the_gradient_of_one_process_on_the_full_batch(ranks, options):
    model = Pair(*options)
    loss = model(*full_batch())
    loss.backward()
    assert torch.isclose(torch.stack([rank[options][0] for rank in ranks]).mean(), loss)
    for name, parameter in model.named_parameters():
        for rank in ranks:
            assert torch.allclose(rank[options][1][name], parameter.grad, atol=1e-6), name


def test_equal_ids_on_different_ranks_are_not_negatives(ranks):
    """The parity above would also hold if both sides ignored ids: they do not."""
    x, y, _ = full_batch()
    unmasked = Pair(False)(x, y, torch.arange(RANKS * ROWS))
    assert (unmasked - torch.stack([rank[False, "pooled"][0] for rank in ranks]).mean()).abs() > 1e-3


def test_unequal_batches_across_ranks_are_refused(ranks):
    assert all("unequal batches" in rank["unequal"] for rank in ranks)


def test_gather_of_one_process_is_the_tensor_itself():
    x = torch.ones(2, 3)
    assert gather(x)[0] is x
