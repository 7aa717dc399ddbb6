"""Training on one GPU: pairs a second, memory, and where the time goes, for precisions, strategies and launchers.

python -m benchmarks.hardware [--json FILE] [--write-docs]      # a few minutes
python -m benchmarks.hardware --render FILE                     # docs from what --results wrote elsewhere

The second epoch is timed. Students have random weights; the teacher's vectors and token states come from its cache.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.pages import add_output_options, machine, replace_section, versions, write_results
from foundations.files import read_json, write_json

PAGE = Path(__file__).parent.parent / "docs" / "benchmarks.md"
COMMAND = "python -m benchmarks.hardware"
STEPS = 20
Cell = dict[str, Any]
BASE: Cell = {"model": "small", "batch": 256, "strategy": "ot", "precision": "bf16-mixed", "launch": "auto"}
GROUPS: list[list[Cell]] = [
    [
        BASE | {"model": model, "batch": batch, "strategy": strategy, "precision": precision}
        for model, batch in (("small", 64), ("small", 256), ("base", 256))
        for strategy, precision in (
            ("mse", "32-true"), ("mse", "bf16-mixed"), ("ot", "bf16-mixed"), ("contrastive", "bf16-mixed"),
        )
    ],
    [BASE | {"launch": "ddp"}],
    [BASE | {"launch": "fsdp"}],
]  # fmt: skip
"""Cells that run in one process, one group after the other: launchers leave things behind."""
LIMIT = 150
"""Seconds that a group may take; what it had not measured by then is missing."""
NAMES = {"small": "12 x 384", "base": "12 x 768, 250,002 rows"}


def measure(inputs: Path, group: list[Cell], limit: float = LIMIT) -> list[dict[str, Any]]:
    """The cells of a group with what was measured; what fails is reported and left out.

    Args:
        inputs: folder that `prepare` wrote.
        group: cells.
        limit: seconds for all of them.
    """
    cells = json.dumps([cell | {"inputs": str(inputs), "steps": STEPS} for cell in group])
    command = [sys.executable, "-m", "benchmarks.hardware_side", cells]
    with tempfile.TemporaryFile("w+") as output, tempfile.TemporaryFile("w+") as errors:
        environment = os.environ | {"WANDB_MODE": "disabled"}
        process = subprocess.Popen(command, stdout=output, stderr=errors, env=environment)
        try:
            failed = process.wait(limit)
        except subprocess.TimeoutExpired:
            process.kill()
            failed = process.wait()
        for stream in (output, errors):
            stream.seek(0)
        if failed:
            print(f"stopped with {failed}: {group}\n{errors.read()[-2000:]}", file=sys.stderr)
        rows = [json.loads(line.removeprefix("cell ")) for line in output if line.startswith("cell ")]
    for row in rows:
        print(summary(row), file=sys.stderr, flush=True)
    return rows


def prepare(folder: Path) -> None:
    """Write texts and models where there are none."""
    from benchmarks import training, training_inputs

    if not (folder / "data").is_dir():
        training_inputs.prepare(folder, training.FULL)
    if not (folder / "long").is_dir():
        pairs = STEPS * max(cell["batch"] for group in GROUPS for cell in group)
        training_inputs.prepare_long(folder, pairs)


def summary(row: dict[str, Any]) -> str:
    """A measured cell in words."""
    name = f"{NAMES[row['model']]}, batch {row['batch']}, `{row['strategy']}`, {row['precision']}, {row['launch']}"
    speed, busy = row["batch"] / row["step"], row["busy"] / row["step"]
    return f"{name}: {speed:.0f} pairs/s, device busy {busy:.0%}, {row['waits']:g} waits a step"


def figures(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One row a figure; there is no peer."""
    result = []
    for row in rows:
        name = summary(row).partition(":")[0].replace("`", "")
        for figure, value, unit in (
            ("throughput", row["batch"] / row["step"], "pairs/s"),
            ("peak memory", row["memory"] / 2**30, "GiB"),
            ("device busy", row["busy"] / row["step"], "share"),
        ):
            result.append({"name": f"{name}: {figure}", "ours": value, "peer": None, "ratio": None, "unit": unit})
    return result


def markdown(rows: list[dict[str, Any]], about: str) -> str:
    """The section of the page."""
    head = [
        "| student | batch | strategy | precision | launcher | pairs/s | steps/s | peak GiB | device busy | waits |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    lines = []
    for row in rows:
        launcher = {"auto": "single"}.get(row["launch"], row["launch"].upper())
        speed = f"{row['batch'] / row['step']:.0f} | {1 / row['step']:.1f} | {row['memory'] / 2**30:.1f}"
        state = f"{min(1.0, row['busy'] / row['step']):.0%} | {row['waits']:g}"
        cell = f"{NAMES[row['model']]} | {row['batch']} | `{row['strategy']}` | {row['precision']} | {launcher}"
        lines.append(f"| {cell} | {speed} | {state} |")
    parts = ["", "Where the host's time goes, milliseconds a step:", ""]
    phases = list(rows[0]["phases"])
    parts += [f"| student | batch | strategy | precision | launcher | step | {' | '.join(phases)} | trainer |"]
    parts += ["|---|---|---|---|---|---|" + "---|" * (len(phases) + 1)]
    for row, line in zip(rows, lines, strict=True):
        spent = [row["phases"][phase] for phase in phases]
        values = " | ".join(f"{1e3 * value:.1f}" for value in (row["step"], *spent, row["step"] - sum(spent)))
        parts.append(f"|{'|'.join(line.split('|')[1:6])}| {values} |")
    return "\n".join([*head, *lines, *parts, "", about])


def describe() -> str:
    """The paragraph below the tables."""
    used = versions("torch", "transformers", "lightning", "triton")
    return (
        f"{machine()}. `train.py`, {STEPS} steps after an epoch of {STEPS} steps of warm-up, the same texts again; "
        "target texts of up to 128 tokens, random lengths, batches of similar length; students with random weights; "
        "teacher: MiniLM from its cache. One device for DDP (NCCL) and FSDP too: their figures say what they cost, not "
        "how they scale. Device busy: time in kernels and copies, from a profile of a few later steps, over the time "
        f"of a step without profile. Waits: times that the host waits for the device in a step. {used}."
    )


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", help="folder of texts and models, written where there is none")
    add_output_options(parser, PAGE)
    options = parser.parse_args()
    if options.render:
        record = read_json(options.render)
        replace_section(PAGE, COMMAND, markdown(record["rows"], record["about"]))
        return
    import torch

    if not torch.cuda.is_available():
        sys.exit("benchmarks.hardware needs a CUDA GPU")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(options.inputs or temporary).resolve()
        prepare(folder)
        rows, about = [], describe()
        for group in GROUPS:
            rows += measure(folder, group)
            if options.results:  # after each group, so that a failure costs one group
                write_json(options.results, {"about": about, "rows": rows})
    write_results(options, figures(rows), {"about": about, "rows": rows}, markdown(rows, about), PAGE, COMMAND)


if __name__ == "__main__":
    main()
