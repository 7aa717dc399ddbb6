"""What train.py does: fit, then test with the best checkpoint."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from foundations.errors import StoppedError
from lightning_modules.cli.front_door import parse
from lightning_modules.cli.help import completion_script, short_help
from lightning_modules.models.trust import trusting

if TYPE_CHECKING:
    from lightning_modules.cli.cli import PotstillCLI


def train(arguments: list[str]) -> None:
    """Train, or go on with a run, by the arguments of the command line."""
    if any(argument in ("-h", "--help") for argument in arguments):
        print(short_help())
        return
    parsed = parse(arguments)
    if parsed.completion is not None:
        print(completion_script(parsed.completion))
        return
    from lightning_modules.cli.cli import PotstillCLI
    from lightning_modules.run.start import furthest
    from lightning_modules.step_values import NotFiniteError

    with trusting(parsed.trust):
        cli = PotstillCLI(parsed)
    try:
        _train(cli)
    except NotFiniteError as error:
        last = furthest(cli.folder, None)[:2]
        after = f"the last checkpoint is {last[0]} at step {last[1]}; go on from it with" if last[0] else "start with"
        raise StoppedError(f"{error}\n{after} a lower --model.lr, or without these pairs") from error
    finally:
        cli.close()


def _train(cli: PotstillCLI) -> None:
    from lightning_modules.run.results import print_results

    if cli.beginning is not None and cli.trainer.is_global_zero:
        print(f"{cli.folder}: {cli.beginning}", file=sys.stderr)
    if not cli.is_finished:
        start = cli.start.checkpoint if cli.start else None
        cli.trainer.fit(cli.model, datamodule=cli.datamodule, ckpt_path=start, weights_only=True)
        best = cli.best_checkpoint
        cli.trainer.test(cli.model, datamodule=cli.datamodule, ckpt_path=best, weights_only=True, verbose=False)
    if cli.trainer.is_global_zero:
        print_results(cli.folder)
