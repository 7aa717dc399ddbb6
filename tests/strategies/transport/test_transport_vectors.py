"""The inner loops of the fused solver, against NumPy; and the groups of the torch solver."""

from __future__ import annotations

import numba
import numpy as np
import pytest
import torch

from strategies.transport import cpu_loop, cpu_solver, solve
from strategies.transport.cpu_loop import lower_to_rows, row_minima
from strategies.transport.cpu_vectors import LANES, add_rows, row_sums
from strategies.transport.problem import Transport
from strategies.transport.torch_solver import in_groups


@numba.njit
def run(name, matrix, of_columns, of_rows, row_out, column_out):
    for first in range(0, matrix.shape[0], LANES):
        if name == "row_sums":
            row_sums(matrix, matrix.shape[1], first, of_columns, row_out)
        elif name == "row_minima":
            row_minima(matrix, first, row_out)
        elif name == "add_rows":
            add_rows(matrix, matrix.shape[1], first, of_rows, column_out)
        else:
            lower_to_rows(matrix, first, of_rows, column_out)


@pytest.mark.parametrize(("height", "width"), [(8, 8), (24, 40), (16, 128)])
def test_products_of_eight_rows_are_numpys(height, width):
    draw = np.random.default_rng(0)
    matrix, of_columns, of_rows, before = (
        draw.normal(size=size).astype(np.float32) for size in ((height, width), width, height, width)
    )
    wanted = {
        "row_sums": matrix @ of_columns,
        "row_minima": matrix.min(1),
        "add_rows": before + of_rows @ matrix,
        "lower_to_rows": np.minimum(before, (matrix - of_rows[:, None]).min(0)),
    }
    for name, values in wanted.items():
        rows, columns = np.full(height, np.nan, np.float32), before.copy()
        run(name, matrix, of_columns, of_rows, rows, columns)
        found = rows if name.startswith("row") else columns
        assert np.allclose(found, values, rtol=1e-5, atol=1e-5), name


@numba.njit
def mapped(name, x):
    out = np.empty_like(x)
    for i in range(x.shape[0]):
        out[i] = cpu_loop.exponential(x[i]) if name == "exponential" else cpu_loop.logarithm(x[i])
    return out


@numba.njit
def mapped_double(x):
    out = np.empty_like(x)
    for i in range(x.shape[0]):
        out[i] = cpu_loop.double_exponential(x[i])
    return out


def test_exponential_and_logarithm_are_as_exact_as_their_type():
    x = np.linspace(-57, 80, 100_001).astype(np.float32)
    exact = np.exp(x.astype(np.float64))
    assert (np.abs(mapped("exponential", x) - exact) / exact).max() < 5e-6  # float32 holds the exponent to 80 * 6e-8
    assert (mapped("exponential", np.array([-58, -1e30, -np.inf], np.float32)) == 0).all()
    y = np.exp(np.linspace(-80, 80, 100_001)).astype(np.float32)
    assert np.abs(mapped("logarithm", y) - np.log(y.astype(np.float64))).max() < 1e-5
    near = np.linspace(0.9, 1.1, 10_001).astype(np.float32)
    assert np.abs(mapped("logarithm", near) - np.log(near.astype(np.float64))).max() < 3e-8
    z = np.linspace(-600, 600, 100_001)
    assert (np.abs(mapped_double(z) - np.exp(z)) / np.exp(z)).max() < 1e-12


def test_groups_are_cut_to_their_length_and_put_back():
    lengths = torch.tensor([[5, 2], [1, 1], [7, 6], [2, 5], [3, 3]])
    a, b = (torch.arange(8) < lengths[:, side, None] for side in (0, 1))
    a, b = a / a.sum(1, keepdim=True), b / b.sum(1, keepdim=True)
    cost = torch.rand(5, 8, 8, generator=torch.Generator().manual_seed(0))
    seen = []

    def solve_group(clean, source, target):
        seen.append(tuple(clean.shape))
        assert (clean[(source == 0)[:, :, None] | (target == 0)[:, None]] == 0).all()
        which = torch.tensor(
            [
                lengths.tolist().index([int((s > 0).sum()), int((t > 0).sum())])
                for s, t in zip(source, target, strict=True)
            ]
        )
        return Transport(clean, which.float(), which / 10, which, which > 2, (source, target))

    found = in_groups(solve_group, cost, a, b, entries=50)
    assert seen == [(1, 7, 6), (2, 5, 5), (2, 3, 3)]  # the longest first, fifty entries or one pair
    real = (a > 0)[:, :, None] & (b > 0)[:, None]
    assert torch.equal(found.plan, cost * real)
    assert found.iterations.tolist() == found.value.tolist() == [0, 1, 2, 3, 4]
    assert found.converged.tolist() == [False, False, False, True, True]
    assert torch.equal(found.potentials[0], a)
    assert torch.equal(found.potentials[1], b)


@pytest.mark.parametrize("solver", ["fused", "torch"])
def test_a_batch_of_no_pairs(solver):
    transport = solve(torch.zeros(0, 3, 4), torch.zeros(0, 3), torch.zeros(0, 4), solver=solver)
    assert transport.plan.shape == (0, 3, 4)


def test_hard_pairs_leave_the_others_as_they_are(monkeypatch):
    cost = torch.rand(3, 12, 12, generator=torch.Generator().manual_seed(1))
    cost[1] = torch.tensor([[0.0, 1.0], [1.0, 0.0]]).repeat_interleave(6, 0).repeat_interleave(6, 1)
    cost[1, 0, 11] = 0.5  # all but separable, so that plain iterations take for ever
    mass = torch.full((3, 12), 1 / 12)
    uneven = mass.clone()
    uneven[1, :6] *= 1.02
    uneven[1] /= uneven[1].sum()
    refined = []
    run_loop = cpu_solver._run

    def noted(name, pairs, *rest):
        refined.append((name, len(pairs)))
        run_loop(name, pairs, *rest)

    monkeypatch.setattr(cpu_solver, "_run", noted)
    together = solve(cost, uneven, mass, solver="fused", epsilon=0.02, tolerance=1e-3, iterations=200)
    assert refined == [("solve_pairs", 3), ("refine_pairs", 1)]
    alone = solve(cost[[0, 2]], uneven[[0, 2]], mass[[0, 2]], solver="fused", epsilon=0.02, tolerance=1e-3)
    assert together.converged.all()
    assert torch.equal(together.plan[[0, 2]], alone.plan)
