"""Chunks of a batch: the gradient of every strategy is that of the whole batch, on several ranks too."""

from __future__ import annotations

import torch
from torch import nn

from datamodules.pairs import Candidate, Pair, collate
from lightning_modules.distillation import DistillationModule
from lightning_modules.students.static import StaticEncoder
from lightning_modules.students.transformer import TransformerEncoder
from lightning_modules.teachers.online import OnlineTeacher
from lightning_modules.vectors import in_chunks, joined
from strategies.base import Embeddings
from strategies.ot_contrastive import OTContrastive
from tests.strategies.test_all_strategies import every_strategy

PASSAGES = (Candidate("a small cat"), Candidate("the big red sun", "jua kubwa jekundu", 2.0))
SOURCES = ["the cat", "good morning my friend", "water", "the red sun", "a small mat", "water is life", "sun", "cat"]
TARGETS = ["paka", "habari ya asubuhi", "maji", "jua kubwa jekundu", "mdogo", "maji ni uhai", "jua", "paka mdogo"]
PAIRS = [
    Pair(source, target, number % 7, PASSAGES[: number % 3])  # the first and the last have one source
    for number, (source, target) in enumerate(zip(SOURCES, TARGETS, strict=True))
]


class Step(nn.Module):
    """A training step as the forward pass of a module, which is what DDP wraps."""

    def __init__(self, build, folders, chunk_size, student=TransformerEncoder):
        super().__init__()
        torch.manual_seed(0)
        teacher, student = OnlineTeacher(folders[0], max_length=32), student(folders[1], max_length=32)
        self.module = DistillationModule(student, teacher, build(), chunk_size=chunk_size, projection="linear")
        self.module.log_dict = lambda *_, **__: None
        self.module.lists = self.module.distillation.uses_candidates
        student.fit_idf(TARGETS)
        teacher.fit_idf(SOURCES)
        self.eval()  # no dropout

    def forward(self, pairs):
        return self.module.training_step(collate(pairs), 0)


def gradients(step, pairs=PAIRS):
    step(pairs).backward()
    return {
        name.replace("module.", ""): weight.grad.clone()
        for name, weight in step.named_parameters()
        if weight.grad is not None
    }


def assert_equal(ours, theirs, tolerance):
    assert ours.keys() == theirs.keys()
    scale = max(float(gradient.abs().max()) for gradient in theirs.values())
    for name, gradient in theirs.items():
        assert float((ours[name] - gradient).abs().max()) <= tolerance * max(1.0, scale), name


@every_strategy
def test_chunks_have_the_gradient_of_the_whole_batch(build, tiny_bert, tiny_unigram):
    folders = tiny_bert, tiny_unigram
    assert_equal(gradients(Step(build, folders, 3)), gradients(Step(build, folders, 0)), 1e-6)


def test_chunks_of_a_static_student_keep_the_types_of_their_tokens(tiny_bert, tiny_unigram):
    folders = tiny_bert, tiny_unigram
    chunked, whole = (Step(OTContrastive, folders, size, StaticEncoder) for size in (3, 0))
    ours, theirs = (step.module(TARGETS, tokens=True) for step in (chunked, whole))
    assert ours.types[ours.mask].equal(theirs.types[theirs.mask])
    assert_equal(gradients(chunked), gradients(whole), 1e-6)


def test_dropout_is_repeated_and_the_forward_pass_keeps_no_activations():
    """The oracle keeps all activations; the number of rows that are in memory at once is that of a chunk."""
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Linear(4, 64), nn.Dropout(0.5), nn.GELU(), nn.Linear(64, 5))
    inputs, kept = torch.randn(12, 4), []

    def encode(chunk):
        return Embeddings(layers(chunk["x"]))

    def gradient(run):
        torch.manual_seed(1)
        layers.zero_grad()
        kept.clear()
        with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x) or x, lambda x: x):
            pooled = run().pooled
        rows = sum(len(each) for each in kept if each.shape[-1] == 64 and len(each) in (3, 12))
        (pooled @ pooled.T).exp().sum().backward()
        return rows, [weight.grad.clone() for weight in layers.parameters()]

    def tokenize(rows):
        return {"x": inputs[list(rows)]}

    rows, ours = gradient(lambda: in_chunks(tokenize, encode, range(12), 3))
    all_rows, theirs = gradient(lambda: joined([encode(tokenize(range(i, i + 3))) for i in range(0, 12, 3)]))
    assert rows == 0 < all_rows
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, atol=0, rtol=0)
