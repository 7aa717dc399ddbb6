"""What only a GPU can show; skipped where there is none."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from datamodules.pairs import PairBatch
from lightning_modules.distillation import DistillationModule
from lightning_modules.students.transformer import TransformerEncoder
from lightning_modules.teachers.cached import CachedTeacher
from lightning_modules.teachers.online import OnlineTeacher
from lightning_modules.vectors import to_device
from strategies.base import DistillationStrategy
from strategies.contrastive import Contrastive
from strategies.mse import MSE
from strategies.ot import OptimalTransport
from strategies.ot_match import OTMatch
from strategies.weighted_sum import WeightedSum

pytestmark = pytest.mark.gpu
ROOT = Path(__file__).parent.parent
LOSSES = {
    "mse": MSE,
    "token mse": lambda: MSE(level="token"),
    "ot": OptimalTransport,
    "ot unbalanced": lambda: OptimalTransport(marginal_relaxation=1.0),
    "ot partial": lambda: OptimalTransport(mass=0.8),
    "ot_match": OTMatch,
    "contrastive": Contrastive,
    "sum": lambda: WeightedSum({"ot": OptimalTransport(pooled_weight=0.0), "mse": MSE()}),
}
BATCH = PairBatch(
    ["the cat", "good morning", "water is life", "the big red sun"],
    ["paka mdogo", "habari ya asubuhi", "maji ni uhai", "jua kubwa jekundu"],
    torch.arange(4),
)


@pytest.fixture
def make(tiny_bert, tiny_unigram):
    def make(strategy: DistillationStrategy, device: str) -> DistillationModule:
        torch.manual_seed(0)
        student = TransformerEncoder(tiny_unigram, max_length=32, dropout=0.0)
        teacher = OnlineTeacher(tiny_bert, max_length=32, device=device)
        module = DistillationModule(student, teacher, strategy).to(device)
        module.log = module.log_dict = lambda *_, **__: None
        return module

    return make


@pytest.mark.parametrize("name", LOSSES)
def test_the_loss_falls_under_bfloat16(make, name):
    module = make(LOSSES[name](), "cuda")
    optimiser = torch.optim.AdamW(module.parameters(), lr=0.003, fused=True)
    losses = []
    for _ in range(20):
        with torch.autocast("cuda", torch.bfloat16):
            loss = module.training_step(BATCH.to("cuda"), 0)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert all(map(torch.isfinite, torch.tensor(losses)))
    assert losses[-1] < 0.9 * losses[0]


@pytest.mark.parametrize("name", LOSSES)
def test_a_step_equals_the_cpus(make, name):
    tight = {"tolerance": 1e-5} if name.startswith("ot") and name != "ot_match" else {}
    found = {}
    for device in ("cpu", "cuda"):
        strategy = LOSSES[name]()
        for option, value in tight.items():
            setattr(strategy, option, value)
        module = make(strategy, device)
        loss = module.training_step(BATCH.to(device), 0)
        loss.backward()
        gradients = {key: weight.grad.cpu() for key, weight in module.named_parameters() if weight.grad is not None}
        found[device] = (loss.detach().cpu(), gradients)
    torch.testing.assert_close(found["cuda"][0], found["cpu"][0], atol=1e-4, rtol=1e-4)
    assert found["cuda"][1].keys() == found["cpu"][1].keys()
    largest = max(gradient.abs().max() for gradient in found["cpu"][1].values())
    for key, gradient in found["cpu"][1].items():
        assert (found["cuda"][1][key] - gradient).abs().max() < 1e-3 * largest, key


def test_a_cached_teacher_gives_the_same_on_both_devices(tiny_bert, tmp_path):
    teacher = CachedTeacher(OnlineTeacher(tiny_bert, max_length=32, device="cuda"), str(tmp_path))
    teacher.fit_idf(BATCH.source)
    on_cpu, on_gpu = (teacher.encode(BATCH.source, tokens=True, device=device) for device in ("cpu", "cuda"))
    for part in ("pooled", "tokens", "mask", "weights"):
        assert getattr(on_gpu, part).is_cuda
        assert getattr(on_gpu, part).cpu().equal(getattr(on_cpu, part)), part
    plain = OnlineTeacher(tiny_bert, max_length=32, device="cpu").encode(BATCH.source)
    torch.testing.assert_close(on_cpu.pooled, plain.pooled, atol=1e-5, rtol=0)


def test_preparing_a_batch_waits_for_nothing(make, tiny_bert, tmp_path):
    module = make(MSE(), "cuda")
    module.teacher = CachedTeacher(OnlineTeacher(tiny_bert, max_length=32), str(tmp_path))
    module.teacher.prepare(BATCH.source, tokens=True)
    try:
        torch.cuda.set_sync_debug_mode("error")
        batch = BATCH.to("cuda")
        module.teacher.encode(batch.source, tokens=True, device=torch.device("cuda"))
        {name: to_device(each, "cuda") for name, each in module.student.tokenize(batch.target).items()}
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.slow
@pytest.mark.parametrize("launch", ["ddp", "fsdp"])
def test_checkpoints_of_launchers_load_on_the_cpu(tiny_config, tmp_path, launch):
    words = [
        "train.py", "--config", tiny_config, "--strategy", "ot", "--logger", "none", "--output", tmp_path,
        "--name", "run", "--trainer.accelerator", "gpu", "--trainer.devices", "1", "--trainer.strategy", launch,
        "--trainer.precision", "bf16-mixed", "--checkpoint_every", "2",
    ]  # fmt: skip
    done = subprocess.run(
        [sys.executable, *map(str, words)], cwd=ROOT, env=os.environ | {"WANDB_MODE": "disabled"},
        capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    for name in ("best", "last"):
        path = tmp_path / "run" / "checkpoints" / f"{name}.ckpt"
        module = DistillationModule.load_from_checkpoint(path, weights_only=True, map_location="cpu")
        saved = torch.load(path, map_location="cpu", weights_only=True)["state_dict"]
        assert all(key.startswith("student.") for key in saved)
        weights = {key: value for key, value in module.state_dict().items() if isinstance(value, torch.Tensor)}
        for key, value in weights.items():
            assert value.equal(saved[key]), key
        assert module.eval()(["paka jua"]).pooled.isfinite().all()
    assert (tmp_path / "run" / "metrics.json").is_file()
