"""Models that sentence-transformers saved are read as the library reads them: its own vectors are the oracle."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from foundations.errors import InputError
from lightning_modules.export.folder import save_student
from lightning_modules.models.files import write_tokenizer
from lightning_modules.models.settings import own_settings
from lightning_modules.students.static import StaticEncoder
from lightning_modules.students.transformer import TransformerEncoder
from lightning_modules.teachers.cached import CachedTeacher
from lightning_modules.teachers.online import OnlineTeacher
from tests.conftest import ENGLISH, bert_tokenizer

PROMPTS = {"query": "the cat: ", "document": "water "}
POOLINGS = ["cls", "lasttoken", "max", "weightedmean", "mean", "mean_sqrt_len_tokens", ("cls", "mean")]
LONG = " ".join(ENGLISH * 3)


def save(
    folder: Path, base: str, pooling="cls", dense=True, prompts=None, length=20, include_prompt=True, **options
) -> str:
    """A folder as the library writes it: pooling, a Dense layer of random weights, normalisation."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer import modules

    first = modules.Transformer(base, max_seq_length=length)
    width = 32 if isinstance(pooling, str) else 32 * len(pooling)
    parts = [first, modules.Pooling(first.get_embedding_dimension(), pooling, include_prompt)]
    if dense:
        torch.manual_seed(3)
        parts += [modules.Dense(width, 16), modules.Normalize()]
    model = SentenceTransformer(modules=parts, prompts=PROMPTS if prompts is None else prompts, device="cpu", **options)
    model.save(str(folder))
    return str(folder)


def library(folder: str, texts: list[str], side: str = "queries") -> torch.Tensor:
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(folder, device="cpu")
    encode = model.encode_query if side == "queries" else model.encode_document
    return encode(texts, convert_to_tensor=True, normalize_embeddings=True)


def student_vectors(student, texts: list[str], side: str = "queries") -> torch.Tensor:
    with torch.no_grad():
        return student.eval()(student.tokenize(texts, side)).pooled


@pytest.fixture(scope="module")
def tiny_t5(tmp_path_factory) -> str:
    """A folder with a random T5 of two layers, 32 wide."""
    from transformers import T5Config, T5Model

    folder = tmp_path_factory.mktemp("models") / "tiny-t5"
    tokenizer, special = bert_tokenizer([word for text in ENGLISH for word in text.split()])
    config = T5Config(
        vocab_size=tokenizer.get_vocab_size(), d_model=32, d_kv=8, d_ff=48, num_layers=2, num_heads=4,
        pad_token_id=0, decoder_start_token_id=0, initializer_factor=1.0,
    )  # fmt: skip
    torch.manual_seed(1)
    T5Model(config).save_pretrained(folder)
    write_tokenizer(folder, tokenizer, special, 40)
    return str(folder)


@pytest.mark.parametrize("pooling", POOLINGS, ids=str)
def test_teacher_and_student_give_the_librarys_vectors(tiny_bert, tmp_path, texts, pooling):
    folder, texts = save(tmp_path / "model", tiny_bert, pooling), [*texts, LONG]
    online = OnlineTeacher(folder, device="cpu", batch_size=4)
    cached = CachedTeacher(OnlineTeacher(folder, device="cpu", batch_size=4), str(tmp_path / "cache"))
    student = TransformerEncoder(folder)
    assert online.sides == student.sides == ("queries", "documents")
    for side in online.sides:
        expected = library(folder, texts, side)
        for found in (online.encode(texts, side=side), cached.encode(texts, side=side)):
            torch.testing.assert_close(found.pooled, expected, atol=1e-5, rtol=0)
        torch.testing.assert_close(student_vectors(student, texts, side), expected, atol=1e-5, rtol=0)
    assert online.dim == cached.dim == student.dim == 16
    assert online.tokenization().max_length == student.max_length == 20
    assert any(
        parameter.shape == (16, 32 * (2 if pooling == POOLINGS[-1] else 1)) for parameter in student.parameters()
    )


def test_the_plain_mean_is_another_vector(tiny_bert, tmp_path, texts):
    """What the folder says was left out without a word."""
    folder = save(tmp_path / "model", tiny_bert)
    plain = OnlineTeacher(tiny_bert, max_length=20, device="cpu").encode(texts).pooled
    ours = OnlineTeacher(folder, device="cpu").encode(texts).pooled
    assert ours.shape != plain.shape


@pytest.mark.parametrize("pooling", ["mean", "weightedmean", "cls", "lasttoken"])
def test_prompts_may_be_left_out_of_the_pooling(tiny_bert, tmp_path, texts, pooling):
    folder = save(tmp_path / "model", tiny_bert, pooling, include_prompt=False)
    for side in ("queries", "documents"):
        found = OnlineTeacher(folder, device="cpu").encode(texts, side=side).pooled
        torch.testing.assert_close(found, library(folder, texts, side), atol=1e-5, rtol=0)
    included = save(tmp_path / "included", tiny_bert, pooling)
    assert pooling == "lasttoken" or not torch.allclose(library(included, texts), library(folder, texts), atol=1e-2)


@pytest.mark.parametrize(
    ("prompts", "default", "queries", "documents"),
    [
        ({"query": "a ", "passage": "b "}, None, "a ", "b "),
        ({"query": "a "}, "query", "a ", ""),
        ({"any": "c "}, "any", "c ", "c "),
        ({}, None, "", ""),
    ],
)
def test_prompts_by_side(tiny_bert, tmp_path, texts, prompts, default, queries, documents):
    folder = save(tmp_path / "model", tiny_bert, prompts=prompts, default_prompt_name=default)
    teacher = OnlineTeacher(folder, device="cpu")
    assert teacher.prefixes == {"queries": queries, "documents": documents}
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(folder, device="cpu")
    for side, prompt in teacher.prefixes.items():
        expected = model.encode(texts, prompt=prompt, convert_to_tensor=True)
        torch.testing.assert_close(teacher.encode(texts, side=side).pooled, expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(teacher.encode(texts).pooled, model.encode(texts, prompt_name=default or
        ("query" if prompts else None), convert_to_tensor=True), atol=1e-5, rtol=0)  # fmt: skip


def test_options_take_the_place_of_what_the_folder_says(tiny_bert, tmp_path, texts):
    folder = save(tmp_path / "model", tiny_bert, "cls", dense=False)
    options = {"pooling": "mean", "prefix": "", "max_length": 16}
    expected = OnlineTeacher(tiny_bert, device="cpu", **options).encode([*texts, LONG]).pooled
    found = OnlineTeacher(folder, device="cpu", **options).encode([*texts, LONG]).pooled
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)
    found = student_vectors(TransformerEncoder(folder, **options), [*texts, LONG])
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)
    one = OnlineTeacher(folder, query_prefix="a sun: ")
    assert one.prefixes == {"queries": "a sun: ", "documents": PROMPTS["document"]}


def test_pooling_of_a_plain_folder_may_be_the_librarys(tiny_bert, tmp_path, texts):
    folder = save(tmp_path / "model", tiny_bert, "max", dense=False, prompts={})
    found = OnlineTeacher(tiny_bert, pooling="max", max_length=20, device="cpu").encode(texts).pooled
    torch.testing.assert_close(found, library(folder, texts), atol=1e-5, rtol=0)


def test_token_states_go_through_the_dense_layer(tiny_bert, tmp_path, texts):
    folder = save(tmp_path / "model", tiny_bert, "mean", prompts={})
    student = TransformerEncoder(folder).eval()
    inputs = student.tokenize(texts)
    found = student(inputs, tokens=True)
    states = student.model(inputs["input_ids"], inputs["attention_mask"]).last_hidden_state
    dense = next(module for module in student.modules() if type(module).__name__ == "Dense").linear
    for row, column in [(0, 1), (3, 2)]:
        expected = torch.tanh(dense.weight @ states[row, column] + dense.bias)
        torch.testing.assert_close(found.tokens[row, column], expected)
    assert found.tokens.shape[-1] == found.pooled.shape[-1] == 16
    cached = CachedTeacher(OnlineTeacher(folder, device="cpu"), str(tmp_path / "cache")).encode(texts, tokens=True)
    real = found.tokens[found.mask]
    torch.testing.assert_close(cached.tokens[cached.mask], real, atol=2e-3, rtol=2e-3)


def test_tokens_of_joined_poolings_are_refused(tiny_bert, tmp_path, texts):
    teacher = OnlineTeacher(save(tmp_path / "model", tiny_bert, ("cls", "mean")), device="cpu")
    with pytest.raises(InputError, match="joins cls, mean: its tokens are not in the space"):
        teacher.encode(texts, tokens=True)


def test_layers_and_random_weights_of_a_student(tiny_bert, tmp_path, texts):
    folder = save(tmp_path / "model", tiny_bert)
    student = TransformerEncoder(folder, layers=1, dropout=0.0, output_dim=8)
    assert len(student.model.encoder.layer) == 1
    assert student(student.tokenize(texts), tokens=True).tokens.shape[-1] == student.dim == 8
    student(student.tokenize(texts)).pooled.sum().backward()
    dense = next(module for module in student.modules() if type(module).__name__ == "Dense").linear
    assert dense.weight.grad.abs().sum() > 0
    drawn = TransformerEncoder(folder, random_init=True)
    assert not torch.allclose(student_vectors(drawn, texts), library(folder, texts), atol=0.1)
    with pytest.raises(ValueError, match="layers is 3, expected a number from 1 to 2"):
        TransformerEncoder(folder, layers=3)


@pytest.mark.parametrize("vocabulary", ["keep", "trim"])
def test_a_trained_student_is_saved_as_the_library_loads_it(tiny_bert, tmp_path, texts, vocabulary):
    student = TransformerEncoder(save(tmp_path / "model", tiny_bert, "lasttoken"), vocabulary=vocabulary)
    student.adapt_vocabulary([*texts, LONG])
    with torch.no_grad():
        for parameter in student.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    save_student(tmp_path / "saved", student.eval(), nn.Identity())
    again = TransformerEncoder(str(tmp_path / "saved"))
    for side in ("queries", "documents"):
        expected = student_vectors(student, [*texts, LONG], side)
        found = library(str(tmp_path / "saved"), [*texts, LONG], side)
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
        torch.testing.assert_close(student_vectors(again, [*texts, LONG], side), expected, atol=1e-6, rtol=0)


def test_the_fingerprint_covers_all_files_of_the_modules_and_the_prompts(tiny_bert, tmp_path):
    folder = Path(save(tmp_path / "model", tiny_bert))
    keys = {OnlineTeacher(str(folder)).fingerprint(), OnlineTeacher(str(folder)).fingerprint("documents")}
    assert OnlineTeacher(str(shutil.copytree(folder, tmp_path / "copy"))).fingerprint() in keys
    names = ["1_Pooling/config.json", "2_Dense/model.safetensors", "2_Dense/config.json", "modules.json",
             "config_sentence_transformers.json", "sentence_bert_config.json", "model.safetensors"]  # fmt: skip
    for number, name in enumerate(names):
        changed = Path(shutil.copytree(folder, tmp_path / str(number)))
        data = (changed / name).read_bytes()
        (changed / name).write_bytes(data + b"\n" if name.endswith("json") else data[:-1] + bytes([data[-1] ^ 1]))
        keys.add(OnlineTeacher(str(changed)).fingerprint())
    keys |= {
        OnlineTeacher(str(folder), pooling="max").fingerprint(),
        OnlineTeacher(str(folder), prefix="").fingerprint(),
    }
    assert len(keys) == 2 + len(names) + 2


def test_a_folder_of_old_with_the_transformer_in_its_own_folder(tiny_bert, tmp_path, texts):
    new, old = Path(save(tmp_path / "new", tiny_bert, "mean")), tmp_path / "old"
    (old / "0_Transformer").mkdir(parents=True)
    for path in new.iterdir():
        inside = path.is_file() and path.name not in ("modules.json", "config_sentence_transformers.json", "README.md")
        shutil.move(path, old / "0_Transformer" / path.name if inside else old / path.name)
    modules = json.loads((old / "modules.json").read_text())
    for each in modules:
        each["type"] = f"sentence_transformers.models.{each['type'].rpartition('.')[2]}"
    modules[0]["path"] = "0_Transformer"
    (old / "modules.json").write_text(json.dumps(modules))
    settings = {"max_seq_length": 12, "do_lower_case": True}
    (old / "0_Transformer" / "sentence_bert_config.json").write_text(json.dumps(settings))
    texts = [*texts, LONG, LONG.upper()]
    expected = library(str(old), texts)
    torch.testing.assert_close(OnlineTeacher(str(old), device="cpu").encode(texts).pooled, expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(student_vectors(TransformerEncoder(str(old)), texts), expected, atol=1e-5, rtol=0)
    assert StaticEncoder(str(old)).max_length == 12


def test_lowercasing_is_the_folders(tiny_unigram, tmp_path):
    folder = Path(save(tmp_path / "model", tiny_unigram, "mean", prompts={}))
    path = folder / "sentence_bert_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"do_lower_case": True}))
    found = OnlineTeacher(str(folder), device="cpu").encode(["THE Cat", "the cat"]).pooled
    torch.testing.assert_close(found[0], found[1])
    torch.testing.assert_close(found, library(str(folder), ["THE Cat", "the cat"]), atol=1e-5, rtol=0)


@pytest.mark.parametrize("normalise", [False, True])
def test_static_models(tiny_bert, tmp_path, texts, normalise):
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer import modules

    tokenizer, _ = bert_tokenizer([word for text in ENGLISH for word in text.split()])
    torch.manual_seed(2)
    parts = [modules.StaticEmbedding(tokenizer, embedding_dim=24)] + [modules.Normalize()] * normalise
    SentenceTransformer(modules=parts, device="cpu").save(str(tmp_path / "static"))
    folder, texts = str(tmp_path / "static"), [*texts, LONG * 20]
    expected = library(folder, texts)
    teacher = OnlineTeacher(folder, device="cpu")
    torch.testing.assert_close(teacher.encode(texts).pooled, expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(student_vectors(StaticEncoder(folder), texts), expected, atol=1e-5, rtol=0)
    assert teacher.dim == 24
    with pytest.raises(InputError, match="is a static model, expected one with a transformer"):
        TransformerEncoder(folder)


def test_the_encoder_of_an_encoder_decoder(tiny_t5, tmp_path, texts):
    from transformers import T5EncoderModel

    teacher = OnlineTeacher(tiny_t5, max_length=20, device="cpu")
    student = TransformerEncoder(tiny_t5, max_length=20, layers=2, dropout=0.0).eval()
    inputs = student.tokenize(texts)
    network = T5EncoderModel.from_pretrained(tiny_t5).eval()
    states = network(inputs["input_ids"], inputs["attention_mask"]).last_hidden_state
    mask = inputs["attention_mask"][..., None]
    expected = nn.functional.normalize((states * mask).sum(1) / mask.sum(1), dim=1)
    torch.testing.assert_close(teacher.encode(texts).pooled, expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(student(inputs).pooled, expected, atol=1e-5, rtol=0)
    assert teacher.dim == 32
    save_student(tmp_path / "saved", student.eval(), nn.Identity())
    again = TransformerEncoder(str(tmp_path / "saved"), max_length=20)
    torch.testing.assert_close(student_vectors(again, texts), expected, atol=1e-5, rtol=0)
    assert len(TransformerEncoder(tiny_t5, max_length=20, layers=1).model.encoder.block) == 1
    trimmed = TransformerEncoder(tiny_t5, max_length=20, vocabulary="trim")
    trimmed.adapt_vocabulary(texts[:1])
    assert trimmed.model.encoder.embed_tokens.num_embeddings < network.shared.num_embeddings
    torch.testing.assert_close(student_vectors(trimmed, texts[:1]), expected[:1], atol=1e-5, rtol=0)
    folder = save(tmp_path / "st5", tiny_t5, "mean")
    found = OnlineTeacher(folder, device="cpu").encode(texts).pooled
    torch.testing.assert_close(found, library(folder, texts), atol=1e-5, rtol=0)


def test_the_encoder_of_a_model_without_a_class_for_it(tmp_path, texts):
    from transformers import BartConfig, BartModel

    tokenizer, special = bert_tokenizer([word for text in ENGLISH for word in text.split()])
    sizes = {f"{side}_{name}": size for side in ("encoder", "decoder")
             for name, size in (("layers", 2), ("attention_heads", 4), ("ffn_dim", 48))}  # fmt: skip
    config = BartConfig(
        vocab_size=tokenizer.get_vocab_size(), d_model=32, max_position_embeddings=40, pad_token_id=0, **sizes
    )
    network = BartModel(config).eval()
    network.save_pretrained(tmp_path / "bart")
    write_tokenizer(tmp_path / "bart", tokenizer, special, 40)
    student = TransformerEncoder(str(tmp_path / "bart"), pooling="cls", max_length=20).eval()
    inputs = student.tokenize(texts)
    states = network.encoder(inputs["input_ids"], inputs["attention_mask"]).last_hidden_state
    torch.testing.assert_close(student(inputs).pooled, nn.functional.normalize(states[:, 0], dim=1))
    assert len(TransformerEncoder(str(tmp_path / "bart"), max_length=20, layers=1).model.layers) == 1
    with pytest.raises(InputError, match="BartEncoder cannot be saved without its decoder"):
        save_student(tmp_path / "saved", student, nn.Identity())
    assert not (tmp_path / "saved").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "invalid JSON"),
        ("{}", "it has no modules"),
        ("[]", "it has no modules"),
        ("[3]", "expected a list of modules"),
        ('[{"path": ""}]', "expected a list of modules"),
        (
            '[{"type": "sentence_transformers.models.Router", "path": ""}]',
            "module 1 is sentence_transformers.models.Router",
        ),
        ('[{"type": "os.Transformer", "path": ""}]', "module 1 is os.Transformer, expected sentence-transformers'"),
        ('[{"type": "sentence_transformers.models.Transformer", "path": ""}]', "it has 0 Pooling behind Transformer"),
        (
            '[{"type": "sentence_transformers.models.Transformer", "path": ""}, {"type": "mine.Head", "path": "x"}]',
            "module 2 is mine.Head, expected sentence-transformers' Pooling or Dense",
        ),
    ],
)
def test_a_bad_list_of_modules_is_named(tiny_bert, tmp_path, content, message):
    folder = Path(save(tmp_path / "model", tiny_bert))
    (folder / "modules.json").write_text(content)
    for build in (TransformerEncoder, StaticEncoder, lambda model: OnlineTeacher(model).fingerprint()):
        with pytest.raises(InputError) as caught:
            build(str(folder))
        assert str(caught.value).startswith(f"{folder / 'modules.json'}:")
        assert message in str(caught.value)


@pytest.mark.parametrize(
    "name", ["2_Dense/model.safetensors", "2_Dense/config.json", "1_Pooling/config.json", "model.safetensors"]
)
def test_a_damaged_file_of_a_module_is_one_error(tiny_bert, tmp_path, name):
    folder = Path(save(tmp_path / "model", tiny_bert))
    (folder / name).write_bytes(b"no")
    with pytest.raises(InputError, match="cannot load the model"):
        TransformerEncoder(str(folder))


def test_what_is_assumed_is_said_once(tiny_bert, tmp_path, capsys, texts):
    folder = str(shutil.copytree(tiny_bert, tmp_path / "plain"))
    for _ in range(2):
        OnlineTeacher(folder, max_length=16, device="cpu").encode(texts)
        OnlineTeacher(folder, max_length=16, device="cpu").fingerprint()
    assert capsys.readouterr().err == f"{folder} has no modules.json: mean pooling assumed\n"
    other = str(shutil.copytree(tiny_bert, tmp_path / "given"))
    OnlineTeacher(other, pooling="mean", max_length=16, device="cpu").encode(texts)
    OnlineTeacher(save(tmp_path / "own", tiny_bert), device="cpu").encode(texts)
    assert "assumed" not in capsys.readouterr().err


def test_nothing_is_read_of_the_starter_models(monkeypatch):
    monkeypatch.setattr("lightning_modules.models.settings.model_file", lambda *_: 1 / 0)
    assert own_settings("starter/minilm").modules == ()
    settings = OnlineTeacher("starter/minilm").settings()
    assert settings == {"model": "starter/minilm", "pooling": "mean", "max_length": 128, "prefix": "", "format": 1}


def test_the_library_is_imported_only_for_its_own_models(tiny_bert):
    code = (
        "import sys; from lightning_modules.teachers.online import OnlineTeacher; "
        f"OnlineTeacher({tiny_bert!r}, max_length=16, device='cpu').encode(['the cat']); "
        "assert 'sentence_transformers' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120, cwd=Path(__file__).parents[3])


def test_code_of_a_model_runs_only_where_it_is_trusted(tiny_bert, tmp_path, texts):
    folder, proof = Path(shutil.copytree(tiny_bert, tmp_path / "model")), tmp_path / "proof"
    config = json.loads((folder / "config.json").read_text())
    auto = {"AutoConfig": "own.OwnConfig", "AutoModel": "own.OwnModel"}
    (folder / "config.json").write_text(json.dumps(config | {"model_type": "own_bert", "auto_map": auto}))
    (folder / "own.py").write_text(
        "from transformers import BertConfig, BertModel\n"
        f"open({str(proof)!r}, 'a').write('ran')\n"
        "class OwnConfig(BertConfig):\n    model_type = 'own_bert'\n"
        "class OwnModel(BertModel):\n    config_class = OwnConfig\n"
    )
    with pytest.raises(InputError, match="comes with code of its own: set trust_remote_code to true"):
        TransformerEncoder(str(folder), max_length=16)
    with pytest.raises(InputError, match="comes with code of its own"):
        OnlineTeacher(str(folder), max_length=16, device="cpu").encode(texts)
    assert not proof.exists()
    teacher = OnlineTeacher(str(folder), max_length=16, device="cpu", trust_remote_code=True)
    expected = OnlineTeacher(tiny_bert, max_length=16, device="cpu").encode(texts).pooled
    torch.testing.assert_close(teacher.encode(texts).pooled, expected)
    assert proof.exists()


def options(folder: Path, config: Path, teacher: str, student: str) -> list[object]:
    words = ["--config", config, "--strategy", "ot", "--output", folder, "--name", "run", "--logger", "none"]
    return [*words, "--model.teacher.model", teacher, "--student.model", student, "--student.max_length", "null",
            "--model.teacher.max_length", "null", "--trainer.max_epochs", "1", "--score", "both"]  # fmt: skip


@pytest.mark.slow
def test_a_run_with_such_models(tiny_bert, tiny_t5, tmp_path, script, tiny_config):
    folder = save(tmp_path / "model", tiny_bert, "mean", length=32)
    done = script("train.py", *options(tmp_path / "runs", tiny_config, folder, folder))
    assert done.status == 0, done.err
    run = OnlineTeacher(folder, device="cpu")
    metrics = json.loads((tmp_path / "runs" / "run" / "metrics.json").read_text())
    assert metrics["undistilled"]
    from lightning_modules.teachers.run import RunTeacher

    student = RunTeacher(str(tmp_path / "runs" / "run"), device="cpu")
    assert student.prefixes == run.prefixes
    assert student.sides == ("queries", "documents")
    assert student.encode(["the cat"], tokens=True, side="documents").tokens.shape[-1] == 16
    copy = str(shutil.copytree(tiny_t5, tmp_path / "copy"))
    done = script("train.py", *options(tmp_path / "t5", tiny_config, copy, copy), "--student.max_length", "30")
    assert done.status == 0, done.err
    assert f"{copy} has no modules.json: mean pooling assumed" in done.err


def test_bad_modules_end_a_run_before_it_has_a_folder(tiny_bert, tmp_path, script, tiny_config):
    folder = Path(save(tmp_path / "model", tiny_bert))
    (folder / "modules.json").write_text('[{"type": "mine.Model", "path": ""}]')
    for teacher, student in ((str(folder), tiny_bert), (tiny_bert, str(folder))):
        words = options(tmp_path / "runs", tiny_config, teacher, student)
        done = script("train.py", *words, "--student.max_length", "30")
        assert done.status == 2
        assert "modules.json: module 1 is mine.Model, expected sentence-transformers'" in done.err
        assert "Traceback" not in done.err
        assert not (tmp_path / "runs").exists()
