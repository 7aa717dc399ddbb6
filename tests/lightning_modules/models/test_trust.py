"""A run folder or a checkpoint that somebody sent runs no code of its own; the code would leave a trace."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest
import torch
import yaml

from foundations.errors import InputError
from lightning_modules.distillation import DistillationModule
from lightning_modules.models.trust import foreign, refuse_foreign, trusting
from lightning_modules.teachers.run import RunTeacher

CODE = """\
from pathlib import Path
Path(__file__).with_name("ran").touch()
from strategies.mse import MSE
from lightning_modules.students.transformer import TransformerEncoder
def f(*_): pass
class P(MSE): pass
class S(TransformerEncoder): pass
"""
HINT = "if you trust who wrote it, add --trust"


@pytest.fixture
def sent(finished_run, tmp_path, monkeypatch) -> Path:
    """A copy of a run with a module ``sent_run.payload``, which can be imported."""
    folder = tmp_path / "sent_run"
    shutil.copytree(finished_run, folder)
    (folder / "payload.py").write_text(CODE)
    monkeypatch.syspath_prepend(tmp_path)
    yield folder
    for name in [name for name in sys.modules if name.startswith("sent_run")]:
        del sys.modules[name]


def change(folder: Path, key: str, value: object) -> None:
    """Change one value of the run's config.yaml, by its dotted key."""
    path = folder / "config.yaml"
    config = part = yaml.safe_load(path.read_text())
    *parents, last = key.split(".")
    for name in parents:
        part = part[name]
    part[last] = value
    path.write_text(yaml.safe_dump(config, sort_keys=False))


SPEC = {"class_path": "sent_run.payload.P"}
LAMBDA = "lightning.pytorch.callbacks.LambdaCallback"
ATTACKS = {
    "class path": ("model.strategy", SPEC, "sent_run.payload.P"),
    "name alone": ("model.strategy", "sent_run.payload.P", "sent_run.payload.P"),
    "JSON in a text": ("model.strategy", json.dumps(SPEC), "sent_run.payload.P"),
    "YAML with escapes": ("model.strategy", '{"class\\x5fpath": "sent\\x5frun.payload.P"}', "sent_run.payload.P"),
    "dotted key": ("model", {"strategy.class_path": "sent_run.payload.P"}, "sent_run.payload.P"),
    "within a list": ("trainer.callbacks", [SPEC], "sent_run.payload.P"),
    "callable": ("trainer.callbacks", [{"class_path": LAMBDA, "init_args": {"setup": "sent_run.payload.f"}}],
                 "sent_run.payload.f"),
    "function of torch": ("trainer.callbacks", [{"class_path": "torch.hub.load"}], "torch.hub.load"),
    "standard library": ("trainer.profiler", {"class_path": "subprocess.Popen"}, "subprocess.Popen"),
    "control characters": ("model.strategy", {"class_path": "a.B\n\x1b[2J"}, r"a.B\n\x1b[2J"),
    "code of a model": ("model.student.init_args.trust_remote_code", True, "trust_remote_code: True"),
}  # fmt: skip


@pytest.mark.parametrize(("key", "value", "name"), ATTACKS.values(), ids=list(ATTACKS))
@pytest.mark.parametrize("command", ["evaluate.py", "train.py"])
def test_a_run_folder_runs_no_code(script, sent, key, value, name, command):
    change(sent, key, value)
    before = sorted(path for path in sent.parent.rglob("*") if path.name != "__pycache__")
    done = script(command, *(["--resume"] if command == "train.py" else []), sent)
    assert done.status == 2
    assert done.err.startswith(f"{command}: error: {sent / 'config.yaml'}: names code from outside of ")
    assert f"Lightning: {name}; {HINT}" in done.err
    assert len(done.err.splitlines()) == 1
    assert not (sent / "ran").exists()
    assert sorted(path for path in sent.parent.rglob("*") if path.name != "__pycache__") == before


@pytest.mark.parametrize("command", ["evaluate.py", "train.py"])
def test_a_file_beside_the_configuration_runs_no_code(script, sent, command):
    change(sent, "model.strategy", "strategy.txt")
    (sent / "strategy.txt").write_text(yaml.safe_dump(SPEC))
    done = script(command, *(["--resume"] if command == "train.py" else []), sent)
    assert done.status == 2
    assert "sent_run.payload.P" in done.err
    assert HINT in done.err
    assert not (sent / "ran").exists()


@pytest.mark.parametrize(
    ("command", "arguments"),
    [
        ("search.py", ["index", "RUN", "texts.tsv", "--output", "index"]),
        ("baseline.py", ["bm25", "RUN", "--output", "new.run"]),
        ("baseline.py", ["rerank", "RUN", "--run", "RUN/test.pooled.run", "--output", "new.run"]),
        ("baseline.py", ["tune", "RUN"]),
    ],
)
def test_other_scripts(script, sent, monkeypatch, command, arguments):
    change(sent, "model.strategy", SPEC)
    monkeypatch.chdir(sent.parent)
    (sent.parent / "texts.tsv").write_text("a\tb\n")
    done = script(command, *[argument.replace("RUN", str(sent)) for argument in arguments])
    assert (done.status, HINT in done.err) == (2, True), done
    assert not (sent / "ran").exists()


def test_trust_runs_it(script, sent):
    change(sent, "model.strategy", SPEC)
    done = script("evaluate.py", sent, "--trust")
    assert done.status == 0, done.err
    assert (sent / "ran").exists()


def test_a_teacher_that_was_sent(script, sent, tiny_config, tmp_path):
    path = "model.student.class_path"
    student = yaml.safe_load((sent / "config.yaml").read_text())["model"]["student"]
    change(sent, "model.strategy", SPEC)
    assert RunTeacher(str(sent)).dim == 32, "nothing but the student is built"
    change(sent, path, "sent_run.payload.S")
    words = ["--config", tiny_config, "--output", tmp_path / "runs", "--logger", "none", "--teacher", sent]
    done = script("train.py", *words, "--trainer.max_epochs", "1")
    assert done.status == 2
    assert "sent_run.payload.S" in done.err
    assert HINT in done.err
    assert not (tmp_path / "runs").exists()
    assert not (sent / "ran").exists()
    done = script("train.py", *words, "--trainer.max_epochs", "1", "--trust")
    assert done.status == 0, done.err
    assert (sent / "ran").exists()
    change(sent, path, "torch.nn.Linear")
    change(sent, "model.student.init_args", {"in_features": 1, "out_features": 1})
    with pytest.raises(InputError, match="the student of the run is a Linear, expected a TextEncoder"):
        RunTeacher(str(sent)).dim  # noqa: B018
    assert student["class_path"].endswith("TransformerEncoder")


def test_a_checkpoint_that_was_sent(sent, tmp_path):
    state = torch.load(sent / "checkpoints" / "best.ckpt", weights_only=True)
    saved = state["hyper_parameters"]
    changes = {"strategy": SPEC, "_instantiator": "sent_run.payload.f"}
    for key, value in changes.items():
        path = tmp_path / f"{key}.ckpt"
        torch.save(state | {"hyper_parameters": saved | {key: value}}, path)
        with pytest.raises(InputError, match=rf"{key}\.ckpt: names code .*sent_run\.payload"):
            DistillationModule.load_from_checkpoint(path, weights_only=True)
        assert not (sent / "ran").exists()
    with trusting():
        DistillationModule.load_from_checkpoint(tmp_path / "strategy.ckpt", weights_only=True)
    assert (sent / "ran").exists()


def test_aliases_in_a_run_folder(script, sent):
    config = sent / "config.yaml"
    laughs = "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 8))
    config.write_text(f"{config.read_text()}\na0: &a0 [x]\n{laughs}")
    done = script("evaluate.py", sent)
    assert (done.status, len(done.err.splitlines())) == (2, 1)
    assert done.err.startswith(f"evaluate.py: error: {config}:")
    assert "more than 100,000 values" in done.err


def test_ours_and_what_only_looks_like_a_name():
    files = ["train.queries.tsv", "test.queries.tsv", "os.sw.tsv", "sent.tsv", "nowhere.P"]
    ours = {"class_path": "datamodules.tsv.TSVDataModule", "init_args": {"root": "my.data", "pairs": "pairs.sw.tsv"}}
    late = {"class_path": "lightning.pytorch.callbacks.EarlyStopping", "init_args": {"monitor": "dev/map"}}
    words = {"files": files, "name": "os.path", "prefix": "query: ", "text": "{no yaml: [", "trust_remote_code": False}
    assert list(foreign({"data": ours, "trainer": {"callbacks": [late]}} | words)) == []
    refuse_foreign(ours)
