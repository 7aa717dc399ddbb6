"""What train.py does: fit, then test with the best checkpoint."""

from __future__ import annotations

import sys

from lightning_modules.cli.front_door import parse
from lightning_modules.cli.help import completion_script, short_help
from lightning_modules.models.trust import trusting


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
    from lightning_modules.models.files import read_weights
    from lightning_modules.run.results import print_results

    with trusting(parsed.trust):
        cli = PotstillCLI(parsed)
    if cli.is_finished:
        print(f"{cli.folder}: this run is finished, there is nothing to resume", file=sys.stderr)
    else:
        if cli.start_checkpoint is not None:
            read_weights(cli.start_checkpoint)  # a damaged one is an error before the run folder is written to
        elif parsed.resume is not None:
            print(f"{cli.folder}: no checkpoint was written yet, so the run starts again", file=sys.stderr)
        cli.trainer.fit(cli.model, datamodule=cli.datamodule, ckpt_path=cli.start_checkpoint, weights_only=True)
        best = cli.best_checkpoint
        cli.trainer.test(cli.model, datamodule=cli.datamodule, ckpt_path=best, weights_only=True, verbose=False)
    if cli.trainer.is_global_zero:
        print_results(cli.folder)
