"""One fault: what it is, how it is put into a process, what is expected, and how that is checked."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from benchmarks.faults.place import ROOT, Ended, Place
from foundations.files import read_json

TRAIN = ("train.py", "--config", "{config}", "--output", "{out}", "--name", "k")
RESUME = ("train.py", "--resume", "{out}/k")
CUT_AT = 7
"""The optimiser step in which the broken-off run of a scene was killed; its checkpoint is of step 6."""
_SAME = ("metrics.json", "per_query.json", "test.pooled.run")


@dataclass
class Scene:
    """The files of one fault: ``data``, ``out`` with the run ``k``, which was broken off or finished, and others."""

    place: Place
    folder: Path
    processes: list[subprocess.Popen[str]] = field(default_factory=list)

    @property
    def data(self) -> Path:
        """A copy of the data."""
        return self.folder / "data"

    @property
    def out(self) -> Path:
        """The folder for runs."""
        return self.folder / "out"

    @property
    def run(self) -> Path:
        """The run folder."""
        return self.out / "k"

    def words(self, words: tuple[str, ...]) -> list[str]:
        """A command with the names of this scene."""
        names = {
            "config": self.place.config,
            "mixture": self.place.mixture,
            "out": self.out,
            "data": self.data,
            "here": self.folder,
        }
        return [re.sub(r"\{(\w+)\}", lambda match: str(names.get(match[1], match[0])), word) for word in words]

    def write(self, name: str, content: str | bytes) -> Path:
        """A file of the scene."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    def close(self) -> None:
        """End what runs beside."""
        for process in self.processes:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.communicate()


@dataclass(frozen=True)
class Fault:
    """A row of the matrix."""

    kind: str
    injection: str  # in words
    words: tuple[str, ...]  # of the command; {config}, {data}, {out} and {here} are the scene's
    status: int | tuple[int, ...]  # expected; 128 + n of signal n
    says: str  # a regular expression that the output must hold
    prepare: Callable[[Scene], Any] | None = None
    run: str = ""  # the run that is there before: "cut" or "done"
    after: str = ""  # what must hold then: "no run", "unchanged", "sound", "goes on", "same results"
    environment: dict[str, str] = field(default_factory=dict)
    ranks: int = 1
    seconds: float = 240.0  # that it may take
    again: tuple[str, ...] = RESUME  # the command that goes on
    lost: str = "nothing"

    @property
    def name(self) -> str:
        """Kind and injection, one for each row."""
        return f"{self.kind}: {self.injection}"


@dataclass(frozen=True)
class Outcome:
    """What happened; no problem means as expected."""

    fault: Fault
    ended: Ended
    line: str  # the last line of the output
    problems: list[str]


class Runner:
    """Runs faults in folders of their own, and the undisturbed runs that they are compared with.

    Args:
        place: what they share.
    """

    def __init__(self, place: Place) -> None:
        self.place = place
        self.whole: dict[tuple[str, ...], Path] = {}
        self.lock = threading.Lock()

    def begin(self) -> None:
        """Make the broken-off run and the finished one."""
        for name, environment, status in (("cut", {"FAULT": f"signal=9@{CUT_AT}"}, 137), ("done", {}, 0)):
            scene = Scene(self.place, self.place.folder / name)
            scene.folder.mkdir()
            ended = self.place.run(scene.words(TRAIN), scene.folder, environment)
            assert ended.status == status, ended.text

    def outcome(self, fault: Fault, folder: Path) -> Outcome:
        """Put in the fault, and look."""
        scene = Scene(self.place, folder)
        folder.mkdir()
        shutil.copytree(self.place.data, scene.data)
        if fault.run:
            shutil.copytree(self.place.folder / fault.run / "out", scene.out)
        try:
            if fault.prepare:
                fault.prepare(scene)
            before = _content(scene.out)
            environment = {key: scene.words((value,))[0] for key, value in fault.environment.items()}
            ended = self.place.run(scene.words(fault.words), folder, environment, fault.ranks, fault.seconds)
            problems = list(_problems(fault, ended, scene))
            if fault.after == "unchanged" and (changed := _changed(before, _content(scene.out))):
                problems.append(f"changed: {', '.join(changed[:3])}")
            if fault.after in ("goes on", "same results"):
                problems += self._goes_on(fault, scene)
        finally:
            scene.close()
        return Outcome(fault, ended, line_of(fault, ended.text, scene), problems)

    def _goes_on(self, fault: Fault, scene: Scene) -> list[str]:
        """Whether the run goes on, and ends as one that nothing disturbed."""
        if fault.after == "goes on":
            ended = self.place.run(scene.words(fault.again), scene.folder, ranks=fault.ranks)
            if ended.status != 0:
                return [f"does not go on: {ended.text.strip().splitlines()[-1:]}"]
        key = tuple(word for word in fault.words if word != "--resume")
        with self.lock:
            return self._whole(key, fault.ranks) or differences(scene.run, self.whole[key])

    def _whole(self, key: tuple[str, ...], ranks: int) -> list[str]:
        """Make the undisturbed run, if it is not there."""
        if key not in self.whole:
            whole = Scene(self.place, self.place.folder / f"whole{len(self.whole)}")
            shutil.copytree(self.place.data, whole.data)
            # The paths of the data differ, which no weight depends on.
            done = self.place.run(whole.words(key), whole.folder, ranks=ranks)
            if done.status != 0:
                return [f"the undisturbed run fails: {done.text.strip().splitlines()[-1:]}"]
            self.whole[key] = whole.run
        return []


def line_of(fault: Fault, text: str, scene: Scene) -> str:
    """The last line that holds what is expected, or the last of all, without the folders of here."""
    lines = [line for line in text.splitlines() if line.strip()]
    named = [line for line in lines if re.search(fault.says, line)] if fault.says else []
    line = (named or lines or [""])[-1]
    for folder in (scene.folder, scene.place.folder, ROOT):
        line = line.replace(f"{folder}/", "").replace(str(folder), ".")
    return line


def differences(run: Path, whole: Path) -> list[str]:
    """What differs between two finished runs: results, weights, curves."""
    if missing := [name for name in _SAME if not (run / name).is_file()]:
        return [f"{missing[0]} is missing"]
    found = [name for name in _SAME if (run / name).read_bytes() != (whole / name).read_bytes()]
    ours, theirs = (torch.load(each / "checkpoints" / "best.ckpt", "cpu", weights_only=True) for each in (run, whole))
    found += ["step of best.ckpt"] * (ours["global_step"] != theirs["global_step"])
    for name, value in theirs["state_dict"].items():
        if isinstance(value, torch.Tensor) and not _equal(value, ours["state_dict"][name]):
            found.append(f"weights {name}")
    curves = [read_json(each / "history.json") for each in (run, whole)]
    if curves[0] != curves[1]:
        found.append(f"curves: steps {[point['step'] for point in curves[0]]}, {_first_difference(*curves)}")
    return [f"differs: {', '.join(found[:4])}"] if found else []


def _equal(ours: torch.Tensor, theirs: torch.Tensor) -> bool:
    """To the last bit; NaN, which a strategy's memory may hold, is equal to itself."""
    nan = [each.isnan() for each in (ours, theirs)]
    return nan[0].equal(nan[1]) and ours.masked_fill(nan[0], 0).equal(theirs.masked_fill(nan[1], 0))


def _first_difference(ours: list[dict[str, float]], theirs: list[dict[str, float]]) -> str:
    for mine, other in zip(ours, theirs, strict=False):
        for name in sorted(mine.keys() | other.keys()):
            if mine.get(name) != other.get(name):
                return f"{name} {mine.get(name)} and {other.get(name)}"
    return "their number"


def _problems(fault: Fault, ended: Ended, scene: Scene) -> list[str]:
    """What is not as it must be when the process has ended."""
    statuses = fault.status if isinstance(fault.status, tuple) else (fault.status,)
    found = [] if ended.status in statuses else [f"exit {ended.status}"]
    if not re.search(fault.says, ended.text):
        found.append(f"says not {fault.says!r}")
    # torchrun shows one of its own where a rank ended otherwise than with 0.
    if re.search(r"Traceback \(most" if fault.ranks == 1 else rf'File "{ROOT}', ended.text):
        found.append("a traceback")
    if list(scene.folder.rglob("executed")):
        found.append("code was executed")
    if fault.after == "no run" and scene.run.exists():
        found.append("a run folder is left")
    if fault.after == "sound":
        found += _unsound(scene)
    return found


def _unsound(scene: Scene) -> list[str]:
    """Whether the last checkpoint of the run can be read, and nothing half-written lies beside it."""
    try:
        torch.load(scene.run / "checkpoints" / "last.ckpt", "cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError) as error:
        return [f"last.ckpt: {error}"]
    return []


def _content(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != ".run.lock"
    }


def _changed(before: dict[str, bytes], after: dict[str, bytes]) -> list[str]:
    return sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))
