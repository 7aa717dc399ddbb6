from __future__ import annotations

import math

import pytest
import torch

from strategies.functional import greedy_alignment


def one_by_one(cost, rows, columns):
    """The definition: the smallest entry that is left, until a side has none left."""
    plan = torch.zeros_like(cost)
    free = {(i, j) for i in range(len(rows)) if rows[i] for j in range(len(columns)) if columns[j]}
    while free:
        i, j = min(free, key=lambda entry: (cost[entry].item(), entry))
        plan[i, j] = 1
        free = {(k, m) for k, m in free if k != i and m != j}
    return plan


def masks(batch, sources, targets):
    def mask(count):
        lengths = torch.randint(1, count + 1, (batch,))
        lengths[0], lengths[1] = count, 1
        return torch.arange(count) < lengths[:, None]

    return mask(sources), mask(targets)


@pytest.mark.parametrize(("sources", "targets"), [(1, 1), (1, 6), (8, 8), (5, 9), (9, 5)])
def test_equals_the_sequential_search(sources, targets):
    torch.manual_seed(sources)
    cost, (rows, columns) = torch.rand(10, sources, targets), masks(10, sources, targets)
    plan = greedy_alignment(cost, rows, columns)
    for index in range(10):
        assert torch.equal(plan[index], one_by_one(cost[index], rows[index], columns[index]))


def test_a_chain_takes_as_many_rounds_as_tokens():
    # Each entry is only the smallest once the one before it has left: one pair a round.
    cost = torch.full((1, 5, 5), 9.0)
    for step in range(5):
        cost[0, step, step] = 2 * step
        if step < 4:
            cost[0, step, step + 1] = 2 * step + 1
    everything = torch.ones(1, 5, dtype=torch.bool)
    assert torch.equal(greedy_alignment(cost, everything, everything)[0], torch.eye(5))


def test_repeated_tokens_are_still_aligned_one_to_one():
    torch.manual_seed(0)
    cost = torch.rand(6, 4, 4)[:, [0, 0, 1, 2, 2, 3]][:, :, [0, 1, 1, 2, 3]]
    rows, columns = masks(6, 6, 5)
    plan = greedy_alignment(cost, rows, columns)
    assert plan.sum(1).max() == 1
    assert plan.sum(2).max() == 1
    assert torch.equal(plan.sum((1, 2)), torch.minimum(rows.sum(1), columns.sum(1)).float())
    for index in range(6):  # equal tokens may stand in for each other, so compare what was paid
        slow = one_by_one(cost[index], rows[index], columns[index])
        assert torch.isclose((plan[index] * cost[index]).sum(), (slow * cost[index]).sum())


def test_padding_is_neither_aligned_nor_read():
    torch.manual_seed(0)
    cost, (rows, columns) = torch.rand(8, 6, 7), masks(8, 6, 7)
    padding = ~(rows[:, :, None] & columns[:, None, :])
    plan = greedy_alignment(cost, rows, columns)
    assert (plan[padding] == 0).all()
    for garbage in (-1.0, math.nan):
        assert torch.equal(greedy_alignment(cost.masked_fill(padding, garbage), rows, columns), plan)
