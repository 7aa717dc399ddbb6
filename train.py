#!/usr/bin/env python3
"""Distil a teacher into a student: fit, then test with the best checkpoint.

python train.py --strategy ot --data starter --data.language sw
python train.py --strategy mse --data tsv --data.root my_language/
python train.py --resume runs/starter-sw-ot-seed0
torchrun --nproc_per_node 4 train.py --strategy contrastive --trainer.devices 4
"""

from __future__ import annotations

from foundations.commands import run_main
from lightning_modules.commands.train import train


def main() -> None:
    """Entry point."""
    run_main("train.py", train)


if __name__ == "__main__":
    main()
