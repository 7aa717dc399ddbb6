"""Curves, configuration, table and plots are in the loggers' own files."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from lightning.pytorch.loggers import CSVLogger

from lightning_modules.run import loggers
from lightning_modules.run.loggers import is_offline, make_loggers, parse_names, run_id

METRICS = ["map", "ndcg@10", "precision@1"]
NOBODY = {
    "HOME": "/nonexistent",
    "XDG_CONFIG_HOME": "",
    "XDG_CACHE_HOME": "",
    "XDG_DATA_HOME": "",
    "NETRC": "/nonexistent",
}


def records(folder: Path) -> dict[str, list[dict]]:
    """The records of the only W&B run of a run folder, by type, as W&B's own reader gives them."""
    runs = list((folder / "wandb").glob("offline-run-*"))
    assert len(runs) == 1, runs
    program = Path(sys.executable).with_name("wandb")
    done = subprocess.run([program, "leet", "inspect", "--json", runs[0]], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"this version of W&B cannot read its files: {done.stderr}")
    found: dict[str, list[dict]] = {}
    for line in done.stdout.splitlines():
        record = json.loads(line)
        found.setdefault(record["type"], []).append(record[record["type"]])
    return found


def check_wandb(folder: Path, steps: int) -> None:
    """Curves, the full config, the table and the plots are in one run."""
    found = records(folder)
    history = [record["item"] for record in found["history"]]
    assert len(found["run"]) == 1
    assert found["run"][0]["run_id"] == (folder / "wandb_id").read_text()
    steps_of = {
        name: [item["trainer/global_step"] for item in history if name in item] for name in ("train/loss", "dev/map")
    }
    assert steps_of["train/loss"] == [step - 1 for step in range(10, steps + 1, 10)]
    assert len(steps_of["dev/map"]) == 2
    assert any(metric.get("step_metric") == "trainer/global_step" for metric in found["metric"])
    metrics = json.loads((folder / "metrics.json").read_text())
    assert [item["test/map"] for item in history if "test/map" in item] == [pytest.approx(metrics["test"]["map"])]
    config: dict = {}
    for record in found["config"]:
        config |= record.get("update", {})
    assert config["model"]["strategy"]["class_path"] == "strategies.mse.MSE"
    assert config["model"]["student"]["init_args"]["vocabulary"] == "trim"
    assert config["data"]["init_args"]["batch_size"] in (5, 10)
    assert config["evaluation"]["metrics"] == METRICS
    assert config["seed_everything"] == 0
    assert "lr" not in config, "options are in their groups, not twice"
    last = {key: value for item in history for key, value in item.items()}
    run = next((folder / "wandb").glob("offline-run-*"))
    table = json.loads((run / "files" / last["results.path"]).read_text())
    assert table["columns"] == ["system", *METRICS]
    assert [row[0] for row in table["data"]] == ["undistilled", "bm25", "test", "hybrid", "bm25_english", "teacher"]
    assert table["data"][2][1:] == pytest.approx(list(metrics["test"].values()))
    for name in ("results", "curves"):
        assert (run / "files" / last[f"plots/{name}.path"]).read_bytes() == (folder / f"{name}.png").read_bytes()


@pytest.mark.slow
def test_wandb_offline_without_a_home(process, tiny_config, tmp_path):
    """Nobody is logged in, nothing can be asked: stdin is closed, and there is no home folder."""
    hidden = {name: None for name in [*os.environ, "WANDB_MODE"] if name.startswith("WANDB_")}
    words = ["--config", tiny_config, "--strategy", "mse", "--output", tmp_path, "--name", "run", "--plots", "true"]
    done = process("train.py", *words, environment=hidden | NOBODY)
    assert done.status == 0, done.err
    check_wandb(tmp_path / "run", steps=20)
    run = next((tmp_path / "run" / "wandb").glob("offline-run-*"))
    assert f"wandb sync {run}" in done.out
    assert "wandb:" not in done.err


@pytest.mark.slow
def test_two_ranks(process, script, tiny_config, tmp_path):
    """One W&B run, one run folder; one rank scores the same; and trained alone, the student is the same."""
    words = ["--config", tiny_config, "--strategy", "mse", "--output", tmp_path, "--student.dropout", "0"]
    words += ["--data.eval_batch_size", "2"]  # three batches of queries: the second rank's share is padded
    two = ["--trainer.devices", 2, "--trainer.strategy", "ddp", "--data.batch_size", 5, "--name", "two"]
    done = process("train.py", *words, *two, "--logger", "wandb", "--plots", "true")
    assert done.status == 0, done.err
    assert done.out.count("test queries, mean") == 1
    assert "Warning" not in done.err
    assert "recommended" not in done.err
    folder = tmp_path / "two"
    check_wandb(folder, steps=20)
    rescored = script("evaluate.py", folder, "--json", tmp_path / "scores.json")
    assert rescored.status == 0, rescored.err
    found = json.loads((tmp_path / "scores.json").read_text())
    values = json.loads((folder / "per_query.json").read_text())
    assert {row: content["per_query"] for row, content in found.items()} == values
    assert script("train.py", *words, "--logger", "none", "--name", "one").status == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one", "scores.json", "two"]
    alone = json.loads((tmp_path / "one" / "per_query.json").read_text())
    for row in ("undistilled", "teacher"):
        assert values[row] == alone[row]
    for metric in METRICS:
        assert values["test"][metric] == pytest.approx(alone["test"][metric], abs=1e-6)


def test_csv_and_tensorboard_together(script, tiny_config, tmp_path):
    words = ["--config", tiny_config, "--strategy", "mse", "--output", tmp_path, "--name", "run"]
    done = script("train.py", *words, "--logger", "csv, tensorboard")
    assert done.status == 0, done.err
    folder = tmp_path / "run"
    with (folder / "csv" / "version_0" / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["step"] for row in rows if row["train/loss"]] == ["9", "19"]
    assert len([row for row in rows if row["dev/map"]]) == 2
    metrics = json.loads((folder / "metrics.json").read_text())
    assert [float(row["test/map"]) for row in rows if row["test/map"]] == [pytest.approx(metrics["test"]["map"])]
    assert "class_path: strategies.mse.MSE" in (folder / "csv" / "version_0" / "hparams.yaml").read_text()
    assert not (folder / "wandb").exists()
    accumulators = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    events = accumulators.EventAccumulator(str(folder / "tensorboard")).Reload()
    assert [event.step for event in events.Scalars("train/loss")] == [9, 19]
    assert len(events.Scalars("dev/map")) == 2


def test_no_logger(script, tiny_config, tmp_path):
    words = ["--config", tiny_config, "--strategy", "mse", "--output", tmp_path, "--name", "run", "--logger", "none"]
    assert script("train.py", *words, "--trainer.max_epochs", 1).status == 0
    assert not {path.name for path in (tmp_path / "run").iterdir()} & {"wandb", "csv", "tensorboard", "wandb_id"}


def test_names():
    assert parse_names("wandb, csv,wandb") == ["wandb", "csv"]
    assert parse_names("none") == parse_names("") == []
    with pytest.raises(ValueError, match=r"logger is 'tensorbord', expected one of wandb.*did you mean 'tensorboard'"):
        parse_names("csv,tensorbord")


def test_the_variables_of_wandb_are_obeyed(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_RUN_ID", "my-id")
    monkeypatch.setenv("WANDB_NAME", "my name")
    (logger,) = make_loggers("wandb", tmp_path)
    assert (logger.version, logger.name) == ("my-id", "potstill")
    assert logger._wandb_init["name"] == "my name"
    assert not (tmp_path / "wandb_id").exists()
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert make_loggers("wandb", tmp_path / "off") == []
    assert [type(each).__name__ for each in make_loggers("csv,wandb", tmp_path)] == ["CSVLogger"]
    assert not (tmp_path / "off").exists()


def test_loggers_in_their_order(tmp_path):
    kinds = [type(logger).__name__ for logger in make_loggers("csv,tensorboard", tmp_path)]
    assert kinds == ["CSVLogger", "TensorBoardLogger"]


def test_the_id_stays(tmp_path):
    first = run_id(tmp_path / "a run")
    assert run_id(tmp_path / "a run") == first
    assert first.startswith("a-run-")
    shutil.rmtree(tmp_path / "a run")
    assert run_id(tmp_path / "a run") != first


@pytest.mark.parametrize(("variables", "offline"), [
    ({}, True),
    ({"WANDB_API_KEY": "k" * 40}, False),
    ({"WANDB_API_KEY": "k" * 40, "WANDB_MODE": "offline"}, True),
    ({"WANDB_MODE": "online"}, False),
    ({"NETRC": "netrc"}, False),
    ({"NETRC": "netrc", "WANDB_BASE_URL": "https://wandb.example.org"}, True),
    ({"NETRC": "broken"}, True),
])  # fmt: skip
def test_offline_unless_logged_in(tmp_path, monkeypatch, variables, offline):
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    (tmp_path / "netrc").write_text("machine api.wandb.ai\n  login user\n  password key\n")
    (tmp_path / "broken").write_text("nonsense")
    monkeypatch.chdir(tmp_path)
    for name, value in (NOBODY | variables).items():
        monkeypatch.setenv(name, value)
    assert is_offline() is offline


def test_the_loss_is_read_for_progress_alone(script, tiny_config, tmp_path):
    """Lightning's own bar would wait for the device in every step; the line after a validation has the loss."""
    words = ["--config", tiny_config, "--strategy", "mse", "--logger", "none", "--output", tmp_path]
    done = script("train.py", *words, "--trainer.max_epochs", "1")
    assert done.status == 0, done.err
    assert re.search(r"epoch 1/1  step \d+  dev/map 0\.\d+  train/loss \d\.\d+", done.err), done.err


@pytest.mark.parametrize("problem", ["raises", "hangs"])
def test_a_logger_that_fails_ends_and_the_run_goes_on(script, tiny_config, tmp_path, monkeypatch, problem):
    calls = []

    def broken(*_, **__):
        calls.append(problem)
        if problem == "raises":
            raise OSError(28, "No space left on device")
        time.sleep(3)

    monkeypatch.setattr(loggers, "_PATIENCE", 0.2)
    monkeypatch.setattr(CSVLogger, "log_metrics", broken)
    words = ["--config", tiny_config, "--strategy", "mse", "--output", tmp_path, "--name", "run", "--logger", "csv"]
    with pytest.warns(UserWarning, match="the logger csv ends here, the run goes on: ") as records:
        done = script("train.py", *words, "--trainer.log_every_n_steps", "1")
    assert done.status == 0, done.err
    assert len([each for each in records if "ends here" in str(each.message)]) == len(calls) == 1
    assert json.loads((tmp_path / "run" / "metrics.json").read_text())["test"]


@pytest.mark.slow
def test_a_server_that_cannot_be_reached_makes_wandb_offline(process, tiny_config, tmp_path):
    words = ["--config", tiny_config, "--strategy", "mse", "--output", tmp_path, "--name", "run", "--logger", "wandb"]
    online = {"WANDB_MODE": "online", "WANDB_API_KEY": "0" * 40, "WANDB_BASE_URL": "http://127.0.0.1:9"}
    done = process("train.py", *words, environment=online)
    assert done.status == 0, done.err
    assert "W&B is offline in this run, its server does not answer: " in done.err
    assert "Traceback" not in done.err
    assert list((tmp_path / "run" / "wandb").glob("offline-run-*"))
