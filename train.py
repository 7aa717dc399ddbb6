"""Distil a teacher into a student: fit, then test with the best checkpoint.

python train.py --strategy ot --data starter --data.language sw
python train.py --strategy mse --data tsv --data.root my_language/
python train.py --resume runs/starter-sw-ot-seed0
torchrun --nproc_per_node 4 train.py --strategy contrastive --trainer.devices 4
"""

from __future__ import annotations

from lightning_modules.front_door import parse, run_main
from lightning_modules.help import short_help


def train(arguments: list[str]) -> None:
    """Train with the given command line arguments."""
    if any(argument in ("-h", "--help") for argument in arguments):
        print(short_help())
        return
    parsed = parse(arguments)
    from lightning_modules.cli import PotstillCLI
    from lightning_modules.report import print_results

    cli = PotstillCLI(parsed)
    resume_from = cli.last_checkpoint if parsed.resume is not None else None
    cli.trainer.fit(cli.model, datamodule=cli.datamodule, ckpt_path=resume_from, weights_only=True)
    cli.trainer.test(
        cli.model, datamodule=cli.datamodule, ckpt_path=cli.best_checkpoint, weights_only=True, verbose=False
    )
    if cli.trainer.is_global_zero:
        print_results(cli.folder)


def main() -> None:
    """Entry point."""
    run_main("train.py", train)


if __name__ == "__main__":
    main()
