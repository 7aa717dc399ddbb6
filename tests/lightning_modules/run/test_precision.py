from __future__ import annotations

import pytest
import torch
import yaml

from lightning_modules.run.precision import default_precision

TRANSFORMER = "lightning_modules.students.transformer.TransformerEncoder"
STATIC = "lightning_modules.students.static.StaticEncoder"


@pytest.fixture
def hardware(monkeypatch):
    def make(cuda: bool = False, cuda_bf16: bool = False, **cpu: bool) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: cuda_bf16)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: cpu, raising=False)

    return make


def test_bfloat16_where_the_hardware_multiplies_it(hardware):
    hardware(avx512_bf16=True)
    assert default_precision("auto", TRANSFORMER) == "bf16-mixed"
    assert default_precision("auto", STATIC) == "32-true"
    assert default_precision("cpu", TRANSFORMER) == "bf16-mixed"
    hardware(avx512_f=True)
    assert default_precision("auto", TRANSFORMER) == "32-true"
    hardware(cuda=True, cuda_bf16=True)
    assert default_precision("auto", STATIC) == default_precision("gpu", TRANSFORMER) == "bf16-mixed"
    assert default_precision("cpu", TRANSFORMER) == "32-true"
    hardware(cuda=True, avx512_bf16=True)
    assert default_precision("auto", TRANSFORMER) == "32-true"


def test_the_choice_is_written_down_and_can_be_overruled(hardware, script, tiny_config, tmp_path):
    hardware(avx512_bf16=True)
    common = ["--config", tiny_config, "--output", tmp_path, "--trainer.max_steps=1", "--logger=none"]
    for name, option, expected in (("chosen", ["--trainer.precision=null"], "bf16-mixed"), ("given", [], "32-true")):
        done = script("train", *common, "--name", name, "--student=transformer", *option)
        assert done.status == 0, done.err
        config = yaml.safe_load((tmp_path / name / "config.yaml").read_text())
        assert config["trainer"]["precision"] == expected
