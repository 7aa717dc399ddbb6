"""``ot_contrastive`` against a slow loop, over ranks, in blocks, and its other plans."""

from __future__ import annotations

import dataclasses

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
import torch.nn.functional as F
from torch import nn

from strategies.base import Embeddings
from strategies.functional import greedy_alignment, token_cost, token_marginals
from strategies.ot import OptimalTransport
from strategies.ot_contrastive import OTContrastive, draw_negatives
from strategies.transport import solve

IDS = torch.tensor([7, 1, 2, 2, 7, 3])
RANKS, ROWS, WIDTH = 2, 3, 5
EXACT = {"tolerance": 1e-10, "iterations": 20000}


def transported(teacher, student, **options):
    marginals = (token_marginals(side, "uniform").double() for side in (teacher, student))
    return solve(token_cost(teacher, student).detach(), *marginals, epsilon=0.05, **EXACT, **options).plan


def slow_loss(student, teacher, plan, temperature, ids=None):
    """Token by token, padding cut off, with all tokens of the other pairs as negatives."""
    total, labels = 0, list(range(len(plan))) if ids is None else ids.tolist()
    x, y = ([F.normalize(t[m], dim=-1) for t, m in zip(s.tokens, s.mask, strict=True)] for s in (teacher, student))
    for i, tokens in enumerate(y):
        negatives = [n for j, text in enumerate(x) if labels[j] != labels[i] for n in text]
        for t, token in enumerate(tokens):
            own = torch.stack([s @ token for s in x[i]]) / temperature
            others = [n @ token / temperature for n in negatives]
            log_z = torch.logsumexp(torch.cat([own, torch.stack(others)]) if others else own, 0)
            total = total + (plan[i, : len(own), t] * (log_z - own)).sum()
    return total / len(plan)


@pytest.fixture
def sides(make_side):
    """Student and teacher in float64, with gradient for both."""
    made = make_side(seed=2, dtype=torch.float64), make_side(length=5, seed=1, dtype=torch.float64)
    for side in made:
        side.tokens.requires_grad_()
    return made


def gradients(loss, *sides):
    return torch.autograd.grad(loss, [side.tokens for side in sides])


@pytest.mark.parametrize("ids", [None, IDS])
@pytest.mark.parametrize("memory_mb", [256, 1e-4])
def test_loss_and_gradients_are_those_of_a_slow_loop_in_blocks_too(sides, ids, memory_mb):
    student, teacher = dataclasses.replace(sides[0], ids=ids), sides[1]
    strategy = OTContrastive(temperature=0.1, **EXACT)
    strategy.memory_mb = memory_mb
    loss = strategy(student, teacher)["ot_contrastive"]
    wanted = slow_loss(student, teacher, transported(teacher, student), 0.1, ids)
    torch.testing.assert_close(loss, wanted)
    slopes = gradients(wanted, *sides)
    torch.testing.assert_close(gradients(loss, *sides), slopes)
    scaled = 3 * strategy(student, teacher)["ot_contrastive"]  # as in a weighted sum
    torch.testing.assert_close(gradients(scaled, *sides), tuple(3 * slope for slope in slopes))


def plans(teacher, student):
    """The targets of the ablations, by text, without padding."""
    for x, y, s, t in zip(teacher.tokens, student.tokens, teacher.mask, student.mask, strict=True):
        cosines = F.cosine_similarity(x[s][:, None], y[t][None], dim=-1).detach()
        real = [torch.ones(1, length, dtype=torch.bool) for length in cosines.shape]
        greedy = greedy_alignment(1 - cosines[None], *real)[0]
        yield {
            "attention": (cosines / 0.2).softmax(0) / cosines.shape[1],
            "greedy": greedy / greedy.sum(),
            "uniform": torch.full_like(cosines, 1 / cosines.numel()),
        }


@pytest.mark.parametrize("plan", ["attention", "greedy", "uniform"])
def test_the_other_plans(sides, plan):
    student, teacher = sides
    wanted = torch.zeros(6, 5, 7, dtype=torch.float64)
    for full, made in zip(wanted, plans(teacher, student), strict=True):
        full[: made[plan].shape[0], : made[plan].shape[1]] = made[plan]
    terms = OTContrastive(plan=plan, epsilon=0.2, temperature=0.1)(student, teacher)
    torch.testing.assert_close(terms["ot_contrastive"], slow_loss(student, teacher, wanted, 0.1))
    assert terms["info/ot_cost"].item() == pytest.approx((wanted * token_cost(teacher, student)).sum().item() / 6)
    assert terms["info/ot_entropy"].item() == pytest.approx(torch.special.entr(wanted).sum().item() / 6)
    assert "info/ot_violation" not in terms  # there is no solver


@pytest.mark.parametrize("options", [{"marginal_relaxation": 0.3}, {"mass": 0.6}], ids=["unbalanced", "partial"])
def test_plans_that_move_less_mass(sides, options):
    student, teacher = sides
    terms = OTContrastive(temperature=0.1, **EXACT, **options)(student, teacher)
    relaxed = {"relaxation": options.get("marginal_relaxation"), "mass": options.get("mass")}
    plan = transported(teacher, student, **relaxed)
    wanted = slow_loss(student, teacher, plan, 0.1)
    torch.testing.assert_close(terms["ot_contrastive"], wanted)
    torch.testing.assert_close(
        gradients(terms["ot_contrastive"], *sides), gradients(wanted, *sides), atol=1e-6, rtol=1e-5
    )
    as_ot = OptimalTransport(pooled_weight=4.0, **EXACT, **options)(student, teacher)
    torch.testing.assert_close(
        [terms[n] for n in ("pooled", "info/ot_mass")], [as_ot[n] for n in ("pooled", "info/ot_mass")]
    )


def test_marginals_reach_the_plan(sides):
    idf, uniform = (OTContrastive(marginals=kind)(*sides) for kind in ("idf", "uniform"))
    assert abs(idf["info/ot_cost"] - uniform["info/ot_cost"]) > 1e-3


def test_a_pair_without_any_negative_chooses_among_its_own_source(make_side):
    student, teacher = (make_side(batch=1, seed=seed, dtype=torch.float64) for seed in (1, 2))
    student.tokens.requires_grad_()
    loss = OTContrastive(**EXACT)(student, teacher)["ot_contrastive"]
    wanted = slow_loss(student, teacher, transported(teacher, student), 0.05)
    torch.testing.assert_close(loss, wanted)
    torch.testing.assert_close(gradients(loss, student), gradients(wanted, student))


def test_equal_types_have_their_gradient_together():
    """Two tokens of a type are one row of a table, whose gradient does not depend on whether types are known."""
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(5, (6, 7), generator=generator)
    mask = torch.arange(7) < torch.tensor([7, 1, 3, 5, 7, 2])[:, None]
    table = torch.randn(5, 8, generator=generator, dtype=torch.float64).requires_grad_()
    teacher = Embeddings(torch.randn(6, 8).double(), torch.randn(6, 7, 8, generator=generator).double(), mask)
    found = []
    for types, memory_mb in ((None, 256), (ids, 256), (ids, 1e-4)):
        strategy = OTContrastive()
        strategy.memory_mb = memory_mb
        student = Embeddings(teacher.pooled, table[ids], mask, IDS, types=types)
        loss = strategy(student, teacher)["ot_contrastive"]
        found.append((loss, torch.autograd.grad(loss, table)[0]))
    torch.testing.assert_close(found[1], found[0])
    torch.testing.assert_close(found[2], found[0])


def test_negatives_are_drawn_anew_by_the_seed_and_never_twice(make_side):
    student, teacher = make_side(seed=1), make_side(seed=2)
    drawn = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        states, allowed = draw_negatives(student, teacher, 9)
        assert states.shape == (9, 8)
        assert allowed.shape == (6, 9)
        drawn.append(states)
        # Each is a real token, of a pair that may not have it as a negative.
        for state, column in zip(states, allowed.T, strict=True):
            (pair,) = (column == 0).nonzero()[:, 0].tolist()
            assert (teacher.tokens[pair][teacher.mask[pair]] == state).all(1).sum() == 1
    assert len(drawn[0].unique(dim=0)) == 9
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])


def kept(strategy, student, teacher):
    """Bytes that the graph keeps."""
    sizes = {}
    hooks = torch.autograd.graph.saved_tensors_hooks(
        lambda x: sizes.__setitem__(x.data_ptr(), x.numel() * x.element_size()) or x, lambda x: x
    )
    with hooks:
        terms = strategy(student, teacher)
    assert terms
    return sum(sizes.values())


def test_keeps_no_more_than_ot_and_one_number_for_each_negative_of_a_token(make_side):
    student, teacher = make_side(32, 20, 64, seed=1), make_side(32, 20, 64, seed=2)
    student.tokens.requires_grad_()
    more = kept(OTContrastive(negatives=100), student, teacher) - kept(OptimalTransport(), student, teacher)
    assert more <= 4 * 32 * 20 * 100


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"plan": "atention"}, "did you mean 'attention'"),
        ({"temperature": 0.0}, r"temperature is .*, expected a number above 0"),
        ({"negatives": 0}, r"negatives is .*, expected at least 1"),
        ({"plan": "greedy", "mass": 0.5}, "leave them out with plan greedy"),
        ({"marginal_relaxation": 0.3, "mass": 0.5}, "not both"),
    ],
)
def test_wrong_options(options, message):
    with pytest.raises(ValueError, match=message):
        OTContrastive(**options)


class Pair(nn.Module):
    """A student and a teacher that is trained too, so that the parity covers the gradient of the negatives."""

    def __init__(self, negatives):
        super().__init__()
        torch.manual_seed(0)
        self.student, self.teacher = (nn.Linear(4, WIDTH).double() for _ in range(2))
        self.loss = OTContrastive(negatives=negatives, temperature=0.3, pooled_weight=0.0, **EXACT)

    def forward(self, own, seed):
        sides = []
        for layer, offset in ((self.student, 1), (self.teacher, 2)):
            generator = torch.Generator().manual_seed(offset)
            states = torch.randn(RANKS * ROWS, 4, 4, generator=generator).double()[own]
            lengths = torch.tensor([2, 3, 1, 4, 2, 3])[own]  # the ranks pad to others
            mask = torch.arange(int(lengths.max())) < lengths[:, None]
            sides.append(Embeddings(states[:, 0], layer(states[:, : mask.shape[1]]), mask, IDS[own]))
        pooled = torch.ones(len(IDS[own]), WIDTH).double()
        torch.manual_seed(seed)
        return self.loss(*(dataclasses.replace(side, pooled=pooled) for side in sides))["ot_contrastive"]


def on_a_rank(rank, folder):
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=RANKS)
    results = {}
    for negatives in (6, 512):
        model = Pair(negatives)
        loss = model(slice(rank * ROWS, (rank + 1) * ROWS), seed=5 + rank)  # a run seeds each rank otherwise
        loss.backward()
        for parameter in model.parameters():
            dist.all_reduce(parameter.grad)
            parameter.grad /= RANKS
        results[negatives] = loss.detach(), [parameter.grad for parameter in model.parameters()]
    torch.save(results, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    mp.spawn(on_a_rank, (str(folder),), nprocs=RANKS)
    return [torch.load(folder / f"{rank}.pt") for rank in range(RANKS)]


@pytest.mark.parametrize("negatives", [6, 512])
def test_two_ranks_have_the_gradient_of_one_process_on_the_full_batch(ranks, negatives):
    model = Pair(negatives)
    loss = model(slice(None), seed=5)
    loss.backward()
    torch.testing.assert_close(torch.stack([rank[negatives][0] for rank in ranks]).mean(), loss.detach())
    for rank in ranks:
        torch.testing.assert_close(rank[negatives][1], [parameter.grad for parameter in model.parameters()])
    assert (Pair(negatives)(slice(None), seed=6) - loss).abs() > 1e-3 or negatives == 512
