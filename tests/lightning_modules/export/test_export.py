"""What other libraries make of an exported folder, in a process that has nothing of ours."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import unicodedata
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from safetensors.numpy import load_file
from tokenizers import normalizers
from torch import nn

from foundations.errors import InputError
from lightning_modules.commands.evaluate import load_weights, open_run
from lightning_modules.evaluation.encoding import StudentEncoder
from lightning_modules.export.folder import FolderEncoder, save_student
from lightning_modules.export.modules import space_map
from lightning_modules.students.static import StaticEncoder
from lightning_modules.students.transformer import TransformerEncoder
from strategies.functional import token_weights
from tests.conftest import save_tiny, unigram_tokenizer

TEXTS = [
    "maji",
    "paka mdogo",
    "a big red sun",
    "mkeka wa paka " * 20,
    unicodedata.normalize("NFD", "café übér"),
    "maji!",
]

TRANSFORMER = ["--student.vocabulary", "keep", "--student.dropout", "0"]
STATIC = ["--student", "static", "--student.vocabulary", "trim"]
BY_SIDE = ["--student.query_prefix", "query: ", "--student.document_prefix", "passage: "]
PROJECTED = ["--model.projection", "linear", "--model.space", "whitened"]
TOKENS = ["--score", "maxsim"]
NARROW = ["--student.output_dim", "16", "--student.query_augmentation", "12"]
RUNS = {
    "static": STATIC,
    "static projected": [*STATIC, *PROJECTED, "--student.token_weights", "true"],
    "static tokens": [*STATIC, *TOKENS],
    "static tokens projected": [*STATIC, *TOKENS, *PROJECTED, "--evaluation.token_weights", "norm"],
    "transformer": [*TRANSFORMER, *BY_SIDE],
    "transformer projected": [*TRANSFORMER, *PROJECTED, "--student.pooling", "cls"],
    "transformer tokens": [*TRANSFORMER, *TOKENS, *BY_SIDE, "--evaluation.token_weights", "idf"],
    "transformer tokens projected": [*TRANSFORMER, *TOKENS, *PROJECTED, *NARROW],
}

ALONE = """
import json, sys
import numpy as np
from sentence_transformers import MultiVectorEncoder, SentenceTransformer
folders, texts, output = json.loads(sys.stdin.read())
vectors = {}
for name, folder in folders.items():
    kind = MultiVectorEncoder if "tokens" in name else SentenceTransformer
    model = kind(folder, device="cpu")
    for side, encode in (("queries", model.encode_query), ("documents", model.encode_document)):
        for row, each in enumerate(encode(texts, convert_to_numpy=True)):
            vectors[f"{name}/{side}/{row}"] = each
        if side == "queries" and kind is SentenceTransformer:
            assert abs(model.encode(texts) - encode(texts)).max() < 1e-6, "encode is encode_query"
    if name.startswith("transformer"):
        from transformers import AutoModel, AutoTokenizer
        batch = AutoTokenizer.from_pretrained(folder)(texts[:1], return_tensors="pt")
        vectors[f"{name}/states"] = AutoModel.from_pretrained(folder)(**batch).last_hidden_state[0].detach().numpy()
ours = {"potstill", "lightning_modules", "strategies", "datamodules", "foundations"} & set(sys.modules)
assert not ours, ours
np.savez(output, **vectors)
"""


@pytest.fixture(scope="module")
def make_run(tmp_path_factory, tiny_config, script):
    """A function that trains a student and gives its run folder."""
    output = tmp_path_factory.mktemp("runs")

    def make(name: str, *words: str) -> Path:
        name = name.replace(" ", "-")
        if not (output / name).exists():
            if "static" in words:  # the options of the file are those of a transformer
                words = (*words, "--student.model", model_of(tiny_config))
            done = script("train.py", "--config", tiny_config, "--strategy", "mse", "--trainer.max_epochs", "1",
                          "--output", output, "--name", name, "--logger", "none", *words)  # fmt: skip
            assert done.status == 0, done.err
        return output / name

    return make


def model_of(config: Path) -> str:
    return yaml.safe_load(config.read_text())["model"]["student"]["init_args"]["model"]


def module_of(run: Path):
    path = run / "checkpoints" / "best.ckpt"
    cli = open_run(str(run), [], path)
    load_weights(cli.model, path)
    return cli.model.eval()


def alone(code: str, given: object, folder: Path) -> None:
    variables = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    variables |= {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", code], input=json.dumps(given), cwd=folder, env=variables,
                          capture_output=True, text=True, check=False)  # fmt: skip
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_the_library_alone_gives_the_vectors_of_the_run(make_run, script, tmp_path):
    runs = {name: make_run(name, *words) for name, words in RUNS.items()}
    folders = {name: str(tmp_path / name) for name in RUNS}
    for name, run in runs.items():
        done = script("export.py", run, "--to", folders[name])
        assert done.status == 0, done.err
        assert ("maxsim" in done.out) == ("tokens" in name)
    alone(ALONE, [folders, TEXTS, str(tmp_path / "vectors.npz")], tmp_path)
    found = dict(np.load(tmp_path / "vectors.npz"))
    for name, run in runs.items():
        module = module_of(run)
        kind = "idf" if "idf" in RUNS[name] else "norm" if "norm" in RUNS[name] else "uniform"
        for side in ("queries", "documents"):
            expected = StudentEncoder(module).encode(TEXTS, "tokens" in name, side=side)
            for row in range(len(TEXTS)):
                given = found[f"{name}/{side}/{row}"]
                if expected.tokens is None:
                    ours = expected.pooled[row]
                else:
                    real = expected.mask[row]
                    ours = nn.functional.normalize(expected.tokens[row][real], dim=-1)
                    counts = token_weights(expected, kind if side == "queries" else "uniform")[row][real]
                    lengths = np.linalg.norm(given, axis=-1, keepdims=True)
                    np.testing.assert_allclose(lengths[:, 0] / lengths.sum(), counts, atol=1e-5, rtol=0)
                    given = given / lengths
                np.testing.assert_allclose(given, ours, atol=1e-5, rtol=0, err_msg=f"{name} {side} {row}")
        if name.startswith("transformer"):
            network, inputs = module.student.model, module.student.tokenizer.encode(TEXTS[0])
            with torch.no_grad():
                states = network(input_ids=torch.tensor([inputs.ids])).last_hidden_state[0]
            np.testing.assert_allclose(found[f"{name}/states"], states, atol=1e-5, rtol=0)
    spaces = {name for name, folder in folders.items() if (Path(folder) / "teacher_map").is_dir()}
    assert spaces == {name for name in RUNS if "projected" in name}


def test_the_map_of_a_whitened_space(make_run, script, tmp_path):
    from sentence_transformers.base.modules import Dense

    run = make_run("static projected", *RUNS["static projected"])
    assert script("export.py", run, "--to", tmp_path / "out").status == 0
    module, texts = module_of(run), ["water", "the big red sun"]
    plain, mapped = (teacher.encode(texts, tokens=True) for teacher in (module.teacher, module.teacher_in_space))
    saved = Dense.load(str(tmp_path / "out"), subfolder="teacher_map")
    given = saved({"sentence_embedding": plain.pooled})["sentence_embedding"]
    torch.testing.assert_close(nn.functional.normalize(given, dim=-1), mapped.pooled, atol=1e-5, rtol=0)
    given = space_map(module.space.get_extra_state(), True)({"token_embeddings": plain.tokens})["token_embeddings"]
    torch.testing.assert_close(given[mapped.mask], mapped.tokens[mapped.mask], atol=1e-4, rtol=1e-4)


def test_the_card(make_run, script, tmp_path):
    from huggingface_hub import ModelCard

    run = make_run("static projected", *RUNS["static projected"])
    assert script("export.py", run, "--to", tmp_path / "out", "--license", "mit").status == 0
    card = ModelCard.load(tmp_path / "out" / "README.md")
    means = json.loads((run / "metrics.json").read_text())["test"]
    assert {each.metric_type: each.metric_value for each in card.data.eval_results} == {
        metric: pytest.approx(value, abs=1e-4) for metric, value in means.items()
    }
    assert (card.data.license, card.data.library_name) == ("mit", "sentence-transformers")
    assert "strategy `mse`" in card.text
    assert "in a whitened copy of the teacher's space" in card.text
    assert 'subfolder="teacher_map"' in card.text
    assert f"| distilled student | {means['map']:.3f} [" in card.text
    assert "tmp" not in card.text.partition("**Command**")[0]  # folders of this machine are nobody's business
    assert (tmp_path / "out" / "training.yaml").read_text() == (run / "config.yaml").read_text()


@pytest.mark.parametrize("kind", [StaticEncoder, TransformerEncoder])
@pytest.mark.parametrize("score", ["pooled", "maxsim"])
def test_texts_are_brought_to_nfc(tmp_path, kind, score):
    """With a tokenizer that changes nothing by itself."""
    texts = ["café übér", "naïve"]
    tokenizer, special = unigram_tokenizer(texts)
    tokenizer.normalizer = normalizers.Replace("zz", "z")
    student = kind(save_tiny(tmp_path / "model", tokenizer, special), max_length=32).eval()
    save_student(tmp_path / "out", student, nn.Identity(), score)
    library, tokens = FolderEncoder(tmp_path / "out"), score == "maxsim"
    with pytest.raises(
        InputError, match=f"expected a student exported with --score {'pooled' if tokens else 'maxsim'}"
    ):
        library.encode(texts, not tokens)
    assert library.dim == student.dim
    expected = student(student.tokenize(texts), tokens=tokens)
    for form in ("NFC", "NFD"):
        given = library.encode([unicodedata.normalize(form, text) for text in texts], tokens)
        if tokens:
            for row in range(2):
                ours = nn.functional.normalize(expected.tokens[row][expected.mask[row]], dim=-1)
                torch.testing.assert_close(given.tokens[row][given.mask[row]], ours, atol=1e-5, rtol=0)
        else:
            torch.testing.assert_close(given.pooled, expected.pooled, atol=1e-5, rtol=0)


def run_snippets(folder: Path, texts: list[str], models: dict[str, str]) -> dict[str, object]:
    """What the blocks of Python in a card leave behind, with other texts, and models of this machine."""
    card, scope = (folder / "README.md").read_text(), {}
    code = "\n".join(re.findall(r"```python\n(.*?)```", card, re.S)).replace('["..."]', repr(texts))
    for name, path in models.items():
        code = code.replace(f'"{name}"', repr(str(path)))
    exec(code, scope)
    return scope


@pytest.mark.parametrize("name", ["static projected", "static tokens projected"])
def test_the_lines_in_the_card_work(make_run, script, tmp_path, tiny_bert, name):
    run = make_run(name, *RUNS[name])
    assert script("export.py", run, "--to", tmp_path / "out").status == 0
    texts, tokens = ["water", "the big red sun"], "tokens" in name
    scope = run_snippets(tmp_path / "out", texts, {"out": tmp_path / "out", Path(tiny_bert).name: tiny_bert})
    module = module_of(run)
    expected = module.teacher_in_space.encode(texts, tokens=True, side="documents")
    given = scope["teacher"].encode_document(texts, convert_to_numpy=False)
    if tokens:
        for row, vectors in enumerate(given):
            ours = nn.functional.normalize(expected.tokens[row][expected.mask[row]], dim=-1)
            torch.testing.assert_close(vectors, ours, atol=1e-5, rtol=0)
    else:
        torch.testing.assert_close(torch.stack(list(given)), expected.pooled, atol=1e-5, rtol=0)
        scores = StudentEncoder(module).encode(texts).pooled @ expected.pooled.T
        torch.testing.assert_close(scope["scores"], scores, atol=1e-5, rtol=0)
    assert scope["scores"].shape == (2, 2)


def test_the_card_of_several_languages_and_an_image_teacher(make_run, script, tmp_path):
    """The teacher is no part of what is exported, so it need not be there."""
    run = Path(shutil.copytree(make_run("static projected", *RUNS["static projected"]), tmp_path / "run"))
    config, rows = yaml.safe_load((run / "config.yaml").read_text()), json.loads((run / "per_query.json").read_text())
    config["model"]["teacher"] = {
        "class_path": "lightning_modules.teachers.open_clip.OpenClipTeacher",
        "init_args": {"model": "ViT-B-32", "pretrained": "laion2b_s34b_b79k"},
    }
    part = {"class_path": "datamodules.starter.images.StarterImagesDataModule"}
    noise = {"rate": 0.4, "level": "image", "text": "keyboard", "text_severity": 3}
    parts = {code: part | {"init_args": {"language": code, "noise": noise}} for code in ("sw", "so")}
    config["data"] = {"class_path": "datamodules.mixture.MixtureDataModule", "init_args": {"parts": parts}}
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    (run / "per_query.json").write_text(json.dumps({"languages": {"sw": rows, "so": rows}}))
    assert script("export.py", run, "--to", tmp_path / "out").status == 0
    text = (tmp_path / "out" / "README.md").read_text()
    assert "\nlanguage:\n- so\n- sw\n" in text
    assert 'create_model_and_transforms("ViT-B-32", pretrained="laion2b_s34b_b79k")' in text
    assert "`starter_images`, Unicode CLDR (Unicode-3.0)" in text
    assert "noise in the training pairs: 40% wrong pairs (image), keyboard 3 of 5" in text
    assert re.findall(r"^\| (\w+) \| distilled student", text, re.M) == ["sw", "so", "average"]


def test_bad_input_leaves_nothing(make_run, script, tmp_path, monkeypatch):
    run = make_run("static projected", *RUNS["static projected"])
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    cases = [
        ([run, "--to", tmp_path / "full"], "the folder is not empty"),
        ([tmp_path, "--to", tmp_path / "out"], "no config.yaml there, expected the folder of a run"),
        ([run, "--to", tmp_path / "out", "--checkpoint", "worst"], "--checkpoint"),
        (
            [run, "--to", tmp_path / "out", "--push", "my student"],
            "--push is 'my student', expected organisation/model",
        ),
        ([run], "--to"),
    ]
    for words, message in cases:
        done = script("export.py", *words)
        assert (done.status, done.out) == (2, "")
        assert message in done.err
        assert done.err.count("\n") == 1
    monkeypatch.setitem(sys.modules, "onnx", None)
    done = script("export.py", run, "--to", tmp_path / "out", "--onnx")
    assert (done.status, done.err) == (2, "export.py: error: --onnx needs onnx: pip install 'potstill[onnx]'\n")
    monkeypatch.setattr("lightning_modules.export.folder.TOLERANCE", 0.0)
    done = script("export.py", run, "--to", tmp_path / "out")
    assert done.status == 2
    assert "the exported student's vectors differ by" in done.err
    assert [path.name for path in tmp_path.iterdir()] == ["full"]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["static projected", "static tokens", "transformer", "transformer projected"])
def test_onnx_and_int8(make_run, script, tmp_path, name):
    for package in ("onnx", "onnxruntime", "onnxscript"):
        pytest.importorskip(package)
    import onnxruntime
    from tokenizers import Tokenizer

    run = make_run(name, *RUNS[name])
    done = script("export.py", run, "--to", tmp_path / "out", "--int8")
    assert done.status == 0, done.err
    expected = StudentEncoder(module_of(run)).encode(TEXTS, "tokens" in name, side="documents")
    card, tokenizer = (
        (tmp_path / "out" / "README.md").read_text(),
        Tokenizer.from_file(str(tmp_path / "out/tokenizer.json")),
    )
    tokenizer.enable_truncation(json.loads(card.split("at most ")[1].split(" ")[0]))
    prompt = "passage: " if name == "transformer" else ""
    session = onnxruntime.InferenceSession(tmp_path / "out/onnx/model.onnx")
    for row, text in enumerate(TEXTS):
        ids = tokenizer.encode(prompt + text, add_special_tokens="without special tokens" not in card).ids
        given = session.run(None, {"input_ids": [ids], "attention_mask": [[1] * len(ids)]})
        if expected.tokens is None:
            np.testing.assert_allclose(given[0][0], expected.pooled[row], atol=1e-4, rtol=0)
        else:
            ours = nn.functional.normalize(expected.tokens[row][expected.mask[row]], dim=-1)
            np.testing.assert_allclose(given[0][0][given[1][0] == 1], ours, atol=1e-4, rtol=0)
    mean = json.loads((run / "metrics.json").read_text())["test"]["map"]
    assert f": map {mean:.3f} becomes 0." in card
    sizes = [(tmp_path / "out/onnx" / file).stat().st_size for file in ("model_int8.onnx", "model.onnx")]
    assert sizes[0] < sizes[1]


@pytest.mark.slow
def test_push_to_an_endpoint(make_run, process, tmp_path, fake_hub):
    run = make_run("static projected", *RUNS["static projected"])
    words = ["--to", tmp_path / "out", "--push", "people/student", "--private"]
    environment = {"HF_ENDPOINT": fake_hub.address, "HF_TOKEN": "hf_test", "HF_HUB_OFFLINE": None}
    done = process("export.py", run, *words, environment=environment)
    assert done.status == 0, done.err
    assert fake_hub.created == [{"name": "student", "organization": "people", "private": True}]
    written = {path.relative_to(tmp_path / "out").as_posix(): path for path in (tmp_path / "out").rglob("*.*")}
    assert fake_hub.files.keys() == written.keys()
    assert all(content == written[name].read_bytes() for name, content in fake_hub.files.items())
    assert b"# people/student" in fake_hub.files["README.md"]
    fake_hub.refuses = True
    done = process("export.py", run, "--to", tmp_path / "again", *words[2:], environment=environment)
    assert done.status == 2
    assert done.err.splitlines()[-1].startswith(f"export.py: error: {tmp_path / 'again'}: written, but the hub did not")
    assert load_file(tmp_path / "again" / "model.safetensors")
