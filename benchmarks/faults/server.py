"""Forks processes that run a script: so not every one imports the libraries again, which takes longer than a fault.

A line of JSON on stdin says what to run: words, cwd, environment, the file for the output, and seconds; a line on
stdout gives the exit status, as of a shell, or 999 where it took too long and was killed. A forked process is one of
its own, with its own session, signals and exit; what it prints goes to the file.
"""

from __future__ import annotations

import json
import os
import runpy
import signal
import sys
import time
from importlib import import_module
from pathlib import Path
from typing import Any

_IMPORTED = ("lightning_modules.cli.cli", "lightning_modules.commands.train", "lightning_modules.commands.evaluate",
             "lightning_modules.students.transformer", "lightning_modules.teachers.online", "datamodules.tsv",
             "studies.report",
             "transformers.models.bert.modeling_bert", "strategies.ot_contrastive", "strategies.mse", "wandb",
             "torch.optim.adamw", "lightning_modules.students.static", "torch._dynamo")  # fmt: skip


def serve() -> dict[str, Any]:
    """Answer requests to the end of stdin; in a forked process, give the request."""
    for line in sys.stdin:
        request: dict[str, Any] = json.loads(line)
        if (child := os.fork()) == 0:
            return request
        print(_wait(child, request["seconds"]), flush=True)
    raise SystemExit


def _wait(child: int, seconds: float) -> int:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            code = os.waitstatus_to_exitcode(status)
            return code if code >= 0 else 128 - code
        time.sleep(0.02)
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return 999


def run(request: dict[str, Any]) -> None:
    """Become the process of a request."""
    os.setsid()
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["environment"])
    time.tzset()
    output = os.open(request["output"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for number, mode in ((0, os.O_RDONLY), (1, 0), (2, 0)):
        os.dup2(os.open(os.devnull, mode) if number == 0 else output, number)
    sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", encoding="utf-8", buffering=1, closefd=False)  # noqa: SIM115
    sys.argv = request["words"]
    runpy.run_path(str(Path(__file__).parent / "inject" / "sitecustomize.py"))
    runpy.run_path(sys.argv[0], run_name="__main__")


if __name__ == "__main__":
    for name in _IMPORTED:
        import_module(name)
    run(serve())
