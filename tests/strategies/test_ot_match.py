from __future__ import annotations

import dataclasses
import math

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
import torch.nn.functional as F
from torch import nn

from strategies.base import INFO_PREFIX, Embeddings
from strategies.contrastive import Contrastive
from strategies.mse import MSE
from strategies.ot_match import OTMatch
from strategies.transport import solve
from strategies.weighted_sum import WeightedSum

RANKS, ROWS, WIDTH, PAIRS = 2, 40, 12, 480


def loss_of(terms):
    return sum(value for name, value in terms.items() if not name.startswith(INFO_PREFIX))


def set_noisy(strategy, noisy):
    """Let the strategy find these pairs noisy."""
    strategy.detector.judge = lambda standings: noisy
    return strategy


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("ids", [None, torch.tensor([4, 4, 1, 2, 4, 2])])
def test_clean_pairs_have_the_losses_of_contrastive_and_mse(symmetric, ids, make_side):
    teacher, student = make_side(seed=1), dataclasses.replace(make_side(seed=2), ids=ids)
    terms = OTMatch(temperature=0.2, symmetric=symmetric, pooled_weight=0.5)(student, teacher)
    wanted = Contrastive(temperature=0.2, symmetric=symmetric)(student, teacher)
    assert torch.isclose(terms["contrastive"], wanted["contrastive"])
    assert torch.equal(terms["info/accuracy"], wanted["info/accuracy"])
    assert torch.isclose(terms["pooled"], 0.5 * MSE()(student, teacher)["pooled"])


def slow_targets(student, teacher, noisy, ids, mass, epsilon):
    """One row of targets a pair, from the plan between the noisy pairs alone."""
    rows = [i for i in range(len(noisy)) if noisy[i]]
    cost = torch.tensor(
        [[1e3 if ids[i] == ids[j] else 1 - (student[i] @ teacher[j]).item() for j in rows] for i in rows]
    )
    half = torch.full((1, len(rows)), 1 / len(rows))
    plan = solve(cost[None], half, half, epsilon=epsilon, mass=mass).plan[0] * len(rows)
    targets = torch.diag(torch.tensor([0.0 if flag else 1.0 for flag in noisy]))
    for i, row in enumerate(rows):
        for j, column in enumerate(rows):
            if ids[row] != ids[column]:
                targets[row, column] = plan[i, j]
    return targets


@pytest.mark.parametrize("mass", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("symmetric", [False, True])
def test_equals_a_slow_loop(symmetric, mass, make_side):
    teacher, student = make_side(seed=1), make_side(seed=2)
    ids, noisy = torch.tensor([0, 1, 2, 3, 4, 1]), torch.tensor([True, True, False, True, False, True])
    student = dataclasses.replace(student, ids=ids, pooled=student.pooled.requires_grad_())
    strategy = OTMatch(temperature=0.3, symmetric=symmetric, warmup_steps=0, mass=mass, epsilon=0.1)
    terms = set_noisy(strategy, noisy)(student, teacher)
    if mass:
        targets = slow_targets(student.pooled, teacher.pooled, noisy.tolist(), ids.tolist(), mass, 0.1)
        assert terms["info/rematched"].item() == pytest.approx(mass, abs=1e-3)
    else:
        targets = torch.diag((~noisy).float())
    contrastive, pooled = [], []
    for i in range(6):
        counted = [j for j in range(6) if j == i or ids[j] != ids[i]]
        for rows, columns, weights in (
            (student.pooled, teacher.pooled, targets[i]),
            (teacher.pooled, student.pooled, targets[:, i]),
        ):
            logits = torch.stack([rows[i] @ columns[j] for j in counted]) / 0.3
            losses = logits.logsumexp(0) - logits
            contrastive.append(sum(weights[j] * losses[k] for k, j in enumerate(counted)))
        pooled.append(sum(targets[i, j] * (student.pooled[i] - teacher.pooled[j]).square().sum() for j in range(6)))
    if not symmetric:
        contrastive = contrastive[::2]
    wanted = sum(contrastive) / len(contrastive), sum(pooled) / 6
    for value, slow in zip((terms["contrastive"], terms["pooled"]), wanted, strict=True):
        assert torch.isclose(value, slow, atol=1e-4)
    gradients = (torch.autograd.grad(x, student.pooled, retain_graph=True)[0] for x in (loss_of(terms), sum(wanted)))
    ours, slow = (
        gradient - (gradient * student.pooled).sum(1, keepdim=True) * student.pooled for gradient in gradients
    )
    assert torch.allclose(ours, slow, atol=1e-3)  # along the sphere: the vectors have unit length


def test_no_pair_is_given_its_own_source_or_an_equal_one():
    vectors = torch.eye(4)
    side = Embeddings(vectors, ids=torch.tensor([0, 0, 1, 2]))
    strategy = set_noisy(OTMatch(warmup_steps=0, mass=1.0, contrastive_weight=0.0), torch.ones(4).bool())
    # Each student is at its own source, and any other is at the squared distance 2.
    terms = strategy(side, Embeddings(vectors))
    assert terms["pooled"].item() == pytest.approx(2 * terms["info/rematched"].item(), abs=1e-3)
    assert terms["info/rematched"] > 0.9


def test_a_single_noisy_pair_is_dropped(make_side):
    teacher, student = make_side(seed=1), make_side(seed=2)
    noisy = torch.arange(6) == 3
    terms = set_noisy(OTMatch(warmup_steps=0, mass=1.0), noisy)(student, teacher)
    distances = (student.pooled - teacher.pooled).square().sum(1)
    assert torch.isclose(terms["pooled"], distances[~noisy].sum() / 6)
    assert "info/rematched" not in terms


@pytest.mark.filterwarnings("error")
def test_noisy_pairs_of_one_source_have_nowhere_to_go(make_side):
    teacher, student = make_side(seed=1), dataclasses.replace(make_side(seed=2), ids=torch.tensor([0, 1, 2, 0, 3, 4]))
    noisy = torch.tensor([True, False, False, True, False, False])
    terms = set_noisy(OTMatch(warmup_steps=0, mass=0.5), noisy)(student, teacher)
    distances = (student.pooled - teacher.pooled).square().sum(1)
    assert torch.isclose(terms["pooled"], distances[~noisy].sum() / 6)
    assert terms["info/rematched"] == 0


def test_too_large_a_batch_is_refused_at_once(monkeypatch, make_side):
    monkeypatch.setattr("strategies.ot_match.LARGEST_BATCH", 5)
    with pytest.raises(ValueError, match="a batch has 6 pairs of all devices, expected at most 5: set mass to 0"):
        OTMatch()(make_side(seed=1), make_side(seed=2))
    OTMatch(mass=0.0)(make_side(seed=1), make_side(seed=2))


class Toy:
    """A linear student whose right answer is a rotation, and pairs of which a share is put together wrongly."""

    def __init__(self, rate, seed=0):
        self.generator = torch.Generator().manual_seed(seed)
        self.rotation = torch.linalg.qr(torch.randn(32, 32, generator=self.generator))[0]
        self.x = F.normalize(torch.randn(PAIRS, 32, generator=self.generator), dim=1)
        self.y = F.normalize(self.x @ self.rotation + 0.1 * torch.randn(PAIRS, 32, generator=self.generator), dim=1)
        chosen = torch.randperm(PAIRS, generator=self.generator)[: int(rate * PAIRS)]
        self.ids = torch.arange(PAIRS)
        self.ids[chosen] = chosen.roll(1)
        self.noisy = torch.zeros(PAIRS, dtype=torch.bool)
        self.noisy[chosen] = True

    def train(self, strategy, steps=120, size=96):
        torch.manual_seed(0)
        student = nn.Linear(32, 32, bias=False)
        optimiser = torch.optim.Adam(student.parameters(), lr=0.01)
        for step in range(steps):
            rows = torch.arange(step * size, (step + 1) * size) % PAIRS
            side = Embeddings(F.normalize(student(self.x[rows]), dim=1), ids=self.ids[rows], noisy=self.noisy[rows])
            terms = strategy(side, Embeddings(self.y[self.ids[rows]]))
            loss = loss_of(terms)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        x = F.normalize(torch.randn(400, 32, generator=self.generator), dim=1)
        error = 1 - F.cosine_similarity(student(x), x @ self.rotation).mean().item()
        return error, {name: value.item() for name, value in terms.items()}


@pytest.fixture(scope="module")
def plain_errors():
    return {name: Toy(0.4).train(strategy)[0] for name, strategy in (("nce", Contrastive(0.2)), ("mse", MSE()))}


@pytest.mark.parametrize("mass", [0.0, 0.1])
def test_noise_is_found_and_does_less_harm_than_to_mse_and_contrastive(mass, plain_errors):
    error, terms = Toy(0.4).train(OTMatch(temperature=0.2, warmup_steps=10, memory=288, mass=mass))
    assert terms["info/noise_rate"] == pytest.approx(0.4, abs=0.05)
    assert terms["info/noise_detected"] == pytest.approx(0.4, abs=0.08)
    assert terms["info/noise_precision"] > 0.9
    assert terms["info/noise_recall"] > 0.9
    assert error < 0.5 * plain_errors["mse"]
    assert error < 0.5 * plain_errors["nce"]


def test_clean_data_are_left_as_they_are():
    error, terms = Toy(0.0).train(OTMatch(temperature=0.2, warmup_steps=10, memory=288))
    assert terms["info/noise_detected"] < 0.02
    both = WeightedSum({"nce": Contrastive(0.2), "mse": MSE()})
    assert error == pytest.approx(Toy(0.0).train(both)[0], rel=0.05)


def test_the_true_mask_is_not_used(make_side):
    student, teacher = make_side(batch=150, seed=1), make_side(batch=150, seed=2)
    values = []
    for noisy in (None, torch.zeros(150).bool(), torch.arange(150) < 75):
        terms = OTMatch(warmup_steps=0)(dataclasses.replace(student, noisy=noisy), teacher)
        values.append((terms["contrastive"], terms["pooled"], terms["info/noise_detected"]))
        assert ("info/noise_rate" in terms) == (noisy is not None)
    assert values[0] == values[1] == values[2]


def test_evaluation_neither_counts_nor_remembers(make_side):
    student, teacher = make_side(seed=1), make_side(seed=2)
    strategy = OTMatch().eval()
    strategy(student, teacher)
    assert strategy.step == strategy.detector.seen == 0
    strategy.train()(student, teacher)
    assert strategy.step == 1
    assert strategy.detector.seen == 6


def test_a_checkpoint_goes_on_where_it_was(tmp_path):
    toy = Toy(0.4)
    strategy = OTMatch(warmup_steps=30, memory=300)
    toy.train(strategy, steps=60)
    torch.save(strategy.state_dict(), tmp_path / "state.pt")
    again = OTMatch(warmup_steps=30, memory=300)
    again.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    assert again.step == 60
    torch.manual_seed(0)
    side = Embeddings(F.normalize(toy.x @ toy.rotation + 0.2 * torch.randn(PAIRS, 32), dim=1), noisy=toy.noisy)
    teacher = Embeddings(toy.y[toy.ids])
    assert strategy(side, teacher) == again(side, teacher)
    assert strategy(side, teacher)["info/noise_detected"] > 0.2


@pytest.mark.parametrize("epsilon", [0.01, 0.05])
def test_finite_in_bfloat16_autocast(epsilon, make_side):
    teacher = make_side(batch=150, seed=1, dtype=torch.bfloat16)
    student = make_side(batch=150, seed=2, dtype=torch.bfloat16)
    pooled = student.pooled.requires_grad_()
    strategy = set_noisy(OTMatch(warmup_steps=0, epsilon=epsilon), torch.arange(150) % 2 == 0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        terms = strategy(student, teacher)
    loss_of(terms).backward()
    assert all(value.isfinite() for value in terms.values())
    assert pooled.grad.isfinite().all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": 0.0}, r"temperature is .*, expected a number above 0"),
        ({"warmup_steps": -1}, r"warmup_steps is .*, expected at least 0"),
        ({"memory": 10}, r"memory is .*, expected at least 100"),
        ({"threshold": 1.0}, "threshold is 1.0, expected a number above 0 and below 1"),
        ({"threshold": 0.0}, r"threshold is .*, expected a number above 0"),
        ({"mass": 1.5}, "mass is 1.5, expected a number from 0 to 1"),
        ({"mass": math.nan}, "mass is nan, expected a number from 0 to 1"),
        ({"epsilon": 0.0}, r"epsilon is .*, expected a number above 0"),
        ({"contrastive_weight": 0.0, "pooled_weight": 0.0}, "leave no loss"),
    ],
)
def test_wrong_options(options, message):
    with pytest.raises(ValueError, match=message):
        OTMatch(**options)


class Pair(nn.Module):
    """A student, a teacher that is trained too, and the loss, some steps after its warm-up."""

    def __init__(self, symmetric):
        super().__init__()
        torch.manual_seed(0)
        self.student, self.teacher = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)
        self.teacher.load_state_dict(self.student.state_dict())
        self.loss = OTMatch(temperature=0.3, symmetric=symmetric, warmup_steps=1, memory=150, mass=0.4)

    def forward(self, x, y, ids, noisy):
        student = Embeddings(F.normalize(self.student(x), dim=-1), ids=ids, noisy=noisy)
        return self.loss(student, Embeddings(F.normalize(self.teacher(y), dim=-1)))


def batches():
    generator = torch.Generator().manual_seed(1)
    for _ in range(3):
        x = torch.randn(RANKS * ROWS, WIDTH, generator=generator)
        noisy = torch.rand(RANKS * ROWS, generator=generator) < 0.4
        y = x + 0.3 * torch.randn(RANKS * ROWS, WIDTH, generator=generator)
        ids = torch.arange(RANKS * ROWS)
        ids[1::9] = 0  # equal ids on both ranks
        yield x, torch.where(noisy[:, None], y.roll(7, 0), y), ids, noisy


def gradients(symmetric, own=slice(None)):
    model = Pair(symmetric)
    for batch in batches():
        model.zero_grad()
        terms = model(*(tensor[own] for tensor in batch))
        loss_of(terms).backward()
    for parameter in model.parameters() if own != slice(None) else ():  # as DistributedDataParallel does
        dist.all_reduce(parameter.grad)
        parameter.grad /= RANKS
    return (
        {name: value.detach() for name, value in terms.items()},
        {name: parameter.grad for name, parameter in model.named_parameters()},
        {name: value.clone() for name, value in model.named_buffers()},
    )


def on_a_rank(rank, folder):
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=RANKS)
    own = slice(rank * ROWS, (rank + 1) * ROWS)
    torch.save({symmetric: gradients(symmetric, own) for symmetric in (False, True)}, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    mp.spawn(on_a_rank, (str(folder),), nprocs=RANKS)
    return [torch.load(folder / f"{rank}.pt") for rank in range(RANKS)]


@pytest.mark.parametrize("symmetric", [False, True])
def test_two_ranks_have_the_gradient_of_one_process_on_the_full_batch(ranks, symmetric):
    terms, grads, buffers = gradients(symmetric)
    assert terms["info/noise_recall"] > 0.5
    assert terms["info/rematched"] == pytest.approx(0.4, abs=0.01)
    for name, value in terms.items():
        found = torch.stack([rank[symmetric][0][name] for rank in ranks])
        assert torch.isclose(found.mean(), value, atol=1e-5), name
    for rank in ranks:
        for name, gradient in grads.items():
            assert torch.allclose(rank[symmetric][1][name], gradient, atol=1e-5), name
        for name, value in buffers.items():
            assert torch.allclose(rank[symmetric][2][name], value, atol=1e-4, equal_nan=True), name
