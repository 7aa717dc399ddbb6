"""Sweeps: the grid, and cells that are run once, go on after a kill, and fail alone."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from foundations.errors import InputError
from studies.cells import Outcome, SweepOptions, check_records, run_cell
from studies.grid import Cell, difference, read_sweep, read_sweeps, select
from studies.noisy_tests import is_tested, measure_under_noise
from studies.slurm import ArrayJob, ArrayTask, submit
from studies.workers import run_all

ROOT = Path(__file__).parent.parent.parent


def write(path: Path, **parameters) -> Path:
    specs = {
        key.replace("__", "."): {"values": value} if isinstance(value, list) else {"value": value}
        for key, value in parameters.items()
    }
    path.write_text(yaml.safe_dump({"program": "train.py", "method": "grid", "parameters": specs}, sort_keys=False))
    return path


@pytest.fixture
def overlays(tmp_path, tiny_config) -> list[str]:
    """Two strategies as config files, laid over the tiny config."""
    names = []
    for name, strategy in (("plain", "strategies.mse.MSE"), ("cosine_like", "strategies.cosine.Cosine")):
        content = yaml.safe_load(tiny_config.read_text("utf-8"))
        del content["plots"]
        content["model"]["strategy"] = {"class_path": strategy}
        content["trainer"] |= {"max_epochs": 1}
        content["evaluation"] |= {"undistilled": False}
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(content))
        names.append(str(tmp_path / f"{name}.yaml"))
    return names


def test_grid_is_the_product_in_the_order_of_the_file(tmp_path):
    file = write(tmp_path / "a.yaml", data="starter", config=["x/ot.yaml", "x/mse.yaml"], data__noise__rate=[0.0, 0.4],
                 data__language=["sw", "mr"], seed_everything=[0, 1])  # fmt: skip
    cells = read_sweep(file)
    expected = [
        f"{strategy}-rate{rate}-{language}-seed{seed}"
        for strategy in ("ot", "mse") for rate in ("0.0", "0.4") for language in ("sw", "mr") for seed in (0, 1)
    ]  # fmt: skip
    assert [cell.name for cell in cells] == expected
    assert cells[5].labels == {"config": "ot", "rate": "0.4", "language": "sw", "seed": "1"}
    assert cells[5].arguments == [
        "--data=starter", "--config=x/ot.yaml", "--data.noise.rate=0.4", "--data.language=sw", "--seed_everything=1",
    ]  # fmt: skip
    assert [cell.name for cell in select(cells, ["language=mr", "data.noise.rate=0.4", "config=mse", "seed=0,1"])] == [
        "mse-rate0.4-mr-seed0", "mse-rate0.4-mr-seed1",
    ]  # fmt: skip
    assert read_sweeps([file, file]) == cells


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("program: train.py\nmethod: grid\n", "expected parameters"),
        ("program: train.py\nmethod: bayes\nparameters: {a: {value: 1}}\n", "method is 'bayes', expected grid"),
        ("program: other.py\nmethod: grid\nparameters: {a: {value: 1}}\n", "program is 'other.py'"),
        ("program: train.py\nmethod: grid\nparameter: {a: {value: 1}}\n", "did you mean 'parameters'"),
        ("program: train.py\nmethod: grid\nparameters: {a: {min: 1, max: 2}}\n", "parameter a: expected value"),
        ("program: train.py\nmethod: grid\nparameters: {a: {values: []}}\n", "expected a list with at least one"),
        (
            "program: train.py\nmethod: grid\nparameters: {a: {values: [x/b.yaml, y/b.yaml]}}\n",
            "two cells have the name",
        ),
        ("a: [1\nb: 2\n", "a.yaml:2: invalid YAML"),
        ("- a\n", "expected YAML with keys and values"),
    ],
)
def test_a_wrong_sweep_file_is_one_clear_error(text, message, tmp_path, script):
    (tmp_path / "a.yaml").write_text(text)
    done = script("sweep.py", "--config", tmp_path / "a.yaml", "--dry_run")
    assert done.status == 2
    assert message in done.err
    assert "Traceback" not in done.err


@pytest.mark.parametrize("condition", ["language", "tongue=sw", "language=sv"])
def test_a_wrong_condition_is_an_error(condition, tmp_path):
    cells = read_sweep(write(tmp_path / "a.yaml", data__language=["sw", "mr"]))
    with pytest.raises(InputError):
        select(cells, [condition])


@pytest.mark.slow
def test_cells_run_once_equal_train_py_and_a_change_is_refused(tmp_path, overlays, script):
    output, file = tmp_path / "out", write(tmp_path / "s.yaml", config=overlays, seed_everything=[0, 1])
    words = ["sweep.py", "--config", file, "--output", output, "--workers", "1"]
    done = script(*words)
    assert done.status == 0, done.err
    names = ["plain-seed0", "plain-seed1", "cosine_like-seed0", "cosine_like-seed1"]
    assert sorted(path.name for path in output.iterdir()) == sorted(names)
    # The last cell ran in a process that ran others before it.
    alone = script("train.py", "--config", overlays[1], "--seed_everything", 1, "--output", tmp_path, "--name", "alone",
                   "--logger", "none")  # fmt: skip
    assert alone.status == 0, alone.err
    assert (tmp_path / "alone" / "metrics.json").read_bytes() == (output / names[3] / "metrics.json").read_bytes()
    assert json.loads((output / names[1] / "cell.json").read_text())["labels"] == {"config": "plain", "seed": "1"}
    assert list((tmp_path / "alone").glob("*.png"))
    assert not list(output.glob("*/*.png")), "the report draws, and cells are many"

    before = {path: path.stat().st_mtime_ns for path in output.rglob("*")}
    assert "4 finished, 0 to run" in script(*words).out
    assert {path: path.stat().st_mtime_ns for path in output.rglob("*")} == before

    content = yaml.safe_load(Path(overlays[0]).read_text())
    content["model"]["lr"] = 0.5
    Path(overlays[0]).write_text(yaml.safe_dump(content))
    done = script(*words)
    assert done.status == 2
    assert "plain-seed0: was run with other settings: model.lr was 0.003 and is 0.5" in done.err
    assert script(*words, "--only", "config=cosine_like").status == 0


@pytest.mark.slow
def test_a_failing_cell_is_reported_and_the_others_go_on(tmp_path, overlays, script):
    file = write(tmp_path / "s.yaml", config=overlays[:1], data__batch_size=[100000, 10])
    done = script("sweep.py", "--config", file, "--output", tmp_path / "out", "--workers", "1")
    assert done.status == 1
    assert "1 failed, 1 finished" in done.out
    assert "failed: plain-batch_size100000: InputError: " in done.out
    assert (tmp_path / "out" / "plain-batch_size10" / "metrics.json").is_file()
    assert "Traceback" in (tmp_path / "out" / "plain-batch_size100000" / "log.txt").read_text()
    # What failed before it trained may be changed and run again.
    check_records([Cell("plain-batch_size100000", {"config": overlays[1]}, {})], tmp_path / "out")


def fake_train(arguments: list[str]) -> None:
    """Stands for train.py: leaves a mark each time, and dies, hangs or fails as its name says."""
    options = dict(argument.removeprefix("--").partition("=")[::2] for argument in arguments)
    folder = Path(options["output"]) / options["name"]
    with (folder / "runs").open("a") as file:
        file.write(f"{os.getpid()}\n")
    if "die" in folder.name:
        os._exit(7)
    if "hang" in folder.name and not (folder / "again").exists():
        (folder / "again").touch()
        time.sleep(600)
    assert "SLURM_JOB_ID" not in os.environ
    (folder / "metrics.json").write_text("{}")


def fake_cells(*names: str) -> list[Cell]:
    return [Cell(name, {"config": str(ROOT / "configs" / "starter.yaml")}, {}) for name in names]


def test_a_dying_process_takes_only_its_cell_with_it(tmp_path):
    outcomes = run_all(fake_cells("a", "die", "b", "c"), SweepOptions(tmp_path), fake_train, 1)
    assert [(each.name, each.status) for each in outcomes] == [
        ("a", "finished"), ("die", "failed"), ("b", "finished"), ("c", "finished"),
    ]  # fmt: skip
    assert outcomes[1].message == "its process died with exit status 7"
    ids = [(tmp_path / name / "runs").read_text() for name in ("a", "b", "c")]
    assert ids[0] != ids[1] == ids[2], "one process runs many cells, and is replaced when it dies"


KILLED = """
import sys
from pathlib import Path
sys.path[:0] = [{tests!r}, {root!r}]
from studies.cells import SweepOptions
from studies.workers import run_all
from test_sweep import fake_cells, fake_train
if __name__ == "__main__":
    run_all(fake_cells("a", "hang", "b"), SweepOptions(Path({output!r})), fake_train, 1)
"""


def test_a_killed_sweep_leaves_no_process_and_goes_on(tmp_path):
    (tmp_path / "run.py").write_text(
        KILLED.format(tests=str(Path(__file__).parent), root=str(ROOT), output=str(tmp_path / "out"))
    )
    process = subprocess.Popen([sys.executable, tmp_path / "run.py"], cwd=ROOT, stderr=subprocess.DEVNULL)
    mark = tmp_path / "out" / "hang" / "again"
    deadline = time.monotonic() + 60
    while not mark.exists():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    outcomes = [run_cell(cell, SweepOptions(tmp_path / "out"), fake_train) for cell in fake_cells("a", "hang", "b")]
    assert [each.status for each in outcomes] == ["finished"] * 3, "the lock of the killed sweep's worker is free again"
    runs = {name: len((tmp_path / "out" / name / "runs").read_text().splitlines()) for name in ("a", "hang", "b")}
    assert runs == {"a": 1, "hang": 2, "b": 1}


def test_a_cell_that_another_process_runs_is_left_alone(tmp_path, monkeypatch):
    from filelock import FileLock

    monkeypatch.setattr("studies.cells._SECONDS_TO_WAIT", 0.1)
    (tmp_path / "a").mkdir()
    with FileLock(tmp_path / "a" / ".lock"):
        assert run_cell(*fake_cells("a"), SweepOptions(tmp_path), fake_train).status == "busy"
    assert not (tmp_path / "a" / "runs").exists()


def test_submitit_runs_shares_and_says_what_failed(tmp_path, monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "12")
    cells = fake_cells("a", "b", "c")
    jobs = submit(cells, SweepOptions(tmp_path), fake_train, ArrayJob(tasks=2, cluster="debug"))
    assert [[each.name for each in job.result()] for job in jobs] == [["a", "c"], ["b"]]
    assert os.environ["SLURM_JOB_ID"] == "12"

    def fails(arguments: list[str]) -> None:
        raise ValueError("no such thing\nsecond line")

    with pytest.raises(RuntimeError, match=r"1 of 2 cells failed: d \(ValueError: no such thing\)"):
        ArrayTask(fake_cells("d", "a"), SweepOptions(tmp_path), fails)()


@pytest.mark.slow
def test_submitit_local_processes(tmp_path, overlays, script):
    file = write(tmp_path / "s.yaml", config=overlays[:1], seed_everything=[0, 1])
    words = ["sweep.py", "--config", file, "--output", tmp_path / "out"]
    done = script(*words, "--slurm", "--cluster", "local", "--tasks", "1", "--cpus", "1", "--minutes", "5")
    assert done.status == 0, done.err
    assert "submitted 2 cells as 1 tasks" in done.out
    deadline = time.monotonic() + 150
    while not (tmp_path / "out" / "plain-seed1" / "metrics.json").exists():
        assert time.monotonic() < deadline, [path.read_text() for path in (tmp_path / "out" / "slurm").glob("*.err")]
        time.sleep(0.2)
    assert "finished  plain-seed0" in script(*words, "--dry_run").out


def test_requeued_task_is_the_same_again(tmp_path):
    task = ArrayTask(fake_cells("a"), SweepOptions(tmp_path), fake_train)
    again = task.checkpoint().function
    assert [each.status for each in again()] == ["finished"]


def test_difference_names_what_changed():
    assert difference({"a": 1, "b": 2}, {"a": 1, "b": 3, "c": 4}) == "b was 2 and is 3, c was not set and is 4"
    assert difference({"a": 1}, {"a": 1}) == ""
    assert Outcome("a", "failed", 1.0).message == ""


@pytest.mark.slow
def test_noise_at_test_time_equals_evaluate_py(finished_run, tmp_path, script):
    """Runs that are not among those of the file are left alone; what is there is not tested again."""
    spec = tmp_path / "a.test_noise.yaml"
    spec.write_text("runs: {rate: [0.0]}\ntext: [keyboard, delete]\nseverities: [3]\nseed: 5\n")
    labels = {"rate": "0.0"}
    folder = tmp_path / "run"
    shutil.copytree(finished_run, folder)
    measure_under_noise(folder, {"rate": "0.4"}, spec)
    assert not (folder / "test_noise").exists()
    assert is_tested(folder, {"rate": "0.4"}, spec)
    assert not is_tested(folder, labels, spec)
    measure_under_noise(folder, labels, spec)
    assert is_tested(folder, labels, spec)
    kinds = {}
    for kind in ("keyboard", "delete"):
        words = ["--text_noise", kind, "--severity", 3, "--noise_seed", 5, "--json", tmp_path / "e.json"]
        done = script("evaluate.py", folder, *words)
        assert done.status == 0, done.err
        expected = json.loads((tmp_path / "e.json").read_text())["test"]
        path = folder / "test_noise" / f"text-{kind}-3.json"
        assert json.loads(path.read_text())["test"] == expected
        kinds[kind] = expected["means"]
    assert kinds["keyboard"] != json.loads((folder / "metrics.json").read_text())["test"]
    before = path.stat().st_mtime_ns
    measure_under_noise(folder, labels, spec)
    assert path.stat().st_mtime_ns == before


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("text: [keybord]\n", "did you mean 'keyboard'"),
        ("texts: [keyboard]\n", "key is 'texts', expected one of runs"),
        ("text: [keyboard]\nseverities: [0]\n", "numbers from 1 to 5"),
        ("text: keyboard\n", "expected a list of kinds"),
        ("text: [mt]\n", "needs a file"),
    ],
)
def test_a_wrong_test_noise_file_is_an_error_before_anything_runs(text, message, tmp_path, script):
    file = write(tmp_path / "s.yaml", data="starter", seed_everything=[0])
    (tmp_path / "s.test_noise.yaml").write_text(text)
    done = script("sweep.py", "--config", file, "--output", tmp_path / "out")
    assert done.status == 2
    assert message in done.err
    assert not (tmp_path / "out").exists()


SWEEPS = [path for path in sorted((ROOT / "configs" / "sweeps").glob("*.yaml")) if path.suffixes == [".yaml"]]


@pytest.mark.parametrize("config", SWEEPS, ids=lambda path: path.stem)
def test_shipped_sweeps_are_accepted_by_train_py(config, script, monkeypatch):
    monkeypatch.chdir(ROOT)
    cells = read_sweep(config)
    assert script("sweep.py", "--config", config, "--dry_run").status == 0
    for label in dict.fromkeys(cell.labels["config"] for cell in cells):
        cell = [cell for cell in cells if cell.labels["config"] == label][-1]
        done = script("train.py", *cell.arguments, "--print_config")
        assert done.status == 0, done.err
