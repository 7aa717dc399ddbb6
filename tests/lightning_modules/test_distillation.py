from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from datamodules.pairs import PairBatch
from lightning_modules.distillation import DistillationModule
from lightning_modules.students.static import StaticEncoder
from lightning_modules.students.transformer import TransformerEncoder
from lightning_modules.teachers.online import OnlineTeacher
from strategies.base import DistillationStrategy
from strategies.contrastive import Contrastive
from strategies.mse import MSE
from strategies.ot import OptimalTransport
from strategies.ot_contrastive import OTContrastive
from strategies.ot_match import OTMatch
from strategies.weighted_sum import WeightedSum
from tests.training_steps import losses_of_steps


class Terms(DistillationStrategy):
    """Two terms and a diagnostic."""

    def forward(self, student, teacher):
        assert student.ids.equal(teacher.ids)
        assert not teacher.pooled.requires_grad
        one = (student.pooled * 0).sum()
        return {"a": one + 2, "b": one + 3, "info/c": one + 100}


def batch() -> PairBatch:
    sources = ["the cat", "good morning", "water is life", "the big red sun"]
    targets = ["paka mdogo", "habari ya asubuhi", "maji ni uhai", "jua kubwa jekundu"]
    return PairBatch(sources, targets, torch.arange(4))


@pytest.fixture
def teacher(tiny_bert) -> OnlineTeacher:
    return OnlineTeacher(tiny_bert, max_length=32)


@pytest.fixture
def make(teacher, tiny_unigram):
    def make(strategy=None, student=None, **options) -> DistillationModule:
        student = student or TransformerEncoder(tiny_unigram, max_length=32)
        module = DistillationModule(student, teacher, strategy or MSE(), **options)
        module.logged = {}
        module.log = lambda name, value, **_: module.logged.update({name: value})
        module.log_dict = lambda values, **_: module.logged.update(values)
        return module

    return make


def test_the_teacher_is_no_part_of_the_module(make, teacher):
    module = make()
    weights = {weight.data_ptr() for weight in module.parameters()}
    module.train()
    module.training_step(batch(), 0)
    assert not teacher.encoder.training
    assert not any(part.training for part in teacher.encoder.modules())
    assert all(not weight.requires_grad for weight in teacher.encoder.parameters())
    assert {weight.data_ptr() for weight in module.parameters()} == weights
    assert weights.isdisjoint(weight.data_ptr() for weight in teacher.encoder.parameters())
    assert all(part is not teacher.encoder for part in module.modules())
    assert all(name.startswith(("student.", "projection.", "distillation.")) for name in module.state_dict())


def test_terms_are_summed_and_diagnostics_are_not(make):
    module = make(Terms())
    loss = module.training_step(batch(), 0)
    assert loss.item() == 5
    assert loss.requires_grad
    logged = {name: float(value) for name, value in module.logged.items()}
    assert logged.pop("train/info/effective_rank") > 1
    assert logged == {"train/a": 2, "train/b": 3, "train/info/c": 100, "train/info/truncated": 0, "train/loss": 5}
    assert not any(value.requires_grad for value in module.logged.values())


def test_the_student_is_trained_with_dropout(make):
    module = make()
    assert module.training
    assert module.student.training
    first, second = (module(["paka mdogo"]).pooled for _ in range(2))
    assert not first.equal(second)
    module.eval()
    assert module(["paka mdogo"]).pooled.equal(module(["paka mdogo"]).pooled)


def test_equal_widths_need_no_projection(make):
    assert isinstance(make().projection, nn.Identity)
    assert isinstance(make(projection="linear").projection, nn.Linear)


def test_projection_into_the_width_of_the_teacher(make, tiny_unigram, teacher):
    module = make(OptimalTransport(pooled_weight=1.0), StaticEncoder(tiny_unigram, dim=12, max_length=32))
    assert module.projection.weight.shape == (teacher.dim, 12) == (32, 12)
    embeddings = module(batch().target, tokens=True)
    assert embeddings.pooled.shape == (4, 32)
    torch.testing.assert_close(embeddings.pooled.norm(dim=-1), torch.ones(4))
    inputs = module.student.tokenize(batch().target)
    plain = module.student(inputs, tokens=True)
    torch.testing.assert_close(embeddings.tokens, module.projection(plain.tokens))
    assert embeddings.mask.equal(plain.mask)
    assert "projection.weight" in module.state_dict()
    module.training_step(batch(), 0).backward()
    assert module.projection.weight.grad.abs().sum() > 0


STRATEGIES = {
    "mse": MSE,
    "token mse": lambda: MSE(level="token"),
    "ot": OptimalTransport,
    "ot ipot": lambda: OptimalTransport(solver="ipot", epsilon=0.5, iterations=20),
    "ot idf": lambda: OptimalTransport(marginals="idf"),
    "ot unbalanced": lambda: OptimalTransport(marginal_relaxation=1.0),
    "ot partial": lambda: OptimalTransport(mass=0.8),
    "ot_contrastive": OTContrastive,
    "ot_match": OTMatch,
    "contrastive": Contrastive,
    "sum": lambda: WeightedSum({"ot": OptimalTransport(pooled_weight=0.0), "mse": MSE()}, weights={"ot": 0.5}),
}


@pytest.mark.parametrize("kind", ["static", "transformer"])
@pytest.mark.parametrize("name", STRATEGIES)
def test_the_loss_falls(make, teacher, tiny_unigram, name, kind):
    torch.manual_seed(0)
    encoder = {"static": StaticEncoder, "transformer": TransformerEncoder}[kind](tiny_unigram, max_length=32)
    module = make(STRATEGIES[name](), encoder)
    module.eval()  # no dropout, so that the fall is not by chance
    if module.distillation.needs_weights:
        module.student.fit_idf(batch().target)
        teacher.fit_idf(batch().source)
    losses = losses_of_steps(module, batch())
    assert losses[-1] < 0.8 * losses[0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lr": 0}, "lr is 0, expected a number above 0"),
        ({"embedding_lr": -1}, "embedding_lr is -1, expected at least 0"),
        ({"weight_decay": -1}, "weight_decay is -1, expected at least 0"),
        ({"warmup_steps": -1}, "warmup_steps is -1, expected at least 0"),
        ({"score": "cosine"}, "score is 'cosine', expected one of pooled, maxsim, both"),
        ({"schedule": "linea"}, "schedule is 'linea', expected one of .*did you mean 'linear'"),
        ({"projection": "none"}, "projection is 'none', expected one of auto, linear"),
    ],
)
def test_wrong_options(make, options, message):
    with pytest.raises(ValueError, match=message):
        make(**options)


def test_checkpoint_of_the_command_line(finished_run):
    """It holds plain values, loads with weights_only=True, and the trimmed vocabulary comes with it."""
    path = Path(finished_run, "checkpoints", "best.ckpt")
    content = torch.load(path, map_location="cpu", weights_only=True)
    assert all(name.startswith("student.") for name in content["state_dict"])
    assert content["hyper_parameters"]["strategy"]["class_path"] == "strategies.mse.MSE"
    module = DistillationModule.load_from_checkpoint(path, weights_only=True, map_location="cpu")
    rows = len(module.student.token_tables()[0].weight)
    whole = TransformerEncoder(module.student.model_name, max_length=32)
    assert rows < len(whole.token_tables()[0].weight)
    assert rows == module.student.tokenizer.get_vocab_size()
    for name, value in module.state_dict().items():
        if isinstance(value, torch.Tensor):
            assert value.equal(content["state_dict"][name]), name
    assert module.lr == 0.003
    assert not any("teacher" in name for name in content["state_dict"])
    assert module.eval()(["paka jua"]).pooled.shape == (1, 32)


def test_hyper_parameters_of_a_module_made_in_python_are_plain(make):
    assert set(make(lr=0.5).hparams) == {
        "lr", "embedding_lr", "weight_decay", "warmup_steps", "schedule", "projection", "score",
        "siamese", "target_side", "source_side", "space", "shrinkage", "chunk_size",
    }  # fmt: skip
