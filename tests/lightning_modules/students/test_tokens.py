from __future__ import annotations

import numpy as np
import pytest
import torch

from lightning_modules.students.tokens import Encoding, EncodingMemory, padded_inputs
from lightning_modules.students.transformer import TransformerEncoder


def make_encoding(*ids: int, real: list[bool] | None = None) -> Encoding:
    return Encoding(np.array(ids, dtype=np.int32), np.array(real or [True] * len(ids)), False)


def counted(calls: list[str]):
    def encode(texts: list[str]) -> list[Encoding]:
        calls.extend(texts)
        return [make_encoding(*map(ord, text)) for text in texts]

    return encode


def test_a_text_is_tokenised_once():
    calls: list[str] = []
    memory = EncodingMemory()
    first = memory.get(["ab", "c", "ab"], "", counted(calls))
    again = memory.get(["c", "d"], "", counted(calls))
    assert calls == ["ab", "c", "d"]
    assert [each.ids.tolist() for each in first] == [[97, 98], [99], [97, 98]]
    assert again[0] is first[1]


def test_the_prefix_is_part_of_the_key_and_clear_forgets():
    calls: list[str] = []
    memory = EncodingMemory()
    memory.get(["a"], "query: ", counted(calls))
    memory.get(["a"], "", counted(calls))
    memory.clear()
    memory.get(["a"], "", counted(calls))
    assert calls == ["a", "a", "a"]


def test_no_more_texts_are_kept_than_allowed():
    calls: list[str] = []
    memory = EncodingMemory(most=2)
    found = memory.get(["a", "b", "c"], "", counted(calls))
    assert [each.ids.tolist() for each in found] == [[97], [98], [99]]
    memory.get(["a", "b", "c"], "", counted(calls))
    assert calls == ["a", "b", "c", "c"]


def test_padding():
    inputs = padded_inputs([make_encoding(5, 6, 7, real=[False, True, False]), make_encoding(8)], pad_id=1)
    assert inputs["input_ids"].tolist() == [[5, 6, 7], [8, 1, 1]]
    assert inputs["attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0]]
    assert inputs["token_mask"].tolist() == [[False, True, False], [True, False, False]]
    assert inputs["input_ids"].dtype == inputs["attention_mask"].dtype == torch.int64


@pytest.mark.parametrize("vocabulary", ["trim", "extend"])
def test_an_adapted_vocabulary_forgets_the_old_ids(tiny_unigram, texts, vocabulary):
    encoder = TransformerEncoder(tiny_unigram, max_length=20, vocabulary=vocabulary)
    asked = ["nyumba nzuri sana", *texts]
    encoder.tokenize(asked)
    encoder.adapt_vocabulary(["nyumba nzuri sana nyumba nzuri", *texts[:4]])
    inputs = encoder.tokenize(asked)
    for row, text in enumerate(asked):
        real = inputs["attention_mask"][row].bool()
        assert inputs["input_ids"][row][real].tolist() == encoder.tokenizer.encode(text).ids
