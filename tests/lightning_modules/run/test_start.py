"""Which folder a run gets, and what it goes on from."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import yaml

from foundations.errors import InputError
from lightning_modules.run.start import LOCK, Start, find_start, new_start

NOW = {"model.lr": 0.1, "trainer.max_epochs": 2, "name": "a", "trainer.precision": "32-true"}
PARTS = {"epoch": 0, "loops": {}, "callbacks": {}, "optimizer_states": [], "lr_schedulers": [], "state_dict": {}}


@pytest.fixture(autouse=True)
def no_job(monkeypatch) -> None:
    for name in [name for name in os.environ if name.startswith(("SLURM_", "TORCHELASTIC_"))]:
        monkeypatch.delenv(name)


@pytest.fixture
def find(tmp_path) -> Iterator:
    """`find_start` in the temporary folder; what it locked is free again at the end."""
    found: list[Start] = []

    def find(resume: str | None = "", checkpoint: str | None = None, **options: object) -> Start | None:
        start = find_start(resume, checkpoint, str(tmp_path), "a", NOW | options)
        found.extend([start] if start else [])
        return start

    yield find
    for start in found:
        start.release()


def make_run(folder: Path, finished: bool = False, **options: object) -> Path:
    """A run folder with those checkpoints (name=step), and those options (with a dot)."""
    (folder / "checkpoints").mkdir(parents=True)
    config = NOW | {name: value for name, value in options.items() if "." in name}
    nested: dict[str, object] = {"name": config.pop("name")}
    for key, value in config.items():
        group, _, name = key.partition(".")
        nested.setdefault(group, {})[name] = value  # type: ignore[attr-defined]
    (folder / "config.yaml").write_text(yaml.safe_dump(nested))
    for name, step in options.items():
        if "." not in name:
            write(folder / "checkpoints" / f"{name}.ckpt", step)
    if finished:
        (folder / "metrics.json").write_text("{}")
    return folder


def write(path: Path, step: object, **more: object) -> None:
    torch.save(PARTS | {"global_step": step} | more, path)


def test_folders_are_numbered_and_go_if_nothing_is_written(tmp_path):
    starts = [new_start(str(tmp_path), "a") for _ in range(3)]
    assert [start.folder.name for start in starts] == ["a", "a-2", "a-3"]
    (starts[1].folder / "config.yaml").write_text("")
    for start in starts:
        start.close()
    assert [path.name for path in tmp_path.iterdir()] == ["a-2"]


def test_a_live_run_has_its_folder_for_itself(tmp_path, find):
    """In a job as well, where the same folder is otherwise taken again."""
    run = make_run(tmp_path / "a", last=4)
    first = find(str(run))
    with pytest.raises(InputError, match="another process is at this run"):
        find(str(run))
    assert find("") is None
    first.release()
    assert find("").folder == run


def test_two_runs_of_a_job_get_two_folders(tmp_path, monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "77")
    starts = [new_start(str(tmp_path), "lr") for _ in range(2)]
    assert [start.folder.name for start in starts] == ["lr-77", "lr-77-2"]
    for start in starts:
        start.close()
    make_run(tmp_path / "lr-77")  # killed before its first checkpoint
    starts = [new_start(str(tmp_path), "lr") for _ in range(2)]
    assert [start.folder.name for start in starts] == ["lr-77", "lr-77-2"]
    for start in starts:
        start.release()


def test_auto_goes_on_with_the_newest_run_of_the_same_options_first(tmp_path, find):
    assert find("") is None
    for name, rate in (("a", 0.1), ("a-2", 0.2), ("a-3", 0.1), ("a-4", 0.3)):
        make_run(tmp_path / name, last=4, **{"model.lr": rate})
    names = [find("").folder.name for _ in range(4)]  # each is locked then
    assert names == ["a-3", "a", "a-4", "a-2"]
    assert find("") is None


@pytest.mark.parametrize("variable", ["SLURM_RESTART_COUNT", "TORCHELASTIC_RESTART_COUNT", None])
def test_a_job_that_is_started_again_goes_on_by_itself_with_its_own_run(tmp_path, find, monkeypatch, variable):
    if variable != "TORCHELASTIC_RESTART_COUNT":
        monkeypatch.setenv("SLURM_JOB_ID", "80")
    end = "" if variable == "TORCHELASTIC_RESTART_COUNT" else "-80"
    if variable is not None:
        monkeypatch.setenv(variable, "0")
        make_run(tmp_path / "other")
        monkeypatch.setenv(variable, "1")
    make_run(tmp_path / f"a{end}", last=4, **{"model.lr": 0.2, "trainer.precision": "bf16-mixed"})
    assert find(None) is None  # that one has another rate
    make_run(tmp_path / f"a{end}-2", last=6, **{"trainer.precision": "bf16-mixed"})
    start = find(None)
    assert (start.folder.name, start.step) == (f"a{end}-2", 6)
    start.release()
    (start.folder / "metrics.json").write_text("{}")
    again = find(None)
    assert (again is not None and again.is_finished(NOW)) == (variable is not None)


def test_the_checkpoint_with_the_most_steps_so_that_no_better_one_is_replaced(tmp_path, find):
    run = make_run(tmp_path / "a", last=4, best=3)
    steps = [find(str(run))]
    for name, step in (("checkpoints/best.ckpt", 6), ("hpc_ckpt_1.ckpt", 7)):
        steps[-1].release()
        write(run / name, step)
        steps.append(find(str(run)))
    assert [(start.checkpoint.name, start.step) for start in steps] == [
        ("last.ckpt", 4), ("best.ckpt", 6), ("hpc_ckpt_1.ckpt", 7),
    ]  # fmt: skip
    steps[-1].accept()
    assert sorted(path.name for path in run.rglob("*.ckpt")) == ["best.ckpt", "last.ckpt"]
    assert torch.load(run / "checkpoints" / "last.ckpt")["global_step"] == 7


DAMAGE = {
    "empty": lambda path: path.write_bytes(b""),
    "truncated": lambda path: path.write_bytes(path.read_bytes()[:-200]),
    "text": lambda path: path.write_text("no checkpoint\n"),
    "a changed byte": lambda path: path.write_bytes(path.read_bytes().replace(b"global_step", b"global_stop")),
    "another zip": lambda path: (
        shutil.make_archive(str(path.with_suffix("")), "zip", path.parent.parent)
        and path.with_suffix(".zip").replace(path)
    ),
    "a list": lambda path: torch.save([1], path),
    "a tensor": lambda path: torch.save(torch.zeros(2), path),
    "a foreign checkpoint": lambda path: torch.save({"state_dict": {}}, path),
    "code": lambda path: torch.save(Evil(), path),
}


class Evil:
    def __reduce__(self):
        return os.mkdir, ("executed",)


@pytest.mark.parametrize("damage", list(DAMAGE))
def test_a_damaged_checkpoint_is_named_and_the_newest_sound_one_offered(tmp_path, find, monkeypatch, damage):
    monkeypatch.chdir(tmp_path)
    run = make_run(tmp_path / "a", last=8, best=6)
    last = run / "checkpoints" / "last.ckpt"
    DAMAGE[damage](last)
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    with pytest.raises(InputError) as error:
        find(str(run))
    assert str(error.value).startswith(f"{last}: ")
    assert str(error.value).endswith(f"--resume {run} --from best goes on at step 6")
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file() and path.name != LOCK} == before
    start = find(str(run), "best")
    assert (start.step, start.damaged) == (6, (last,))
    start.release()
    with pytest.raises(InputError, match=r"last.ckpt: "):
        find(str(run), "last")
    with pytest.raises(InputError, match="--from is 'bets', expected best"):
        find(str(run), "bets")
    assert not (tmp_path / "executed").exists()


def test_each_option_is_applied_or_named_or_refused(tmp_path, find):
    student = {"model.student": {"class_path": "a.B", "init_args": {"model": "x", "dropout": 0.1}}}
    run = make_run(tmp_path / "a", last=8, finished=True, **student, **{"model.embedding_lr": None})
    finished = find(str(run))
    assert finished.is_finished(NOW)
    finished.release()
    options = {
        "model.student.class_path": "a.B", "model.student.init_args.model": "y", "model.lr": 0.5, "name": "b",
        "model.student.init_args.dropout": 0.2, "trainer.max_epochs": 4, "model.embedding_lr": 0.1,
    }  # fmt: skip
    start = find(str(run), **options)
    now = NOW | options
    assert not start.is_finished(now)
    kept = start.without_effect(now, named=True)
    assert sorted(kept) == ["model.student.init_args.model", "name"]
    line = start.describe(now, kept)
    assert line.startswith("goes on at step 8 with ")
    assert "model.lr 0.5 (was 0.1)" in line
    assert set(line.partition("; without effect here: ")[2].split(", ")) == set(kept)
    start.release()
    for wrong, message in (({"model.embedding_lr": 0}, "frozen or freed"), ({"model.student.class_path": "C"}, "a.B")):
        with pytest.raises(InputError, match=message):
            find(str(run), **options | wrong)
