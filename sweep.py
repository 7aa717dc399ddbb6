#!/usr/bin/env python3
"""Run strategies x noise x languages x seeds: each cell of a grid as a run of train.py, several at once.

python sweep.py --config configs/sweeps/noise.yaml
python sweep.py --config configs/sweeps/noise.yaml --only language=sw --dry_run
python sweep.py --config configs/sweeps/flickr30k.yaml --slurm --partition gpu --gpus 1 --minutes 240
"""

from __future__ import annotations

import sys

from foundations.commands import Parser, run_main
from train import train

DESCRIPTION = "Run the cells of a sweep that are not finished yet; each is a run folder of train.py."


def sweep(arguments: list[str]) -> int:
    """Run with the given command line arguments; give the exit status."""
    parser = Parser(prog="sweep.py", description=DESCRIPTION)
    parser.add_argument("--config", nargs="+", required=True, help="sweep files in W&B's format; see configs/sweeps")
    parser.add_argument("--output", help="folder of the run folders (default: runs/NAME of the sweep file)")
    parser.add_argument("--workers", type=int, help="cells at once, of one thread each (default: the cores, at most 8)")
    parser.add_argument("--only", nargs="+", default=[], metavar="KEY=VALUE", help="e.g. language=sw,so rate=0.4")
    parser.add_argument("--dry_run", action="store_true", help="show the cells and what is done, and run nothing")
    parser.add_argument("--wandb", action="store_true", help="log the runs to W&B, as one group")
    parser.add_argument("--slurm", action="store_true", help="submit the cells as one array of jobs, and return")
    parser.add_argument("--partition", help="SLURM: partition")
    parser.add_argument("--minutes", type=int, default=120, help="SLURM: time limit of a task (default: 120)")
    parser.add_argument("--gpus", type=int, default=0, help="SLURM: GPUs of a task (default: 0)")
    parser.add_argument("--cpus", type=int, default=2, help="SLURM: cores of a task (default: 2)")
    parser.add_argument("--tasks", type=int, help="SLURM: tasks that share the cells (default: one a cell)")
    parser.add_argument("--parallel", type=int, default=16, help="SLURM: tasks at once (default: 16)")
    parser.add_argument(
        "--cluster", choices=["slurm", "local", "debug"], default="slurm", help="SLURM: or a trial of it"
    )
    options = parser.parse_args(arguments)
    from studies.sweep import run_sweep

    return run_sweep(options, train)


def main() -> None:
    """Entry point."""
    run_main("sweep.py", lambda arguments: sys.exit(sweep(arguments)))


if __name__ == "__main__":
    main()
