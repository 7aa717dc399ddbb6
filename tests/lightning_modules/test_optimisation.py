from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from lightning_modules.distillation import DistillationModule, build_optimiser, ids_of_matrices, learning_rate_factor
from lightning_modules.students.static import StaticEncoder
from lightning_modules.teachers.online import OnlineTeacher
from strategies.contrastive import Contrastive


@pytest.fixture
def module(tiny_bert, tiny_unigram) -> DistillationModule:
    student = StaticEncoder(tiny_unigram, max_length=32, token_weights=True)
    options = {"lr": 0.1, "embedding_lr": 0.3, "weight_decay": 0.5, "warmup_steps": 4}
    module = DistillationModule(
        student, OnlineTeacher(tiny_bert, max_length=32), Contrastive(learnable=True), **options
    )
    module._trainer = SimpleNamespace(precision="32-true")
    return module


def test_groups(module):
    optimiser = build_optimiser(module, 10)["optimizer"]
    found = {id(weight): group for group in optimiser.param_groups for weight in group["params"]}
    names = dict(module.named_parameters())
    assert len(found) == sum(len(group["params"]) for group in optimiser.param_groups) == len(names)
    expected = {
        "student.embedding.weight": (0.3, 0.0),
        "student.token_weights.weight": (0.3, 0.0),
        "student.linear.weight": (0.1, 0.5),
        "student.linear.bias": (0.1, 0.0),
    }
    for name, weight in names.items():
        group = found[id(weight)]
        rates = expected.pop(name, (0.1, 0.0))  # what is left are the strategy's own
        assert (group["initial_lr"], group["weight_decay"]) == rates, name
    assert not expected
    assert any(name.startswith("distillation.") for name in names)


def test_groups_are_the_same_when_fsdp_has_made_flat_shards_of_the_weights(module):
    expected = [len(group["params"]) for group in build_optimiser(module, 10)["optimizer"].param_groups]
    module.matrices = ids_of_matrices(module)
    for weight in module.parameters():
        weight.data = weight.data.flatten()
    groups = build_optimiser(module, 10)["optimizer"].param_groups
    assert [len(group["params"]) for group in groups] == expected
    assert [group["weight_decay"] for group in groups] == [0.0, 0.5, 0.0]


def test_frozen_weights_are_left_out(module):
    module.student.embedding.requires_grad_(False)
    weights = [w for group in build_optimiser(module, 10)["optimizer"].param_groups for w in group["params"]]
    assert all(weight is not module.student.embedding.weight for weight in weights)


def test_fused_unless_gradients_are_scaled(module):
    assert build_optimiser(module, 10)["optimizer"].defaults["fused"]
    module._trainer.precision = "16-mixed"
    assert not build_optimiser(module, 10)["optimizer"].defaults["fused"]


def test_the_rate_follows_the_schedule(module):
    parts = build_optimiser(module, 10)
    optimiser, schedule = parts["optimizer"], parts["lr_scheduler"]
    assert schedule["interval"] == "step"
    rates = []
    for _ in range(10):
        rates.append(optimiser.param_groups[0]["lr"] / optimiser.param_groups[0]["initial_lr"])
        optimiser.step()
        schedule["scheduler"].step()
    assert rates == pytest.approx([0.25, 0.5, 0.75, 1, 1, 5 / 6, 4 / 6, 3 / 6, 2 / 6, 1 / 6])


def test_schedules():
    assert [learning_rate_factor(step, 8, 0, "constant") for step in (0, 5, 8)] == [1, 1, 1]
    cosine = [learning_rate_factor(step, 8, 0, "cosine") for step in (0, 4, 8)]
    assert cosine == pytest.approx([1, 0.5, 0])
    assert learning_rate_factor(20, 8, 0, "linear") == 0
    assert all(0 < learning_rate_factor(step, 4, 10, "linear") <= 1 for step in range(5))  # warm-up longer than the run
    assert torch.isfinite(torch.tensor(learning_rate_factor(3, 3, 3, "cosine")))


def test_a_rate_of_zero_freezes_the_token_tables(script, tiny_config, tmp_path):
    import torch

    words = ["--config", tiny_config, "--output", tmp_path, "--logger=none", "--strategy=mse", "--checkpoint_every=1"]
    weights = []
    for name, steps in (("start", 1), ("end", 3)):
        options = ["--name", name, "--model.embedding_lr=0", f"--trainer.max_steps={steps}"]
        done = script("train.py", *words, *options)
        assert done.status == 0, done.err
        weights.append(torch.load(tmp_path / name / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"])
    tables = [name for name in weights[0] if "word_embeddings" in name]
    assert tables
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in tables)
    assert any(not torch.equal(weights[0][name], weights[1][name]) for name in weights[0] if "attention" in name)
