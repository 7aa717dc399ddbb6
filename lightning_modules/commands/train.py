"""What train.py does: fit, then test with the best checkpoint."""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from foundations.errors import InputError, StoppedError
from lightning_modules.cli.front_door import parse
from lightning_modules.cli.help import completion_script, short_help
from lightning_modules.models.trust import read_run_config, trusting

if TYPE_CHECKING:
    from lightning_modules.cli.cli import PotstillCLI
    from lightning_modules.run.signals import EndOnSignal


def train(arguments: list[str]) -> None:
    """Train, or go on with a run, by the arguments of the command line; a signal ends it after a step."""
    if any(argument in ("-h", "--help") for argument in arguments):
        print(short_help())
        return
    from lightning_modules.run.signals import EndOnSignal

    signals = EndOnSignal()
    with signals.handling():
        fit_and_test(arguments, signals)


def fit_and_test(arguments: list[str], signals: EndOnSignal | None = None) -> None:
    """As `train`; without ``signals``, those that this process handles by itself.

    Raises:
        StoppedError: a value was not finite, a file could not be written, or a signal came.
    """
    parsed = parse(arguments)
    if parsed.completion is not None:
        print(completion_script(parsed.completion))
        return
    from lightning_modules.cli.cli import PotstillCLI
    from lightning_modules.run.signals import Ended, requeue

    cli = None
    try:
        with trusting(parsed.trust):
            cli = PotstillCLI(parsed, signals=signals)
        _train(cli)
    except Ended as end:
        if cli is not None and not cli.trainer.is_global_zero:
            sys.exit(end.status)
        if end.number == signal.SIGUSR1:
            requeue()
        why = "interrupted" if end.number == signal.SIGINT else signal.Signals(end.number).name
        raise StoppedError(f"{why} {_where(cli)}", end.status) from end
    finally:
        if cli is not None:
            cli.close()


def _where(cli: PotstillCLI | None) -> str:
    """The step that a run came to, and how to go on."""
    if cli is None or not (cli.folder / "config.yaml").is_file():
        return "before the run began"
    try:
        read_run_config(cli.folder)
        trust = ""
    except InputError:
        trust = " --trust"
    return f"after step {cli.trainer.global_step}; to go on: {Path(sys.argv[0]).name} --resume {cli.folder}{trust}"


def _train(cli: PotstillCLI) -> None:
    from lightning_modules.run.results import print_results
    from lightning_modules.run.start import furthest
    from lightning_modules.step_values import NotFiniteError

    if cli.beginning is not None and cli.trainer.is_global_zero:
        print(f"{cli.folder}: {cli.beginning}", file=sys.stderr)
    try:
        if not cli.is_finished:
            start = cli.start.checkpoint if cli.start else None
            cli.trainer.fit(cli.model, datamodule=cli.datamodule, ckpt_path=start, weights_only=True)
            best = cli.best_checkpoint
            cli.trainer.test(cli.model, datamodule=cli.datamodule, ckpt_path=best, weights_only=True, verbose=False)
        if cli.trainer.is_global_zero:
            print_results(cli.folder)
    except NotFiniteError as error:
        last = furthest(cli.folder, None)[:2]
        after = f"the last checkpoint is {last[0]} at step {last[1]}; go on from it with" if last[0] else "start with"
        raise StoppedError(f"{error}\n{after} a lower --model.lr, or without these pairs") from error
    except BrokenPipeError:
        raise
    except OSError as error:
        raise StoppedError(f"{error.filename or cli.folder}: {error.strerror or error}, {_where(cli)}") from error
