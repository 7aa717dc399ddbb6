from __future__ import annotations

import pytest
import torch
from torch import nn

from lightning_modules.students.static import StaticEncoder


def test_it_starts_as_the_mean_of_the_token_vectors(tiny_bert, texts):
    from transformers import AutoModel

    encoder = StaticEncoder(tiny_bert)
    table = AutoModel.from_pretrained(tiny_bert).get_input_embeddings().weight
    inputs = encoder.tokenize(texts)
    result = encoder(inputs, tokens=True)
    for row in range(len(texts)):
        ids = inputs["input_ids"][row][inputs["token_mask"][row]]
        mean = table[ids].mean(0)
        torch.testing.assert_close(result.pooled[row], mean / mean.norm())
        torch.testing.assert_close(result.tokens[row][inputs["token_mask"][row]], table[ids])
    assert encoder.dim == 32


@pytest.mark.parametrize("options", [{}, {"token_weights": True}, {"linear": False}, {"dim": 8}])
def test_pooled_vectors_are_the_same_with_and_without_tokens(tiny_bert, texts, options):
    encoder = StaticEncoder(tiny_bert, **options)
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    inputs = encoder.tokenize(texts)
    torch.testing.assert_close(encoder(inputs).pooled, encoder(inputs, tokens=True).pooled)
    assert encoder(inputs).pooled.shape == (len(texts), options.get("dim", 32)) == (len(texts), encoder.dim)


def test_special_tokens_and_padding_do_not_count(tiny_bert):
    encoder = StaticEncoder(tiny_bert)
    with torch.no_grad():
        for token in ("[CLS]", "[SEP]", "[PAD]"):
            encoder.embedding.weight[encoder.tokenizer.token_to_id(token)] = 1e6
    alone = encoder(encoder.tokenize(["the cat"])).pooled
    together = encoder(encoder.tokenize(["the cat", "good morning my friend"])).pooled
    torch.testing.assert_close(alone[0], together[0])
    assert (alone.abs() < 1).all()


def test_an_empty_text_has_a_finite_vector_and_gradient(tiny_bert):
    encoder = StaticEncoder(tiny_bert)
    with torch.no_grad():
        encoder.embedding.weight[encoder.tokenizer.token_to_id("[CLS]")] = 0
        encoder.embedding.weight[encoder.tokenizer.token_to_id("[SEP]")] = 0
    pooled = encoder(encoder.tokenize(["", "cat"])).pooled
    assert pooled.isfinite().all()
    pooled.sum().backward()
    assert encoder.embedding.weight.grad.isfinite().all()


def test_token_weights_are_positive_and_learnt(tiny_bert):
    encoder = StaticEncoder(tiny_bert, token_weights=True, linear=False)
    inputs = encoder.tokenize(["the cat"])
    the, cat = inputs["input_ids"][0, 1], inputs["input_ids"][0, 2]
    with torch.no_grad():
        encoder.token_weights.weight[the] = -3.0
    rows = encoder.embedding.weight
    mean = (rows[the] * torch.tensor(-3.0).exp() + rows[cat]) / (torch.tensor(-3.0).exp() + 1)
    torch.testing.assert_close(encoder(inputs).pooled[0], nn.functional.normalize(mean, dim=0))
    encoder(inputs).pooled[0, 0].backward()
    assert encoder.token_weights.weight.grad[cat] != 0


def test_it_learns(tiny_bert):
    torch.manual_seed(0)
    encoder = StaticEncoder(tiny_bert)
    inputs = encoder.tokenize(["the cat", "water is life", "red sun"])
    target = nn.functional.normalize(torch.randn(3, 32), dim=1)
    optimizer = torch.optim.Adam(encoder.parameters(), lr=0.01)
    losses = []
    for _ in range(20):
        loss = (encoder(inputs).pooled - target).square().sum(1).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 2


def test_random_init_keeps_the_scale_only(tiny_bert):
    random, start = StaticEncoder(tiny_bert, random_init=True), StaticEncoder(tiny_bert)
    assert random.embedding.weight.shape == start.embedding.weight.shape
    assert not torch.allclose(random.embedding.weight, start.embedding.weight)
    assert random.embedding.weight.std().item() == pytest.approx(start.embedding.weight.std().item(), rel=0.1)


def test_another_width_needs_the_linear_layer(tiny_bert):
    with pytest.raises(ValueError, match="or linear=true"):
        StaticEncoder(tiny_bert, dim=8, linear=False)
    assert StaticEncoder(tiny_bert, dim=48).dim == 48
