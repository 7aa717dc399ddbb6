"""The faults of signals, kills, places and processes; those of input are in `benchmarks.faults.inputs`."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import time
from collections.abc import Iterator

from benchmarks.faults.scene import RESUME, TRAIN, Fault, Scene

SIGINT, SIGKILL, SIGTERM, SIGUSR1 = signal.SIGINT, signal.SIGKILL, signal.SIGTERM, signal.SIGUSR1
_STRATEGIES = ("mse", "contrastive", "ot", "ot_match", "ot_contrastive")
_JOB = {"SLURM_JOB_ID": "8", "SLURM_NTASKS": "1", "SLURM_JOB_NAME": "job", "PATH": "{here}/bin:" + os.environ["PATH"]}
_DDP = ("--trainer.devices", "2", "--trainer.strategy", "ddp")
_STREAM = ("--data.stream", "true", "--data.shuffle_buffer", "40", "--data.vocabulary_sample", "90")
_AGAIN_JOB = ("train.py", "--resume", "{out}/k-8")


def signals() -> Iterator[Fault]:
    """Signals at steps of an epoch of 10, at its end, at the last step, before the run, twice, by SLURM, on 2 ranks."""
    for number, name, status in ((SIGTERM, "SIGTERM", 143), (SIGINT, "SIGINT", 130)):
        for step in (1, 5, 10, 13, 20):
            says = rf"stopped: (SIGTERM|interrupted) after step {step}; to go on: train.py --resume .*/out/k"
            environment = {"FAULT": f"signal={number:d}@{step}"}
            injection = f"{name} in step {step}"
            yield Fault("signal", injection, TRAIN, status, says, after="goes on", environment=environment)
        for rank, whom in (("0", "rank 0"), ("1", "rank 1"), (None, "both ranks")):
            environment = {"FAULT": f"signal={number:d}@6"} | ({} if rank is None else {"FAULT_RANK": rank})
            yield Fault(
                "signal", f"{name} to {whom} of 2 in step 6", (*TRAIN, *_DDP), 1, "after step 6; to go on",
                after="goes on", environment=environment, ranks=2, again=(*RESUME, *_DDP),
            )  # fmt: skip
    twice = {"FAULT": f"signal={SIGTERM:d}@5;signal={SIGTERM:d}@5"}
    yield Fault("signal", "SIGTERM twice in step 5", TRAIN, 143, "", after="goes on", environment=twice,
                lost="2 steps since the last checkpoint")  # fmt: skip
    accumulated = (*TRAIN, "--trainer.accumulate_grad_batches", "2")
    yield Fault("signal", "SIGTERM, two batches a step", accumulated, 143, "after step 4; to go", after="goes on",
                environment={"FAULT": f"signal={SIGTERM:d}@4"})  # fmt: skip
    yield Fault("signal", "SIGUSR1 before the time limit of SLURM", TRAIN, 138, "requeued 8[\\s\\S]*after step 13",
                _scontrol, environment=_JOB | {"FAULT": f"signal={SIGUSR1:d}@13"}, again=_AGAIN_JOB)  # fmt: skip
    yield Fault("signal", "SIGUSR1, and no scontrol", TRAIN, 138, "not queued again[\\s\\S]*after step 3",
                environment=_JOB | {"FAULT": f"signal={SIGUSR1:d}@3"}, again=_AGAIN_JOB)  # fmt: skip


def kills() -> Iterator[Fault]:
    """Kill -9 in an optimiser step, then resumed: weights and curves as of an undisturbed run, to the last bit."""

    def kill(words: tuple[str, ...], step: int, what: str, ranks: int = 1, again: tuple[str, ...] = RESUME) -> Fault:
        return Fault(
            "kill", f"kill -9 in step {step}: {what}", words, 137 if ranks == 1 else 1, "", after="goes on",
            environment={"FAULT": f"signal={SIGKILL:d}@{step}"}, ranks=ranks, again=again,
            lost=f"{(step - 1) % 3 + 1} steps since the last checkpoint",
        )  # fmt: skip

    for number, strategy in enumerate(_STRATEGIES):
        for step in (4 + number, 12 + number):
            yield kill((*TRAIN, "--strategy", strategy), step, strategy)
    yield kill((*TRAIN, *_STREAM), 8, "streamed")
    yield kill((*TRAIN, *_STREAM, "--strategy", "ot", "--data.num_workers", "1"), 14, "streamed, by a worker")
    yield kill((*TRAIN, "--config", "{mixture}"), 9, "two languages")
    yield kill((*TRAIN, "--student", "static"), 11, "a static student")
    yield kill((*TRAIN, "--trainer.accumulate_grad_batches", "2"), 5, "two batches a step")
    yield kill((*TRAIN, "--model.space", "whitened"), 6, "whitened space")
    yield kill((*TRAIN, "--student.vocabulary", "extend"), 6, "extended vocabulary")
    for strategy in ("contrastive", "ot_contrastive"):
        words = (*TRAIN, *_DDP, "--strategy", strategy)
        yield kill(words, 7, f"2 ranks, {strategy}", ranks=2, again=(*RESUME, *_DDP))


def places() -> Iterator[Fault]:
    """What the file system does: full, read-only, gone."""
    yield Fault("place", "disk full from step 7 on", TRAIN, 1, "No space left on device, after step 9; to go on",
                after="goes on", environment={"FAULT": "enospc@7"}, lost="3 steps")  # fmt: skip
    yield Fault("place", "disk full before the first checkpoint", TRAIN, 1, "No space left on device, after step 3",
                environment={"FAULT": "enospc@1"}, after="goes on", lost="3 steps")  # fmt: skip
    yield Fault("place", "files may grow to 64 kB", TRAIN, 1, "File too large|cannot be written",
                environment={"FAULT": "run=prlimit --fsize=65536 --pid $PPID@2"}, after="goes on",
                lost="3 steps")  # fmt: skip
    yield Fault("place", "run folder removed in step 7", TRAIN, (0, 1), "", environment={"FAULT": "remove={out}/k@7"},
                lost="what was removed")  # fmt: skip
    yield Fault("place", "data removed in step 7", (*TRAIN, "--data.root", "{data}"), 0, "distilled student",
                environment={"FAULT": "remove={data}@7"})  # fmt: skip
    yield Fault("place", "streamed data removed in step 7", (*TRAIN, *_STREAM, "--data.root", "{data}"), (1, 2),
                r"tsv: (no such file|No such file)", environment={"FAULT": "remove={data}@7"}, after="sound",
                lost="at most 3 steps")  # fmt: skip
    yield Fault("place", "the teacher's model removed in step 7",
                (*TRAIN, "--model.teacher.model", "{here}/bert"), 0, "distilled student",
                lambda scene: shutil.copytree(scene.place.folder / "models" / "bert", scene.folder / "bert"),
                environment={"FAULT": "remove={here}/bert@7"})  # fmt: skip
    yield Fault("place", "output is a read-only file system", (*TRAIN[:-4], "--output", "/proc/runs"), 2,
                "cannot be (written|made)|output is")  # fmt: skip
    yield Fault("place", "output is a file", (*TRAIN, "--output", "{here}/file"), 2, "is a file, expected a folder",
                lambda scene: scene.write("file", "text"), after="no run")  # fmt: skip
    yield Fault(
        "place", "the run folder is a file", TRAIN, 0, "run folder .*k-2", lambda scene: scene.write("out/k", "x")
    )
    yield Fault("place", "stdout is closed early", TRAIN, (0, 1), "")


def processes() -> Iterator[Fault]:
    """Runs beside each other, and services that fail."""
    yield Fault("two at once", "--resume of a live run", RESUME, 2, "another process is at this run", _live, run="cut")
    yield Fault("two at once", "a run of the same name", TRAIN, 0, "run folder .*k-2", _live, run="cut")
    yield Fault("two at once", "--resume auto beside a live run", (*TRAIN, "--resume", "auto"), 0, "run folder .*k-2",
                _live, run="cut")  # fmt: skip
    yield Fault("two at once", "the same SLURM job twice", TRAIN, 0, "run folder .*k-8-2", _live_job, environment=_JOB)
    wandb = (*TRAIN, "--logger", "wandb")
    online, offline = {"WANDB_MODE": "online", "WANDB_API_KEY": "0" * 40}, "W&B is offline in this run[\\s\\S]*student"
    yield Fault("W&B", "nobody listens at its address", wandb, 0, offline, after="same results",
                environment=online | {"WANDB_BASE_URL": "http://127.0.0.1:9"}, seconds=100)  # fmt: skip
    yield Fault("W&B", "its server never answers", wandb, 0, offline,
                _silent_server, after="same results", seconds=100,
                environment=online | {"WANDB_BASE_URL": "http://127.0.0.1:8911"})  # fmt: skip
    service = "run=kill -9 $(pgrep -s 0 -f wandb-core)@7"
    yield Fault("W&B", "its service is killed in step 7", (*wandb, "--trainer.log_every_n_steps", "1"), 0,
                "logger wandb ends here, the run goes on[\\s\\S]*distilled student",
                after="same results", environment={"FAULT": service}, seconds=100)  # fmt: skip
    service = "run=kill -STOP $(pgrep -s 0 -f wandb-core)@7"
    yield Fault("W&B", "its service hangs from step 7 on", wandb, 0, "distilled student", after="same results",
                environment={"FAULT": service}, seconds=150)  # fmt: skip
    yield Fault("W&B", "a key that is none", wandb, (0, 2), "W&B|api_key|API key",
                environment={"WANDB_MODE": "online", "WANDB_API_KEY": "x"})  # fmt: skip
    yield Fault("loggers", "CSV: its folder is removed in step 7",
                (*TRAIN, "--logger", "csv", "--trainer.log_every_n_steps", "1"), 0, "distilled student",
                environment={"FAULT": "remove={out}/k/csv@7"}, after="same results")  # fmt: skip


def _scontrol(scene: Scene) -> None:
    scene.write("bin/scontrol", '#!/bin/sh\necho "$1"d $2\n').chmod(0o755)


def _live(scene: Scene) -> None:
    _start(scene, RESUME, {})


def _live_job(scene: Scene) -> None:
    _start(scene, TRAIN, {name: value for name, value in _JOB.items() if name != "PATH"})


def _start(scene: Scene, words: tuple[str, ...], environment: dict[str, str]) -> None:
    """Start a slow run in the scene, and wait until it has its folder."""
    scene.processes.append(scene.place.start(scene.words(words), scene.folder, environment | {"SLOW": "5"}))
    deadline = time.monotonic() + 60
    before = {path.name for path in scene.out.glob("*/.run.lock")}
    while time.monotonic() < deadline and scene.processes[0].poll() is None:
        locks = list(scene.out.glob("*/.run.lock"))
        if locks and (not before or time.monotonic() > deadline - 45):
            return
        time.sleep(0.2)


def _silent_server(scene: Scene) -> None:  # noqa: ARG001
    """A server that takes connections, and says nothing; it lives as long as this process."""
    server = socket.socket()
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    server.bind(("127.0.0.1", 8911))
    server.listen(64)
    _SERVERS.append(server)


_SERVERS: list[socket.socket] = []
MATRIX = (signals, kills, places, processes)
