from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from strategies.mse import MSE


def test_pooled_is_the_squared_distance(make_side):
    teacher, student = make_side(seed=1), make_side(seed=2)
    terms = MSE(pooled_weight=0.5)(student, teacher)
    assert terms.keys() == {"pooled"}
    assert torch.isclose(terms["pooled"], 0.5 * F.mse_loss(student.pooled, teacher.pooled) * student.pooled.shape[1])


def test_token_term_by_a_slow_loop(make_side):
    teacher, student = make_side(length=5, seed=1), make_side(length=7, seed=2)
    losses = []
    for index in range(6):
        x = F.normalize(teacher.tokens[index, teacher.mask[index]], dim=-1)
        y = F.normalize(student.tokens[index, student.mask[index]], dim=-1)
        left = {(i, j) for i in range(len(x)) for j in range(len(y))}
        squares = []
        while left:
            i, j = min(left, key=lambda pair: (x[pair[0]] - y[pair[1]]).square().sum().item())
            squares.append((x[i] - y[j]).square().sum())
            left = {(k, m) for k, m in left if k != i and m != j}
        losses.append(torch.stack(squares).mean() / 2)
    terms = MSE("token")(student, teacher)
    assert terms.keys() == {"token", "pooled"}
    assert torch.isclose(terms["token"], torch.stack(losses).mean())
    assert torch.equal(terms["pooled"], MSE()(student, teacher)["pooled"])


def test_needs_tokens_only_at_token_level():
    assert MSE("token").needs_tokens
    assert not MSE().needs_tokens


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"level": "tokens"}, "did you mean 'token'"),
        ({"pooled_weight": -1.0}, "at least 0"),
        ({"pooled_weight": 0.0}, "leaves no loss"),
    ],
)
def test_wrong_options(options, message):
    with pytest.raises(ValueError, match=message):
        MSE(**options)
