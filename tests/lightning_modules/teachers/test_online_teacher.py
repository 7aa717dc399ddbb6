from __future__ import annotations

import shutil
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from torch import nn

from lightning_modules.students.transformer import TransformerEncoder
from lightning_modules.teachers import base
from lightning_modules.teachers.base import Teacher
from lightning_modules.teachers.online import OnlineTeacher


@pytest.fixture
def teacher(tiny_bert) -> OnlineTeacher:
    return OnlineTeacher(tiny_bert, max_length=16, batch_size=3, device="cpu")


def test_making_it_loads_nothing():
    teacher = OnlineTeacher("no-such-owner/no-such-model")
    assert isinstance(teacher, Teacher)
    assert teacher._encoder is None


def test_vectors_come_in_the_given_order(teacher, tiny_bert, texts):
    encoder = TransformerEncoder(tiny_bert, max_length=16).eval()
    result = teacher.encode(texts, tokens=True)
    for row, text in enumerate(texts):
        with torch.no_grad():
            alone = encoder(encoder.tokenize([text]), tokens=True)
        torch.testing.assert_close(result.pooled[row], alone.pooled[0], atol=1e-5, rtol=0)
        torch.testing.assert_close(
            result.tokens[row][result.mask[row]], alone.tokens[0][alone.mask[0]], atol=1e-5, rtol=0
        )
    assert (result.tokens[~result.mask] == 0).all()
    assert result.mask.any(1).all()
    assert result.pooled.dtype == result.tokens.dtype == torch.float32
    torch.testing.assert_close(teacher.encode(texts).pooled, result.pooled)
    assert teacher.encode(texts).tokens is None


def test_it_is_frozen_and_in_eval_mode(teacher, texts):
    result = teacher.encode(texts, tokens=True)
    assert not result.pooled.requires_grad
    assert not result.tokens.requires_grad
    assert not any(parameter.requires_grad for parameter in teacher.encoder.parameters())
    assert not teacher.encoder.training
    assert not teacher.encoder.model.training
    torch.testing.assert_close(teacher.encode(texts).pooled, result.pooled)  # no dropout


def test_its_vectors_can_be_used_with_a_gradient(teacher):
    target = teacher.encode(["the cat"]).pooled
    weight = torch.ones(32, requires_grad=True)
    (weight * target).sum().backward()  # fails for tensors made in inference mode
    assert weight.grad is not None


def test_it_is_not_part_of_the_module_that_holds_it(teacher):
    class Holder(nn.Module):
        def __init__(self):
            super().__init__()
            self.teacher = teacher

    teacher.encode(["the cat"])
    holder = Holder().train()
    assert list(holder.parameters()) == []
    assert holder.state_dict() == {}
    assert not teacher.encoder.training


def test_float32_under_autocast(teacher):
    plain = teacher.encode(["the cat"], tokens=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = teacher.encode(["the cat"], tokens=True)
    assert torch.equal(plain.pooled, inside.pooled)
    assert torch.equal(plain.tokens, inside.tokens)


def test_idf_weights(teacher):
    assert teacher.encode(["the cat"], tokens=True).weights is None
    teacher.fit_idf(["the cat", "the sun", "the water"])
    result = teacher.encode(["the cat", "a"], tokens=True)
    torch.testing.assert_close(result.weights[0], torch.tensor([1.0, torch.tensor(4 / 2).log().item() + 1]))
    assert result.weights[1, 0] > result.weights[0, 1]
    assert result.weights[1, 1] == 0


def test_fingerprint_knows_the_content_and_the_settings(tiny_bert, tmp_path):
    copy = Path(shutil.copytree(tiny_bert, tmp_path / "copy"))
    base = OnlineTeacher(tiny_bert).fingerprint()
    assert OnlineTeacher(str(copy)).fingerprint() == base
    assert OnlineTeacher(tiny_bert, batch_size=7).fingerprint() == base
    changed = [{"pooling": "cls"}, {"max_length": 64}, {"prefix": "query: "}]
    others = {OnlineTeacher(tiny_bert, **options).fingerprint() for options in changed}
    weights = copy / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    others.add(OnlineTeacher(str(copy)).fingerprint())
    assert len(others | {base}) == 5


def test_width_is_known_without_the_weights(tiny_bert):
    teacher = OnlineTeacher(tiny_bert)
    assert teacher.dim == 32
    assert teacher._encoder is None


def test_progress_counts_all_texts(teacher, monkeypatch):
    shown = []

    @contextmanager
    def bar(what, total):
        shown.append([what, total, 0])

        def advance(amount):
            shown[-1][2] += amount

        yield advance

    monkeypatch.setattr(base, "delayed_progress", bar)
    teacher.encode(["the cat", "a sun"] * 5)
    assert shown == [["teacher: encode texts", 10, 10]]


def test_wrong_options_and_no_texts(teacher):
    with pytest.raises(ValueError, match="batch_size"):
        OnlineTeacher(batch_size=0)
    with pytest.raises(ValueError, match="no texts"):
        teacher.encode([])
