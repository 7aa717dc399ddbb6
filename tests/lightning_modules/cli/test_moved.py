"""Class paths of before the modules had folders: on the command line, in files, in run folders and in checkpoints."""

from __future__ import annotations

import json
import shutil
from importlib import import_module
from pathlib import Path

import pytest
import torch
import yaml

from lightning_modules.names import MOVED, moved

FORMER = {path: former for former, path in MOVED.items()}


def former(text: str) -> str:
    """A text with the class paths of before."""
    for path, old in FORMER.items():
        text = text.replace(path, old)
    return text


@pytest.fixture(scope="module")
def old_run(finished_run, tmp_path_factory) -> Path:
    """A run folder as it was written before the modules had folders."""
    folder = tmp_path_factory.mktemp("old") / "run"
    shutil.copytree(finished_run, folder)
    config = folder / "config.yaml"
    config.write_text(former(config.read_text("utf-8")), "utf-8")
    assert "class_path: lightning_modules.encoder.TransformerEncoder" in config.read_text("utf-8")
    for path in (folder / "checkpoints").glob("*.ckpt"):
        state = torch.load(path, weights_only=True)
        for name in ("student", "teacher"):
            state["hyper_parameters"][name] = json.loads(former(json.dumps(state["hyper_parameters"][name])))
        assert state["hyper_parameters"]["student"]["class_path"] == "lightning_modules.encoder.TransformerEncoder"
        torch.save(state, path)
    return folder


@pytest.mark.parametrize("class_path", sorted(set(MOVED.values())))
def test_the_class_is_where_the_table_says(class_path):
    module, _, name = class_path.rpartition(".")
    assert getattr(import_module(module), name).__module__ == module


def test_only_whole_class_paths_are_replaced():
    assert moved("my.lightning_modules.encoder.TransformerEncoder") == "my.lightning_modules.encoder.TransformerEncoder"
    assert moved("lightning_modules.encoder.TransformerEncoders") == "lightning_modules.encoder.TransformerEncoders"
    today = "lightning_modules.students.transformer.TransformerEncoder"
    assert moved({"a": ["lightning_modules.encoder.TransformerEncoder", 1, None]}) == {"a": [today, 1, None]}
    assert all(moved(path) == path for path in MOVED.values())


def test_on_the_command_line_and_in_a_file(script, tiny_config, tmp_path):
    old = tmp_path / "old.yaml"
    old.write_text(former(tiny_config.read_text("utf-8")), "utf-8")
    words = ["--model.teacher", "lightning_modules.teacher.OnlineTeacher", "--model.lr", "1"]
    done = script("train.py", "--config", old, "--student", "lightning_modules.encoder.TransformerEncoder", *words,
                  "--print_config")  # fmt: skip
    assert done.status == 0, done.err
    assert done.out == script("train.py", "--config", tiny_config, "--model.lr", "1", "--print_config").out


def test_evaluate(script, old_run, tmp_path):
    done = script("evaluate.py", old_run, "--json", tmp_path / "scores.json")
    assert done.status == 0, done.err
    means = json.loads((old_run / "metrics.json").read_text("utf-8"))
    scores = json.loads((tmp_path / "scores.json").read_text("utf-8"))
    assert {row: each["means"] for row, each in scores.items()} == means


def test_resume(script, old_run, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(old_run, folder)
    expected = (folder / "metrics.json").read_text("utf-8")
    (folder / "metrics.json").unlink()
    done = script("train.py", "--resume", folder)
    assert done.status == 0, done.err
    assert (folder / "metrics.json").read_text("utf-8") == expected
    written = moved(yaml.safe_load((folder / "config.yaml").read_text("utf-8")))
    assert written["model"]["student"]["class_path"] == "lightning_modules.students.transformer.TransformerEncoder"


def test_search(script, old_run, tsv_folder, tmp_path):
    done = script("search.py", "index", old_run, tsv_folder / "documents.tsv", "--output", tmp_path / "index")
    assert done.status == 0, done.err


def test_load_from_checkpoint(old_run, finished_run):
    from lightning_modules.distillation import DistillationModule

    paths = [folder / "checkpoints" / "best.ckpt" for folder in (old_run, finished_run)]
    old, new = (DistillationModule.load_from_checkpoint(path, weights_only=True) for path in paths)
    assert type(old.student) is type(new.student)
    assert old.lr == new.lr == 0.003
    assert DistillationModule.load_from_checkpoint(str(paths[0]), weights_only=True, lr=0.5).lr == 0.5
    assert all(torch.equal(one, other) for one, other in zip(old.parameters(), new.parameters(), strict=True))


def test_as_a_teacher(script, old_run, tiny_config):
    done = script("train.py", "--config", tiny_config, "--teacher", old_run, "--print_config")
    assert done.status == 0, done.err
    from lightning_modules.teachers.run import RunTeacher

    assert RunTeacher(str(old_run)).dim == 32
