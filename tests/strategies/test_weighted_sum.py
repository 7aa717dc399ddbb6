from __future__ import annotations

import pytest
import torch
from jsonargparse import ArgumentParser

from strategies.base import DistillationStrategy
from strategies.contrastive import Contrastive
from strategies.mse import MSE
from strategies.ot import OptimalTransport
from strategies.weighted_sum import WeightedSum


def test_terms_are_weighted_and_named_after_their_strategy(make_side):
    teacher, student = make_side(seed=1), make_side(seed=2)
    transport, contrastive = OptimalTransport(), Contrastive()
    terms = WeightedSum({"ot": transport, "nce": contrastive}, weights={"nce": 0.25})(student, teacher)
    alone = transport(student, teacher), contrastive(student, teacher)
    assert terms == {
        "ot/ot": alone[0]["ot"],
        "ot/pooled": alone[0]["pooled"],
        "info/ot/ot_violation": alone[0]["info/ot_violation"],
        "info/ot/ot_converged": alone[0]["info/ot_converged"],
        "nce/contrastive": 0.25 * alone[1]["contrastive"],
        "info/nce/accuracy": alone[1]["info/accuracy"],
    }


def test_needs_are_those_of_any_strategy():
    assert not WeightedSum({"a": MSE(), "b": Contrastive()}).needs_tokens
    mixture = WeightedSum({"a": MSE(), "b": MSE("token")})
    assert mixture.needs_tokens
    assert not mixture.needs_weights
    assert WeightedSum({"a": mixture, "b": OptimalTransport(marginals="idf")}).needs_weights


def test_a_mixture_in_a_mixture_multiplies_weights(make_side):
    teacher, student = make_side(seed=1), make_side(seed=2)
    inner = WeightedSum({"b": MSE()}, weights={"b": 0.5})
    terms = WeightedSum({"a": inner}, weights={"a": 0.5})(student, teacher)
    assert torch.isclose(terms["a/b/pooled"], 0.25 * MSE()(student, teacher)["pooled"])


def test_parameters_of_its_strategies_are_its_own():
    mixture = WeightedSum({"nce": Contrastive(learnable=True)})
    assert [name for name, _ in mixture.named_parameters()] == ["strategies.nce.log_scale"]


@pytest.mark.parametrize(
    ("strategies", "weights", "message"),
    [
        ({}, None, "at least one strategy"),
        ({"mse": MSE()}, {"mes": 1.0}, "did you mean 'mse'"),
        ({"mse": MSE()}, {"mse": 0.0}, r"weight of mse is .*, expected a number above 0"),
        ({"a.b": MSE()}, None, "cannot name a strategy"),
        ({"keys": MSE()}, None, "cannot name a strategy"),
    ],
)
def test_wrong_options(strategies, weights, message):
    with pytest.raises(ValueError, match=message):
        WeightedSum(strategies, weights)


YAML = """
strategy:
  class_path: strategies.weighted_sum.WeightedSum
  init_args:
    strategies:
      tokens:
        class_path: strategies.ot.OptimalTransport
        init_args: {marginals: norm, epsilon: 0.1}
      rest:
        class_path: strategies.weighted_sum.WeightedSum
        init_args:
          strategies:
            vectors: {class_path: strategies.mse.MSE, init_args: {level: token}}
            ranking: {class_path: strategies.contrastive.Contrastive}
    weights: {tokens: 2}
"""


@pytest.mark.filterwarnings(
    "ignore::DeprecationWarning"
)  # instantiate_classes: its successor came with jsonargparse 4.49
def test_nested_in_yaml(tmp_path):
    path = tmp_path / "strategy.yaml"
    path.write_text(YAML)
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--config", action="config")
    parser.add_subclass_arguments(DistillationStrategy, "strategy")
    strategy = parser.instantiate_classes(parser.parse_args(["--config", str(path)])).strategy
    assert strategy.weights == {"tokens": 2.0, "rest": 1.0}
    assert strategy.strategies["tokens"].marginals == "norm"
    assert strategy.strategies["rest"].strategies["vectors"].level == "token"
    assert strategy.needs_tokens
