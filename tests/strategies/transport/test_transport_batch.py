from __future__ import annotations

from functools import partial

import numpy as np
import ot
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
import torch.nn.functional as F

from strategies.transport import solve
from strategies.transport.batch import match_batch

RANKS, ROWS, WIDTH = 2, 6, 8


def problem(dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    texts = RANKS * ROWS
    students, teachers = (F.normalize(torch.randn(texts, WIDTH, generator=generator), dim=1).to(dtype) for _ in "st")
    ids = torch.arange(texts)
    ids[7] = 2
    return students, teachers, ids[:, None] == ids, torch.rand(texts, generator=generator)


@pytest.fixture
def exactly(monkeypatch):
    """The linear program in the place of soft plans."""
    monkeypatch.setattr("strategies.transport.batch.solve", partial(solve, solver="exact"))


def on_a_rank(rank, folder):
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=RANKS)
    students, teachers, forbidden, mass = problem()
    own = slice(rank * ROWS, (rank + 1) * ROWS)
    rows, transport = match_batch(
        students[own], teachers[own], forbidden=forbidden[own], student_mass=mass[own], epsilon=0.1
    )
    none, _ = match_batch(students[own], teachers[own], student_mass=torch.zeros(ROWS))
    torch.save((rows, transport.plan, transport.violation, none), f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.slow
def test_ranks_have_the_rows_of_one_process(tmp_path):
    mp.spawn(on_a_rank, (str(tmp_path),), nprocs=RANKS)
    students, teachers, forbidden, mass = problem()
    wanted, _ = match_batch(students, teachers, forbidden=forbidden, student_mass=mass, epsilon=0.1)
    for rank in range(RANKS):
        rows, plan, violation, none = torch.load(tmp_path / f"{rank}.pt")
        assert torch.allclose(rows, wanted[rank * ROWS : (rank + 1) * ROWS], atol=1e-9)
        assert torch.allclose(plan[0], wanted, atol=1e-9)
        assert violation <= 1e-3
        assert none.shape == (ROWS, RANKS * ROWS)
        assert (none == 0).all()


def test_plan_is_that_of_pot():
    students, teachers, _, mass = problem()
    rows, transport = match_batch(students, teachers, teacher_mass=mass, epsilon=0.1)
    cost = (1 - students @ teachers.T).numpy()
    b = (mass.double() / mass.double().sum()).numpy()
    wanted = ot.sinkhorn(np.full(12, 1 / 12), b, cost, 0.1, method="sinkhorn_log", numItermax=5000, stopThr=1e-10)
    assert np.abs(rows.numpy() - wanted).sum() < 2e-3
    assert transport.value.item() == pytest.approx((wanted * cost).sum(), abs=1e-3)
    assert bool(transport.converged)


def test_forbidden_entries_get_exactly_nothing_and_the_rest_meets_the_marginals():
    _, teachers, forbidden, _ = problem(torch.float32)
    own, _ = match_batch(teachers, teachers, epsilon=0.02)
    assert own.diagonal().sum() > 0.9
    rows, transport = match_batch(teachers, teachers, epsilon=0.02, forbidden=forbidden)
    assert (rows[forbidden] == 0).all()
    assert bool(transport.converged)
    assert torch.allclose(rows.sum(0), torch.tensor(1 / 12), atol=1e-3)
    assert torch.allclose(rows.sum(1), torch.tensor(1 / 12), atol=1e-3)
    assert 0 < transport.value.item() < 2


def test_mass_with_no_place_to_go_is_missing_and_told(exactly):
    students, teachers, forbidden, _ = problem(torch.float32)
    forbidden[3] = True
    rows, transport = match_batch(students, teachers, forbidden=forbidden)
    assert (rows[3] == 0).all()
    assert not bool(transport.converged)
    assert transport.violation.item() == pytest.approx(1 / 12, rel=1e-3)


def test_partial_moves_its_share_to_the_best_places(exactly):
    students, teachers, forbidden, _ = problem()
    rows, _ = match_batch(students, teachers, forbidden=forbidden, mass=0.3)
    assert rows.sum().item() == pytest.approx(0.3, abs=1e-6)
    cost = (1 - students @ teachers.T).masked_fill(forbidden, 1e3).numpy()
    wanted = ot.partial.partial_wasserstein(np.full(12, 1 / 12), np.full(12, 1 / 12), cost, m=0.3)
    assert np.abs(rows.numpy() - wanted).sum() < 1e-6


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"teacher_pooled": torch.ones(3, 5)}, r"expected both \(B, D\)"),
        ({"forbidden": torch.ones(4, 3)}, "forbidden is"),
        ({"epsilon": 0.0}, r"epsilon is .*, expected a number above 0"),
        ({"student_pooled": torch.ones(4097, 2), "teacher_pooled": torch.ones(4097, 2)}, "at most 4096"),
        ({"mass": 1.5}, "mass"),
    ],
)
def test_wrong_input(change, message):
    with pytest.raises(ValueError, match=message):
        match_batch(**({"student_pooled": torch.ones(4, 5), "teacher_pooled": torch.ones(4, 5)} | change))
