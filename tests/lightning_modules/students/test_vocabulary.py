from __future__ import annotations

import hashlib
import inspect
import json
import os
import subprocess
import sys
import unicodedata
from pathlib import Path

import pytest
import torch
from torch import nn

from lightning_modules.export.folder import save_student
from lightning_modules.students import vocabulary
from lightning_modules.students.static import StaticEncoder
from lightning_modules.students.transformer import TransformerEncoder

WORDS = ["paka mdogo", "paka mkubwa", "habari ya paka", "mdogo na mkubwa", "habari mdogo"]
MARKED = ["मित्र मित्रे", "मित्र मुले", "मुले मोठी", "मोठी मुले", "the cat"]


def build(model: str, mode: str, **options) -> TransformerEncoder:
    return TransformerEncoder(model, vocabulary=mode, max_length=40, **options).eval()


def pooled(encoder, texts: list[str]):
    with torch.no_grad():
        return encoder(encoder.tokenize(texts)).pooled


def tokens(encoder, text: str) -> list[str]:
    inputs = encoder.tokenize([text])
    return [encoder.tokenizer.id_to_token(i) for i in inputs["input_ids"][0][inputs["token_mask"][0]].tolist()]


@pytest.fixture(params=["tiny_bert", "tiny_unigram"])
def model(request) -> str:
    return request.getfixturevalue(request.param)


def test_keep_changes_nothing(model, texts):
    encoder = build(model, "keep")
    before = encoder.tokenizer_json()
    encoder.adapt_vocabulary(texts)
    assert encoder.tokenizer_json() == before


def test_trim_gives_the_same_vectors_with_fewer_rows(model):
    encoder, full = build(model, "trim"), build(model, "keep")
    seen = ["the cat sits", "paka mdogo", "पाणी", "xylophone Ω☃", ""]
    encoder.adapt_vocabulary(seen)
    assert len(encoder.token_tables()[0].weight) < len(full.token_tables()[0].weight)
    assert len(encoder.token_tables()[0].weight) == encoder.tokenizer.get_vocab_size()
    torch.testing.assert_close(pooled(encoder, seen), pooled(full, seen))
    assert [tokens(encoder, text) for text in seen] == [tokens(full, text) for text in seen]


def test_trim_keeps_special_tokens_and_characters_of_the_scripts(tiny_unigram):
    encoder, full = build(tiny_unigram, "trim"), build(tiny_unigram, "keep")
    encoder.adapt_vocabulary(["पाणी"])
    assert {"<s>", "<pad>", "</s>", "<unk>", "<mask>", "a", "म"} <= set(encoder.tokenizer.get_vocab())
    assert "ሰ" in full.tokenizer.get_vocab()
    assert "ሰ" not in encoder.tokenizer.get_vocab()
    assert "▁maji" not in encoder.tokenizer.get_vocab()
    assert tokens(encoder, "maji") == ["▁m", "a", "j", "i"]
    assert encoder.model.config.pad_token_id == encoder.token_tables()[0].padding_idx == encoder.pad_id


def test_trim_does_not_move_the_score_of_unknown_characters(tiny_unigram):
    """Unigram sets it below the lowest score of the vocabulary, so that score must stay."""
    encoder, full = build(tiny_unigram, "trim"), build(tiny_unigram, "keep")
    encoder.adapt_vocabulary(["the cat"])
    lowest = [min(score for _, score in json.loads(e.tokenizer.to_str())["model"]["vocab"]) for e in (encoder, full)]
    assert lowest[0] == lowest[1]


def test_trim_reads_long_texts_to_their_end(tiny_unigram):
    encoder = TransformerEncoder(tiny_unigram, vocabulary="trim", max_length=4)
    encoder.adapt_vocabulary(["the cat sits on the mat paka"])
    assert "▁paka" in encoder.tokenizer.get_vocab()
    assert encoder.tokenize(["the cat sits on the mat paka"])["input_ids"].shape == (1, 4)


def test_trimmed_student_loads_with_transformers(model, tmp_path):
    from transformers import AutoModel, AutoTokenizer

    encoder = build(model, "trim")
    seen = ["the cat sits", "paka mdogo", "पाणी"]
    encoder.adapt_vocabulary(seen)
    save_student(tmp_path / "student", encoder.eval(), nn.Identity())
    network = AutoModel.from_pretrained(tmp_path / "student").eval()
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "student")
    batch = tokenizer(seen, padding=True, return_tensors="pt")
    assert torch.equal(batch["input_ids"], encoder.tokenize(seen)["input_ids"])
    assert tokenizer.pad_token_id == network.config.pad_token_id
    with torch.no_grad():
        states, mask = network(**batch).last_hidden_state, batch["attention_mask"][..., None]
    mean = nn.functional.normalize((states * mask).sum(1) / mask.sum(1), dim=1)
    torch.testing.assert_close(mean, pooled(encoder, seen))
    again = build(str(tmp_path / "student"), "keep")
    torch.testing.assert_close(pooled(again, seen), pooled(encoder, seen))


def test_extend_starts_new_rows_from_the_mean_of_their_old_pieces(model):
    encoder, full = build(model, "extend", new_pieces=30), build(model, "keep")
    encoder.adapt_vocabulary(["watoto wanacheza", "watoto wanaimba", "wanacheza na watoto"])
    old, new = full.tokenizer.get_vocab(), encoder.tokenizer.get_vocab()
    added = [piece for piece in new if piece not in old]
    assert 0 < len(added) <= 30
    table, rows = full.token_tables()[0].weight, encoder.token_tables()[0].weight
    for piece in old:
        assert torch.equal(rows[new[piece]], table[old[piece]])
    compared = 0
    for piece in added:
        parts = [token.id for token in full.tokenizer.model.tokenize(piece)]
        if piece.startswith("##") or old.get("[UNK]", 3) in parts:
            continue
        torch.testing.assert_close(rows[new[piece]], table[parts].mean(0))
        compared += len(parts) > 1
    assert compared > 0


def test_extend_writes_the_language_with_fewer_pieces(tiny_bert):
    encoder, full = build(tiny_bert, "extend", new_pieces=60), build(tiny_bert, "keep")
    encoder.adapt_vocabulary(WORDS)
    assert tokens(encoder, "paka mdogo") == ["paka", "mdogo"]
    assert len(tokens(full, "paka mdogo")) > 2 or "[UNK]" in tokens(full, "paka mdogo")
    assert tokens(encoder, "the cat sits") == tokens(full, "the cat sits")


def test_extend_of_unigram_prefers_its_new_pieces(tiny_unigram):
    encoder, full = build(tiny_unigram, "extend", new_pieces=40), build(tiny_unigram, "keep")
    encoder.adapt_vocabulary(["watoto wanacheza", "watoto wanaimba", "wanacheza na watoto"])
    assert tokens(encoder, "watoto wanacheza") == ["▁watoto", "▁wanacheza"]
    assert len(tokens(full, "watoto wanacheza")) > 6
    assert tokens(encoder, "the cat sits") == tokens(full, "the cat sits")
    mask = encoder.tokenizer.token_to_id("<mask>")
    torch.testing.assert_close(
        encoder.token_tables()[0].weight[mask], full.token_tables()[0].weight[full.tokenizer.token_to_id("<mask>")]
    )


def test_extend_keeps_vowel_signs_that_an_uncased_tokenizer_strips(tiny_bert):
    full = build(tiny_bert, "keep")
    signs = {c for c in "मित्रे मुले" if unicodedata.category(c) == "Mn"}
    assert signs
    assert full.tokenizer.normalizer.normalize_str("मित्रे मुले") != "मित्रे मुले"
    encoder = build(tiny_bert, "extend", new_pieces=200)
    encoder.adapt_vocabulary(MARKED)
    assert tokens(encoder, "मुले") == ["मुले"]
    assert tokens(encoder, "मुल")[0] != "[UNK]"
    assert "".join(tokens(encoder, "मित्रे")).replace("##", "") == "मित्रे"
    normal = encoder.tokenizer.normalizer.normalize_str
    assert normal("The Câté ЙОГ ☺\ufe0f") == full.tokenizer.normalizer.normalize_str("The Câté ЙОГ ☺\ufe0f")
    assert normal(unicodedata.normalize("NFD", "क़ मुले")) == unicodedata.normalize("NFC", "क़ मुले")


def test_extend_leaves_the_normaliser_where_marks_are_accents(tiny_bert):
    encoder = build(tiny_bert, "extend")
    encoder.adapt_vocabulary(["árbol niño árbol", "niño ☺\ufe0f"])
    assert json.loads(encoder.tokenizer.to_str())["normalizer"]["type"] == "BertNormalizer"
    assert "nino" in encoder.tokenizer.get_vocab()


@pytest.mark.parametrize("mode", ["trim", "extend"])
@pytest.mark.parametrize("kind", [TransformerEncoder, StaticEncoder])
def test_checkpoint_restores_the_vocabulary_without_the_texts(model, mode, kind, tmp_path):
    options = {"token_weights": True} if kind is StaticEncoder else {}
    seen = ["the cat sits", "paka mdogo", "पाणी", *WORDS]
    encoder = kind(model, vocabulary=mode, max_length=40, **options).eval()
    encoder.adapt_vocabulary(seen)
    encoder.fit_idf(seen)
    holder = nn.ModuleDict({"student": encoder})
    torch.save(holder.state_dict(), tmp_path / "state.pt")
    fresh = nn.ModuleDict({"student": kind(model, vocabulary=mode, max_length=40, **options).eval()})
    fresh.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True), strict=True)
    other = fresh["student"]
    assert torch.equal(pooled(other, seen), pooled(encoder, seen))
    assert torch.equal(other.idf, encoder.idf)
    assert other.tokenizer_json() == encoder.tokenizer_json()
    before = other.tokenizer_json()
    other.adapt_vocabulary(["something else"])  # adapted already
    assert other.tokenizer_json() == before


def test_a_plain_checkpoint_does_not_fit_an_adapted_encoder(tiny_bert):
    state = build(tiny_bert, "keep").state_dict()
    encoder = build(tiny_bert, "trim")
    encoder.adapt_vocabulary(["the cat"])
    with pytest.raises(ValueError, match="build a new encoder"):
        encoder.load_state_dict(state)


def test_the_same_texts_give_the_same_vocabulary_in_every_process(tiny_bert, tiny_unigram):
    models = [tiny_bert, tiny_unigram]
    code = (
        f"import hashlib\nfrom lightning_modules.students import vocabulary\nWORDS, MARKED = {WORDS!r}, {MARKED!r}\n"
        f"{inspect.getsource(vocabulary_hash)}\nprint(vocabulary_hash({models!r}))"
    )
    environment = os.environ | {"PYTHONHASHSEED": "7", "PYTHONPATH": str(Path(__file__).parents[3])}
    run = [sys.executable, "-c", code]
    other = subprocess.run(run, env=environment, capture_output=True, check=True, text=True).stdout.strip()
    assert vocabulary_hash(models) == vocabulary_hash(models) == other


def vocabulary_hash(models: list[str]) -> str:
    from tokenizers import Tokenizer

    digest = hashlib.sha256()
    for model in models:
        tokenizer = Tokenizer.from_file(f"{model}/tokenizer.json")
        for adapted in (
            vocabulary.trim(tokenizer, [*WORDS, *MARKED]),
            vocabulary.extend(tokenizer, [*WORDS, *MARKED], 50),
        ):
            digest.update(f"{adapted.tokenizer}{adapted.sources}".encode())
    return digest.hexdigest()


def test_gradient_reaches_adapted_rows(tiny_bert):
    encoder = TransformerEncoder(tiny_bert, vocabulary="extend", max_length=40)
    encoder.adapt_vocabulary(WORDS)
    table = encoder.token_tables()[0]
    assert table.weight.requires_grad
    encoder(encoder.tokenize(["paka mdogo"])).pooled[:, 0].sum().backward()
    used = encoder.tokenizer.token_to_id("paka")
    assert table.weight.grad[used].abs().sum() > 0
    assert encoder.model.config.vocab_size == table.num_embeddings == len(table.weight)


def test_other_tokenizers_are_refused(tmp_path):
    from tokenizers import Tokenizer, models

    tokenizer = Tokenizer(models.BPE())
    with pytest.raises(ValueError, match="BPE tokenizer cannot be adapted"):
        vocabulary.trim(tokenizer, ["a"])


def test_no_texts_and_no_pieces(tiny_bert):
    with pytest.raises(ValueError, match="no texts"):
        build(tiny_bert, "trim").adapt_vocabulary([])
    with pytest.raises(ValueError, match="new_pieces"):
        build(tiny_bert, "extend", new_pieces=0).adapt_vocabulary(["a"])
