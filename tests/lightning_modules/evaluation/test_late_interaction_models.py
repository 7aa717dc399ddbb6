"""Projections, sides and query augmentation of encoders; siamese training; teachers from run folders."""

from __future__ import annotations

import hashlib
import json
import shutil

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from datamodules.pairs import PairBatch
from foundations.errors import InputError
from lightning_modules.cli.front_door import teacher_options
from lightning_modules.distillation import DistillationModule
from lightning_modules.evaluation.callback import RetrievalEvaluation
from lightning_modules.export.folder import save_student
from lightning_modules.students.transformer import TransformerEncoder
from lightning_modules.teachers.cached import CachedTeacher
from lightning_modules.teachers.online import OnlineTeacher
from lightning_modules.teachers.run import RunTeacher
from retrieval.collection import Collection
from strategies.contrastive import Contrastive

TEXTS = ["the cat", "good morning my friend", "water"]


def encode(encoder, texts, side="queries"):
    inputs = encoder.tokenize(texts, side)
    return inputs, encoder.eval()(inputs, tokens=True)


def test_projection(tiny_bert):
    encoder = TransformerEncoder(tiny_bert, max_length=32, output_dim=8)
    inputs, found = encode(encoder, TEXTS)
    states = encoder.model(inputs["input_ids"], inputs["attention_mask"]).last_hidden_state
    assert encoder.dim == 8
    torch.testing.assert_close(found.tokens, states @ encoder.projection.weight.T)
    unprojected = [row[mask.bool()].mean(0) for row, mask in zip(states, inputs["attention_mask"], strict=True)]
    wanted = F.normalize(torch.stack(unprojected) @ encoder.projection.weight.T, dim=-1)
    torch.testing.assert_close(found.pooled, wanted)
    weight = encoder.projection.weight
    torch.testing.assert_close(weight @ weight.T, torch.eye(8))  # it starts as a rotation
    other = TransformerEncoder(tiny_bert, max_length=32, output_dim=8)
    other.load_state_dict(encoder.state_dict())
    assert encode(other, TEXTS)[1].tokens.equal(found.tokens)


def test_query_augmentation(tiny_bert):
    plain = TransformerEncoder(tiny_bert, max_length=32)
    encoder = TransformerEncoder(tiny_bert, max_length=32, query_augmentation=5)
    before, wanted = encode(plain, TEXTS)
    inputs, found = encode(encoder, TEXTS)
    mask_id = encoder.tokenizer.token_to_id("[MASK]")
    lengths = before["attention_mask"].sum(1)
    assert lengths.tolist() == [4, 6, 3]
    for row, length in enumerate(lengths.tolist()):
        total = max(length, 5)
        assert inputs["input_ids"][row, length:total].eq(mask_id).all()
        assert inputs["token_mask"][row].sum() == total - 2  # without [CLS] and [SEP]
        assert not inputs["token_mask"][row, total:].any()
        torch.testing.assert_close(found.tokens[row, :length], wanted.tokens[row, :length])
    torch.testing.assert_close(found.pooled, wanted.pooled)
    assert not found.tokens[0, 4].equal(found.tokens[2, 4])  # a mask token sees its query
    for name, value in encoder.tokenize(TEXTS, "documents").items():
        assert value.equal(before[name])
    width_grows = encoder.tokenize(["water"])
    assert width_grows["input_ids"].shape == (1, 5)


def test_prefixes_by_side(tiny_bert):
    encoder = TransformerEncoder(tiny_bert, max_length=32, prefix="the ", document_prefix="big red ")
    for side, prefix, skipped in (("queries", "the ", 1), ("documents", "big red ", 2)):
        inputs = encoder.tokenize(["water is life"], side)
        pieces = [encoder.tokenizer.id_to_token(id_) for id_ in inputs["input_ids"][0]]
        assert " ".join(pieces[1:-1]) == f"{prefix}water is life"
        assert inputs["token_mask"][0].tolist() == [False] * (1 + skipped) + [True] * 3 + [False]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"output_dim": 0}, "output_dim is 0, expected at least 1"),
        ({"query_augmentation": 33}, "query_augmentation is 33, expected a number from 0 to 32"),
        ({"query_augmentation": -1}, "query_augmentation is -1, expected a number from 0 to 32"),
    ],
)
def test_wrong_options_of_the_encoder(tiny_bert, options, message):
    with pytest.raises(ValueError, match=message):
        TransformerEncoder(tiny_bert, max_length=32, **options)


def test_cache_keys_change_with_what_matters_only(tiny_bert, tmp_path):
    teacher = OnlineTeacher(tiny_bert, max_length=32)
    model = teacher.model_key()
    old = {"model": model, "pooling": "mean", "max_length": 32, "prefix": "", "format": 1}
    digest = hashlib.blake2b(json.dumps(old, sort_keys=True).encode(), digest_size=16).hexdigest()
    assert teacher.fingerprint() == teacher.fingerprint("documents") == digest  # as before there were sides
    assert teacher.sides == ("queries",)
    sided = OnlineTeacher(tiny_bert, max_length=32, query_prefix="the ")
    assert sided.fingerprint("documents") == digest != sided.fingerprint("queries")
    assert sided.sides == ("queries", "documents")


def test_the_cache_keeps_the_sides_apart(tiny_bert, tmp_path):
    online = OnlineTeacher(tiny_bert, max_length=32, document_prefix="good ")
    cached = CachedTeacher(online, str(tmp_path), token_dtype="float32")
    for _ in range(2):
        for side in ("queries", "documents"):
            for tokens in (False, True):
                found, wanted = cached.encode(TEXTS, tokens, side=side), online.encode(TEXTS, tokens, side=side)
                torch.testing.assert_close(found.pooled, wanted.pooled)
                if tokens:
                    torch.testing.assert_close(found.tokens, wanted.tokens)
        cached = CachedTeacher(online, str(tmp_path), token_dtype="float32")
    assert not online.encode(TEXTS).pooled.equal(online.encode(TEXTS, side="documents").pooled)


class NoTeacher(OnlineTeacher):
    """Fails if it is asked."""

    def encode(self, *_, **__):
        raise AssertionError("the teacher was asked")


def test_siamese_training_sends_gradients_through_both_sides(tiny_bert):
    student = TransformerEncoder(tiny_bert, max_length=32, output_dim=8, query_augmentation=6, document_prefix="big ")
    module = DistillationModule(student, NoTeacher(tiny_bert), Contrastive(score="maxsim"), siamese=True)
    module.log = module.log_dict = lambda *_, **__: None
    assert (module.source_side, module.target_side) == ("documents", "queries")
    assert isinstance(module.projection, torch.nn.Identity)  # the teacher's width does not matter
    batch = PairBatch(["the cat", "water is life"], ["small cat", "life"], torch.arange(2))
    module.eval()
    wanted = Contrastive(score="maxsim")(module(batch.target, True, "queries"), module(batch.source, True, "documents"))
    loss = module.training_step(batch, 0)
    assert torch.equal(loss, wanted["contrastive"])
    rows = student.model.get_input_embeddings().weight
    (gradient,) = torch.autograd.grad(loss, [rows])
    for word in ("the", "water", "small", "big"):  # "the", "water" and "big" are on the source side only
        assert gradient[student.tokenizer.token_to_id(word)].abs().sum() > 0, word


@pytest.mark.parametrize(
    ("options", "sides"),
    [
        ({}, ("queries", "queries")),
        ({"siamese": True, "target_side": "documents"}, ("queries", "documents")),
        ({"target_side": "documents"}, ("documents", "documents")),
        ({"source_side": "documents"}, ("documents", "queries")),
    ],
)
def test_sides_of_pairs(tiny_bert, options, sides):
    student = TransformerEncoder(tiny_bert, max_length=32)
    module = DistillationModule(student, OnlineTeacher(tiny_bert), Contrastive(), **options)
    assert (module.source_side, module.target_side) == sides


def test_a_siamese_student_reads_all_but_the_english_twin(tiny_bert):
    one = Collection("dev", {"q": "a"}, {"d": "b"}, {"q": {"d": 1}})
    twin = Collection("english/sw", {"q": "a"}, {"d": "b"}, {"q": {"d": 1}}, query_side="teacher")
    student = TransformerEncoder(tiny_bert, max_length=32)
    module = DistillationModule(student, OnlineTeacher(tiny_bert), Contrastive(), siamese=True)
    plain = DistillationModule(student, OnlineTeacher(tiny_bert), Contrastive())
    sides = ("queries", "documents")
    assert [module.reader_of(one, side) for side in sides] == ["student", "student"]
    assert [module.reader_of(twin, side) for side in sides] == ["teacher", "teacher"]
    assert [plain.reader_of(one, side) for side in sides] == ["student", "teacher"]


@pytest.fixture(scope="module")
def late_run(tmp_path_factory, tiny_config, tiny_bert, script):
    """A short late-interaction run on the tiny TSV data, its student in another width than its teacher."""
    output = tmp_path_factory.mktemp("late")
    student = ["--student", "transformer", "--student.model", tiny_bert, "--student.output_dim", "8"]
    student += ["--student.query_augmentation", "6", "--student.document_prefix", "big "]
    words = ["--config", tiny_config, "--strategy", "contrastive", "--strategy.score", "maxsim", *student]
    words += ["--model.siamese", "true", "--model.score", "both", "--output", output, "--name", "late"]
    done = script("train.py", *words, "--logger", "csv")
    assert done.status == 0, done.err
    return output / "late"


def test_a_run_becomes_a_teacher(late_run, tmp_path):
    teacher = RunTeacher(str(late_run))
    module = DistillationModule.load_from_checkpoint(late_run / "checkpoints" / "best.ckpt").eval()
    assert teacher.dim == module.student.dim == 8
    assert teacher.sides == ("queries", "documents")
    for side in teacher.sides:
        found = CachedTeacher(teacher, str(tmp_path), token_dtype="float32").encode(TEXTS, True, side=side)
        with torch.no_grad():
            wanted = module(TEXTS, True, side)
        torch.testing.assert_close(found.pooled, wanted.pooled)
        assert found.mask.sum().equal(wanted.mask.sum())
        torch.testing.assert_close(found.tokens[found.mask], wanted.tokens[wanted.mask])
    assert not teacher.encoder.training
    assert not any(weight.requires_grad for weight in teacher.encoder.parameters())


def test_a_projected_run_becomes_a_teacher_in_the_width_of_its_teacher(finished_run, tiny_config, script, tmp_path):
    words = ["--config", tiny_config, "--strategy", "mse", "--student", "static", "--student.dim", "12"]
    done = script("train.py", *words, "--output", tmp_path, "--name", "narrow", "--logger", "none")
    assert done.status == 0, done.err
    teacher = RunTeacher(str(tmp_path / "narrow"))
    module = DistillationModule.load_from_checkpoint(tmp_path / "narrow" / "checkpoints" / "best.ckpt").eval()
    assert teacher.dim == 32
    found = teacher.encode(TEXTS, tokens=True)
    with torch.no_grad():
        wanted = module(TEXTS, tokens=True)
    torch.testing.assert_close(found.pooled, wanted.pooled)
    torch.testing.assert_close(found.tokens[found.mask], wanted.tokens[wanted.mask])


def test_the_fingerprint_of_a_run_follows_its_weights_and_settings(late_run, tmp_path):
    moved = tmp_path / "moved"
    shutil.copytree(late_run, moved)
    original = RunTeacher(str(late_run))
    assert RunTeacher(str(moved)).fingerprint() == original.fingerprint()
    assert original.fingerprint("documents") != original.fingerprint()
    config = (moved / "config.yaml").read_text()
    (moved / "config.yaml").write_text(config.replace("query_augmentation: 6", "query_augmentation: 0"))
    assert RunTeacher(str(moved)).fingerprint() != original.fingerprint()
    assert RunTeacher(str(moved)).fingerprint("documents") == original.fingerprint("documents")
    (moved / "config.yaml").write_text(config)
    best = moved / "checkpoints" / "best.ckpt"
    checkpoint = torch.load(best, weights_only=True)
    checkpoint["state_dict"]["student.projection.weight"] += 1
    torch.save(checkpoint, best)
    assert RunTeacher(str(moved)).fingerprint() != original.fingerprint()


def test_distilling_a_run_from_the_command_line(late_run, tiny_config, script, tmp_path):
    words = ["--teacher", late_run, "--config", tiny_config, "--strategy", "ot", "--model.score", "maxsim"]
    done = script("train.py", *words, "--output", tmp_path, "--name", "taught", "--logger", "none")
    assert done.status == 0, done.err
    rows = json.loads((tmp_path / "taught" / "metrics.json").read_text())
    late = json.loads((late_run / "metrics.json").read_text())
    # The late model read the test queries and documents itself there, and does so as the teacher here (in float16).
    assert rows["undistilled"]["map"] == pytest.approx(late["test"]["maxsim/map"], abs=5e-3)
    scores = tmp_path / "scores.json"
    done = script("evaluate.py", late_run, "--score", "maxsim", "--json", scores)
    assert done.status == 0, done.err
    assert json.loads(scores.read_text())["test"]["means"]["map"] == pytest.approx(late["test"]["maxsim/map"], abs=5e-3)


def test_teacher_names(late_run, tiny_bert):
    inner, cached = "--model.teacher.teacher", "--model.teacher=lightning_modules.teachers.cached.CachedTeacher"
    run = f"{inner}=lightning_modules.teachers.run.RunTeacher"
    model = f"{inner}=lightning_modules.teachers.online.OnlineTeacher"
    assert teacher_options(str(late_run)) == [cached, run, f"{inner}.run={late_run}"]
    for name in ("starter/minilm", tiny_bert, "bert-base-uncased", "org/model.v2"):
        assert teacher_options(name) == [cached, model, f"{inner}.model={name}"]
    assert teacher_options("my_package.MyTeacher") == ["--model.teacher=my_package.MyTeacher"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("{run}x", "no such folder, expected a run or a model, did you mean 'late'?"),
        ("{run}/csv", "neither a run .* nor a model"),
        ("{run}/config.yaml", "no such folder"),
        ("starter/mini", "did you mean 'starter/minilm'?"),
    ],
)
def test_wrong_teacher_names(late_run, name, message, script):
    name = name.format(run=late_run)
    with pytest.raises(InputError, match=message):
        teacher_options(name)
    done = script("train.py", "--teacher", name)
    assert (done.status, done.err.count("\n")) == (2, 1)


def test_a_run_without_checkpoint_or_student(late_run, tmp_path):
    broken = tmp_path / "broken"
    shutil.copytree(late_run, broken)
    (broken / "checkpoints" / "best.ckpt").write_bytes(b"no checkpoint")
    with pytest.raises(InputError, match="cannot be read as a checkpoint"):
        RunTeacher(str(broken)).encode(["water"])
    (broken / "checkpoints" / "best.ckpt").unlink()
    with pytest.raises(InputError, match=r"no checkpoints/best\.ckpt yet"):
        teacher_options(str(broken))
    with pytest.raises(InputError, match="no such checkpoint"):
        RunTeacher(str(broken))
    (broken / "config.yaml").write_text("model: {teacher: 1}\n")
    with pytest.raises(InputError, match=r"has no model\.student"):
        RunTeacher(str(broken))
    with pytest.raises(InputError, match="expected the folder of a run"):
        RunTeacher(str(tmp_path))


class Told(OnlineTeacher):
    """Notes the texts that it is told to prepare for."""

    def prepare(self, texts, tokens, side="queries"):
        self.told = getattr(self, "told", {}) | {side: list(texts)}


@pytest.mark.parametrize("source_side", ["queries", "documents"])
def test_a_sided_teacher_prepares_each_text_for_the_side_it_is_read_as(tiny_bert, tsv_folder, source_side):
    from lightning.pytorch import Trainer

    from datamodules.tsv import TSVDataModule

    data = TSVDataModule(root=str(tsv_folder))
    teacher = Told(tiny_bert, max_length=32, query_prefix="the ")
    student = TransformerEncoder(tiny_bert, max_length=32)
    module = DistillationModule(student, teacher, Contrastive(), source_side=source_side)
    trainer = Trainer(logger=False, enable_checkpointing=False, accelerator="cpu", max_steps=0, barebones=True)
    trainer.callbacks.append(RetrievalEvaluation())
    trainer.datamodule = data
    module._trainer = trainer
    data.setup("fit")
    module.setup("fit")
    sources = {pair.source for pair in data.pairs}
    queries = {*data.collections["english"].queries.values(), *data.collections["test"].queries.values()}
    documents = {text for each in data.collections.values() for text in each.documents.values()}
    wanted = {"queries": queries, "documents": documents}
    wanted[source_side] |= sources
    assert {side: set(texts) for side, texts in teacher.told.items()} == wanted
    plain = Told(tiny_bert, max_length=32)
    module.teacher = plain
    module.setup("fit")
    assert {side: set(texts) for side, texts in plain.told.items()} == {"queries": queries | documents | sources}


def test_a_saved_projection_is_read_again(tiny_bert, tmp_path):
    encoder = TransformerEncoder(tiny_bert, max_length=32, output_dim=8)
    save_student(tmp_path / "saved", encoder.eval(), nn.Identity(), "maxsim")
    again = TransformerEncoder(str(tmp_path / "saved"), max_length=32, output_dim=8)
    assert encode(again, TEXTS)[1].tokens.equal(encode(encoder, TEXTS)[1].tokens)
    plain = TransformerEncoder(str(tmp_path / "saved"), max_length=32)
    assert plain.dim == 32
    with pytest.raises(InputError, match=r"holds \(8, 32\), expected \(4, 32\): set output_dim"):
        TransformerEncoder(str(tmp_path / "saved"), max_length=32, output_dim=4)
    (tmp_path / "saved" / "1_Dense" / "model.safetensors").write_bytes(b"nothing")
    with pytest.raises(InputError, match="has no matrix named linear"):
        TransformerEncoder(str(tmp_path / "saved"), max_length=32, output_dim=8)


@pytest.mark.slow
def test_a_siamese_run_on_two_devices_equals_one(tiny_config, tiny_bert, process, script, tmp_path):
    """Token tensors are gathered over the ranks with gradient, padded to the longest of them."""
    words = ["--config", tiny_config, "--strategy", "contrastive", "--strategy.score", "maxsim", "--score", "maxsim"]
    words += ["--student.model", tiny_bert, "--student.dropout", "0", "--student.vocabulary", "keep"]
    words += [
        "--model.siamese",
        "true",
        "--data.bucket",
        "false",
        "--logger",
        "csv",
        "--output",
        tmp_path,
        "--checkpoint_every",
        "5",
    ]
    found = {}
    for devices, batch_size in ((1, 10), (2, 5)):
        options = ["--trainer.devices", devices, "--data.batch_size", batch_size, "--name", devices]
        run, ranks = (process, ["--trainer.strategy", "ddp"]) if devices == 2 else (script, [])
        done = run("train.py", *words, *options, *ranks)
        assert done.status == 0, done.err
        best = torch.load(tmp_path / str(devices) / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
        found[devices] = best["student.model.encoder.layer.0.attention.self.query.weight"]
    torch.testing.assert_close(found[1], found[2], atol=1e-4, rtol=1e-3)
