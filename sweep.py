#!/usr/bin/env python3
"""Run strategies x noise x languages x seeds: each cell of a grid as a run of train.py, several at once.

python sweep.py --config configs/sweeps/noise.yaml
python sweep.py --config configs/sweeps/noise.yaml --only language=sw --dry_run
python sweep.py --config configs/sweeps/flickr30k.yaml --slurm --partition gpu --gpus 1 --minutes 240
"""

from __future__ import annotations

from foundations.commands import run_main
from studies.sweep import sweep


def main() -> None:
    """Entry point."""
    run_main("sweep.py", sweep)


if __name__ == "__main__":
    main()
