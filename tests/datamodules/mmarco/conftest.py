from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.datamodules.mmarco import layout


@pytest.fixture(scope="session")
def official(tmp_path_factory) -> Path:
    return layout.write_official(tmp_path_factory.mktemp("mmarco") / "data")


@pytest.fixture
def folder(official: Path, tmp_path: Path) -> Path:
    """A copy to spoil."""
    return Path(shutil.copytree(official, tmp_path / "data"))


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("POTSTILL_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="session")
def tiny_models(tmp_path_factory, tiny_bert, tiny_unigram) -> Path:
    path = tmp_path_factory.mktemp("config") / "tiny.yaml"
    path.write_text(
        f"""\
model:
  teacher:
    class_path: lightning_modules.teachers.online.OnlineTeacher
    init_args: {{model: {tiny_bert}, max_length: 32}}
  student:
    class_path: lightning_modules.students.transformer.TransformerEncoder
    init_args: {{model: {tiny_unigram}, max_length: 32}}
trainer: {{max_epochs: 1, accelerator: cpu}}
""",
        encoding="utf-8",
    )
    return path
