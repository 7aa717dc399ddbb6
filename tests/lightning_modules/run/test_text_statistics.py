import numpy as np
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from datamodules.text import script_shares
from lightning_modules.run.text_statistics import BIN_EDGES, flat, text_statistics
from lightning_modules.students.tokens import Tokenization


@pytest.fixture(scope="module")
def reading():
    pieces = ["[UNK]", "[CLS]", "[SEP]", "maji", "mo", "##to", "q", ":"]
    tokenizer = Tokenizer(models.WordPiece({piece: i for i, piece in enumerate(pieces)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        "[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    return Tokenization(tokenizer, max_length=5, unknown="[UNK]")


TEXTS = ["maji", "moto moto", "maji xyz", "", "maji maji maji maji"]


def test_figures(reading):
    found = text_statistics(TEXTS, reading)
    lengths = [1, 4, 2, 0, 4]
    assert found.texts == 5
    assert found.words == 9 / 5
    assert found.fertility == pytest.approx(sum(lengths) / 9)
    assert found.unknown == pytest.approx(1 / sum(lengths))
    assert found.truncated == 2 / 5  # two of the five tokens are special
    assert (found.median_length, found.longest) == (2, 4)
    assert sum(found.histogram) == 5
    assert [number for number in found.histogram if number] == [1, 1, 1, 2]
    assert np.flatnonzero(found.histogram).tolist() == [BIN_EDGES.index(n) for n in (0, 1, 2, 4)]
    assert found.sparkline.startswith("▄▄▄█ ")


def test_prefix_counts_for_the_limit_only(reading):
    with_prefix = Tokenization(reading.tokenizer, reading.max_length, reading.unknown, "q: ")
    plain, prefixed = text_statistics(TEXTS, reading), text_statistics(TEXTS, with_prefix)
    assert prefixed.fertility == plain.fertility
    assert prefixed.truncated == 3 / 5


def test_scripts():
    assert script_shares(["abc", "मराठी 12!", "日本"]) == pytest.approx(
        {"Latin": 3 / 8, "Devanagari": 3 / 8, "Han": 2 / 8}
    )
    assert script_shares(["12"]) == {}


def test_flat_names(reading):
    values = flat({"train target": text_statistics(TEXTS, reading)})
    assert values["diagnostics/train_target/texts"] == 5.0
    assert all(isinstance(value, float) for value in values.values())
