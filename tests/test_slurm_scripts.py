"""The sbatch files of configs/slurm, as SLURM would run them: with a fake srun, and the variables of a job."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SCRIPTS = sorted((ROOT / "configs" / "slurm").glob("*.sbatch"))
SRUN = """\
#!{python}
import os, subprocess, sys
nodes, each = int(os.environ["SLURM_JOB_NUM_NODES"]), int(os.environ["SLURM_NTASKS_PER_NODE"])
ranks = [
    subprocess.Popen(sys.argv[1:], env=os.environ | {{
        "SLURM_PROCID": str(rank), "SLURM_NODEID": str(rank // each), "SLURM_LOCALID": str(rank % each),
        "SLURM_NTASKS": str(nodes * each),
    }})
    for rank in range(nodes * each)
]
sys.exit(max(rank.wait() for rank in ranks))
"""


def directives(path: Path) -> dict[str, str]:
    """The options of sbatch in the head of a script."""
    return dict(re.findall(r"^#SBATCH --([\w-]+)=?(\S*)$", path.read_text(), flags=re.MULTILINE))


def sbatch(path: Path, *words: object, folder: Path, **given: str) -> subprocess.CompletedProcess[str]:
    """Run a script as the job 7; ``given`` takes the place of its directives."""
    options = directives(path) | {key.replace("_", "-"): value for key, value in given.items()}
    fake = folder / "bin" / "srun"
    fake.parent.mkdir(exist_ok=True)
    fake.write_text(SRUN.format(python=sys.executable))
    fake.chmod(0o755)
    hardware = folder / "hardware.yaml"
    strategy = "ddp" if options.get("nodes", "1") != "1" else "auto"
    hardware.write_text(f"trainer: {{accelerator: cpu, strategy: {strategy}}}\n")
    variables = {
        "PATH": f"{fake.parent}:{os.environ['PATH']}", "PYTHON": sys.executable, "HARDWARE": str(hardware),
        "OMP_NUM_THREADS": "1", "SLURM_JOB_ID": "7", "SLURM_JOB_NAME": options["job-name"],
        "SLURM_JOB_NUM_NODES": options.get("nodes", "1"), "SLURM_NTASKS": options.get("ntasks", "1"),
        "SLURM_NTASKS_PER_NODE": options.get("ntasks-per-node", "1"), "SLURM_JOB_NODELIST": "127.0.0.1",
        "SLURM_NODELIST": "127.0.0.1", "SLURM_CPUS_PER_TASK": "1", "MASTER_ADDR": "127.0.0.1",
    }  # fmt: skip
    command = ["bash", str(path), *map(str, words)]
    return subprocess.run(
        command, cwd=ROOT, env=os.environ | variables, capture_output=True, text=True, check=False, timeout=600
    )


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_jobs_may_be_queued_again(path: Path) -> None:
    options = directives(path)
    assert "requeue" in options
    assert options["open-mode"] == "append"  # the log of the first start is kept
    if path.stem != "sweep":
        assert options["signal"] == "SIGUSR1@120"
        assert options["ntasks-per-node"] == options["gpus-per-node"]  # a process for each GPU
    assert subprocess.run(["bash", "-n", path], check=False).returncode == 0


@pytest.mark.slow
@pytest.mark.parametrize("name", ["train", "multi_node"])
def test_a_job_trains_and_goes_on_when_it_is_queued_again(name: str, tiny_config: Path, tmp_path: Path) -> None:
    path = ROOT / "configs" / "slurm" / f"{name}.sbatch"
    words = ["--config", tiny_config, "--strategy", "contrastive", "--logger", "none", "--output", tmp_path / "runs",
             "--name", "job"]  # fmt: skip
    given = {"nodes": "2", "ntasks_per_node": "1"} if name == "multi_node" else {}
    done = sbatch(path, *words, folder=tmp_path, **given)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("test queries, mean") == 1, "one table, whatever the number of processes"
    run = tmp_path / "runs" / "job-7"
    (run / "metrics.json").unlink()  # as if it had been cut off before its test
    done = sbatch(path, *words, folder=tmp_path, **given)
    assert done.returncode == 0, done.stderr
    assert f"{run}: goes on" in done.stderr
    assert (run / "metrics.json").is_file()
    assert [each.name for each in run.parent.iterdir()] == ["job-7"]


@pytest.mark.slow
def test_the_tasks_of_an_array_share_the_cells(tiny_config: Path, tmp_path: Path) -> None:
    sweep = tmp_path / "small.yaml"
    sweep.write_text(
        "name: small\nprogram: train.py\nmethod: grid\nmetric: {name: dev/map, goal: maximize}\n"
        f"parameters:\n  config: {{values: [{tiny_config}]}}\n  seed_everything: {{values: [0, 1]}}\n"
    )
    words = ["--config", sweep, "--output", tmp_path / "runs"]
    done = sbatch(ROOT / "configs" / "slurm" / "sweep.sbatch", *words, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "2 finished" in done.stdout
    done = sbatch(ROOT / "configs" / "slurm" / "sweep.sbatch", *words, folder=tmp_path)
    assert "2 finished, 0 to run" in done.stdout
