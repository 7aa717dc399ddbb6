from __future__ import annotations

import math
import unicodedata

import numpy as np
import pytest
import torch
from jsonargparse import ArgumentError, ArgumentParser
from torch import nn

from lightning_modules.export.folder import save_student
from lightning_modules.students.base import TextEncoder
from lightning_modules.students.transformer import TransformerEncoder
from lightning_modules.teachers.base import Teacher
from lightning_modules.vectors import idf_of_ids, masked_mean


@pytest.fixture
def encoder(tiny_bert) -> TransformerEncoder:
    return TransformerEncoder(tiny_bert, max_length=16)


def test_mean_pooling_equals_a_slow_loop_over_attended_tokens(encoder, texts):
    encoder.eval()
    inputs = encoder.tokenize(texts)
    result = encoder(inputs, tokens=True)
    states = encoder.model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"]).last_hidden_state
    for row in range(len(texts)):
        attended = [states[row, t] for t in range(states.shape[1]) if inputs["attention_mask"][row, t]]
        mean = sum(attended) / len(attended)
        torch.testing.assert_close(result.pooled[row], mean / mean.norm())
    assert result.pooled.dtype == torch.float32
    assert encoder.dim == 32


def test_cls_pooling_is_the_first_state(tiny_bert, texts):
    encoder = TransformerEncoder(tiny_bert, pooling="cls", max_length=16).eval()
    inputs = encoder.tokenize(texts)
    states = encoder.model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"]).last_hidden_state
    torch.testing.assert_close(encoder(inputs).pooled, nn.functional.normalize(states[:, 0], dim=1))


def test_vectors_do_not_depend_on_padding(encoder, texts):
    encoder.eval()
    together = encoder(encoder.tokenize(texts), tokens=True)
    for row, text in enumerate(texts):
        alone = encoder(encoder.tokenize([text]), tokens=True)
        torch.testing.assert_close(together.pooled[row], alone.pooled[0], atol=1e-5, rtol=0)
        torch.testing.assert_close(
            together.tokens[row][together.mask[row]], alone.tokens[0][alone.mask[0]], atol=1e-5, rtol=0
        )


def test_token_mask_leaves_special_tokens_out_but_never_all(encoder):
    inputs = encoder.tokenize(["water is life", "", "a"])
    assert inputs["token_mask"].sum(1).tolist() == [3, 2, 1]
    pieces = [[encoder.tokenizer.id_to_token(i) for i in row.tolist()] for row in inputs["input_ids"]]
    assert [p for p, m in zip(pieces[0], inputs["token_mask"][0].tolist(), strict=True) if m] == ["water", "is", "life"]
    assert inputs["attention_mask"].sum(1).tolist() == [5, 2, 3]


def test_tokens_of_the_prefix_are_no_real_tokens(tiny_bert):
    encoder = TransformerEncoder(tiny_bert, prefix="the: ", max_length=16)
    inputs = encoder.tokenize(["red sun", "", "the"])
    words = [
        [encoder.tokenizer.id_to_token(i) for i in ids[mask].tolist()]
        for ids, mask in zip(inputs["input_ids"], inputs["token_mask"], strict=True)
    ]
    assert words[0] == ["red", "sun"]
    assert words[2] == ["the"]
    assert inputs["token_mask"].any(1).all()
    plain = TransformerEncoder(tiny_bert, max_length=16)
    assert inputs["input_ids"][0].tolist() == plain.tokenize(["the: red sun"])["input_ids"][0].tolist()


def test_prefix_of_a_unigram_tokenizer_takes_no_token_of_the_text(tiny_unigram):
    encoder = TransformerEncoder(tiny_unigram, prefix="paka ", max_length=16)
    inputs = encoder.tokenize(["maji ni uhai"])
    ids = inputs["input_ids"][0][inputs["token_mask"][0]]
    assert [encoder.tokenizer.id_to_token(i) for i in ids.tolist()] == ["▁maji", "▁ni", "▁uhai"]


def test_truncation_is_counted(encoder):
    encoder.tokenize(["a", "the cat " * 20])
    assert encoder.truncated == 0.5
    encoder.tokenize(["the sun " * 20])
    assert encoder.truncated == 1
    assert encoder.tokenize(["the cat " * 20])["input_ids"].shape == (1, 16)


def test_text_is_brought_to_nfc(tiny_unigram):
    encoder = TransformerEncoder(tiny_unigram, max_length=16)
    encoder.tokenizer.normalizer = None
    composed = "पाणी é"
    expected = encoder.tokenize([composed])["input_ids"]
    assert torch.equal(encoder.tokenize([unicodedata.normalize("NFD", composed)])["input_ids"], expected)


def test_dropout_is_on_in_training_and_off_in_eval(encoder, texts):
    inputs = encoder.tokenize(texts)
    assert encoder.model.training
    assert not torch.equal(encoder(inputs).pooled, encoder(inputs).pooled)
    encoder.eval()
    assert torch.equal(encoder(inputs).pooled, encoder(inputs).pooled)


def test_dropout_option_sets_every_dropout(tiny_bert, texts):
    encoder = TransformerEncoder(tiny_bert, dropout=0.0, max_length=16)
    inputs = encoder.tokenize(texts)
    assert torch.equal(encoder(inputs).pooled, encoder(inputs).pooled)


def test_every_parameter_gets_a_gradient(encoder, texts):
    encoder(encoder.tokenize(texts)).pooled.square()[:, 0].sum().backward()
    assert [name for name, parameter in encoder.named_parameters() if parameter.grad is None] == []


def test_first_layers_are_kept(tiny_bert, texts):
    encoder = TransformerEncoder(tiny_bert, layers=1, max_length=16).eval()
    full = TransformerEncoder(tiny_bert, max_length=16).eval()
    inputs = encoder.tokenize(texts)
    model_inputs = {name: inputs[name] for name in ("input_ids", "attention_mask")}
    first = full.model(**model_inputs, output_hidden_states=True).hidden_states[1]
    states = encoder(inputs, tokens=True).tokens
    mask = inputs["attention_mask"].bool()
    torch.testing.assert_close(states[mask], first[mask])
    with pytest.raises(ValueError, match="layers is 3, expected a number from 1 to 2"):
        TransformerEncoder(tiny_bert, layers=3)


def test_random_init_takes_the_architecture_only(tiny_bert, encoder):
    random = TransformerEncoder(tiny_bert, random_init=True, max_length=16)
    assert [p.shape for p in random.parameters()] == [p.shape for p in encoder.parameters()]
    weights = [m.model.encoder.layer[0].output.dense.weight for m in (random, encoder)]
    assert not torch.allclose(*weights)


def test_weights_are_the_smoothed_idf_of_real_tokens(encoder):
    assert encoder(encoder.tokenize(["a cat"]), tokens=True).weights is None
    encoder.fit_idf(["the cat the cat", "the sun", "the cat is red"])
    inputs = encoder.tokenize(["the cat", "life"])
    weights = encoder(inputs, tokens=True).weights
    expected = {"the": math.log(4 / 4) + 1, "cat": math.log(4 / 3) + 1, "life": math.log(4 / 1) + 1}
    torch.testing.assert_close(weights[0][inputs["token_mask"][0]], torch.tensor([expected["the"], expected["cat"]]))
    torch.testing.assert_close(weights[1][inputs["token_mask"][1]], torch.tensor([expected["life"]]))
    assert (weights[~inputs["token_mask"]] == 0).all()


def test_idf_is_part_of_the_state(encoder, tiny_bert, tmp_path):
    encoder.fit_idf(["the cat", "the sun"])
    torch.save(encoder.state_dict(), tmp_path / "state.pt")
    other = TransformerEncoder(tiny_bert, max_length=16)
    other.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    torch.testing.assert_close(other.idf, encoder.idf)


def test_masked_mean_of_an_empty_row_is_zero():
    states = torch.randn(2, 3, 4)
    mask = torch.tensor([[True, False, True], [False, False, False]])
    mean = masked_mean(states, mask)
    torch.testing.assert_close(mean[0], (states[0, 0] + states[0, 2]) / 2)
    assert (mean[1] == 0).all()


def test_idf_formula():
    texts = [np.array([1, 2, 2])] + [np.array([2])] * 8
    expected = [math.log(10) + 1, math.log(5) + 1, 1.0]
    assert idf_of_ids(texts, 3).tolist() == pytest.approx(expected)
    assert idf_of_ids(texts).tolist() == pytest.approx([*expected, expected[0]])


def test_a_saved_student_loads_with_transformers(encoder, tmp_path, texts):
    from transformers import AutoModel, AutoTokenizer

    encoder.eval()
    save_student(tmp_path / "student", encoder, nn.Identity())
    model = AutoModel.from_pretrained(tmp_path / "student").eval()
    batch = AutoTokenizer.from_pretrained(tmp_path / "student")(
        texts, padding=True, truncation=True, return_tensors="pt"
    )
    states = model(**batch).last_hidden_state
    mean = masked_mean(states, batch["attention_mask"])
    torch.testing.assert_close(nn.functional.normalize(mean, dim=1), encoder(encoder.tokenize(texts)).pooled)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pooling": "last"}, "pooling is 'last', expected one of mean, cls, max, .*, did you mean 'lasttoken'"),
        ({"max_length": 2}, "at least 3"),
        ({"max_length": 41}, "at most 40"),
        ({"vocabulary": "grow"}, "vocabulary is 'grow', expected one of keep, trim, extend"),
        ({"dropout": 1.0}, "dropout is 1.0, expected at least 0 and below 1"),
    ],
)
def test_wrong_options(tiny_bert, options, message):
    with pytest.raises(ValueError, match=message):
        TransformerEncoder(tiny_bert, **options)


def test_encoders_and_teachers_are_built_from_plain_values(tiny_bert):
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--student", type=TextEncoder)
    parser.add_argument("--teacher", type=Teacher)
    values = {
        "student": {
            "class_path": "lightning_modules.students.transformer.TransformerEncoder",
            "init_args": {"model": tiny_bert, "pooling": "cls", "layers": 1, "vocabulary": "trim", "max_length": 16},
        },
        "teacher": {
            "class_path": "lightning_modules.teachers.cached.CachedTeacher",
            "init_args": {
                "teacher": {
                    "class_path": "lightning_modules.teachers.online.OnlineTeacher",
                    "init_args": {"model": tiny_bert},
                }
            },
        },
    }
    instantiate = getattr(parser, "instantiate", parser.instantiate_classes)  # the new name, the old one
    built = instantiate(parser.parse_object(values))
    assert (built.student.pooling, built.student.vocabulary) == ("cls", "trim")
    assert built.teacher.teacher.model == tiny_bert
    values["student"]["init_args"]["pooling"] = "median"
    with pytest.raises(ArgumentError, match="median"):
        parser.parse_object(values)


def test_no_texts(encoder):
    with pytest.raises(ValueError, match="no texts"):
        encoder.tokenize([])


def test_it_is_a_text_encoder(encoder):
    assert isinstance(encoder, TextEncoder)
    assert isinstance(encoder, nn.Module)
