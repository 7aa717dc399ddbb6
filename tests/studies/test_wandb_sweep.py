"""The sweep files as W&B reads them: its own library accepts them, and its agent runs the same command lines."""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path

import pytest
import yaml
from wandb.sdk.launch.sweeps.utils import create_sweep_command, create_sweep_command_args, load_sweep_config

from studies.grid import KEYS, Cell, read_sweep
from tests.lightning_modules.run.test_loggers import records

ROOT = Path(__file__).parent.parent.parent
FILES = [path for path in sorted((ROOT / "configs/sweeps").glob("*.yaml")) if not path.stem.endswith(".test_noise")]


def by_wandb(cell: Cell) -> list[str]:
    """The arguments that W&B's agent makes of a cell: sorted by key, as its server sends them."""
    values = {key: {"value": value} for key, value in sorted(cell.options.items())}
    return list(create_sweep_command_args({"args": values})["args"])


@pytest.fixture(autouse=True)
def in_the_project(monkeypatch) -> None:
    monkeypatch.chdir(ROOT)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_the_agent_runs_the_same_cells(path) -> None:
    config = load_sweep_config(str(path))
    assert config is not None
    assert create_sweep_command(config["command"]) == ["${env}", "python", "${program}", "${args}"]
    for cell in read_sweep(path):
        arguments = by_wandb(cell)
        assert sorted(arguments) == sorted(cell.arguments)
        assert Cell(cell.name, dict(each[2:].split("=", 1) for each in arguments), {}).settings() == cell.settings()


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_wandbs_own_library_accepts_the_file_and_makes_the_same_grid(path) -> None:
    sweeps = pytest.importorskip("sweeps", reason="W&B's library of sweeps is not installed: pip install sweeps")
    schema = pytest.importorskip("sweeps.config.schema")
    config = load_sweep_config(str(path))
    assert [error.message for error in schema.validator.iter_errors(config)] == []
    known = json.loads(resources.files(sweeps).joinpath("config/schema.json").read_text())["properties"]
    assert set(KEYS) == set(known)
    runs: list = []
    while (run := sweeps.next_run(sweeps.SweepConfig(config), runs)) is not None:
        runs.append(run)
    found = {tuple(f"--{key}={each['value']}" for key, each in sorted(run.config.items())) for run in runs}
    assert found == {tuple(by_wandb(cell)) for cell in read_sweep(path)}


@pytest.mark.slow
def test_cells_of_one_worker_are_runs_of_one_group(process, tiny_config, tmp_path) -> None:
    content = {"program": "train.py", "method": "grid", "parameters": {
        "config": {"value": str(tiny_config)}, "trainer.max_epochs": {"value": 1}, "strategy": {"value": "mse"},
        "data.noise.rate": {"values": [0.0, 0.4]},
    }}  # fmt: skip
    (tmp_path / "s.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    output = tmp_path / "noisy"
    done = process("sweep.py", "--config", tmp_path / "s.yaml", "--output", output, "--workers", "1", "--wandb")
    assert done.status == 0, done.err
    identities = set()
    for name in ("rate0.0", "rate0.4"):
        found = records(output / name)
        [run] = found["run"]
        assert (run["run_group"], run["display_name"]) == ("noisy", name)
        identities.add(run["run_id"])
        logged = {key for record in found["history"] for key in record["item"]}
        assert {"train/loss", "dev/map"} <= logged
        assert ("noise/mismatched" in json.dumps(found["summary"])) == (name == "rate0.4")
        assert [record["exit_code"] for record in found["exit"]] == [0], "ended before the next cell began"
    assert len(identities) == 2
