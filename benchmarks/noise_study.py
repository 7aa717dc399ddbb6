"""The page of the noise study: tables, tests and curves of `report.py` on finished runs.

python sweep.py --config configs/sweeps/noise.yaml
python -m benchmarks.noise_study runs/noise
"""

from __future__ import annotations

import argparse
import csv
import json
import platform
import shutil
import tempfile
from collections import defaultdict
from pathlib import Path

from benchmarks.pages import replace_section
from retrieval.results import AVERAGE
from studies.report import QUESTION, write_report

PAGE = Path(__file__).parent.parent / "docs" / "noise_study.md"
IMAGES = PAGE.parent / "images"
COMMAND = "python -m benchmarks.noise_study"
TITLES = ("Wrong correspondence", "Test-time text noise", "Test-time image noise", "Detected noise")
FIGURES = {
    "training-correspondence-caption": "Curves by the rate of wrong pairs",
    "test-text": "Curves by the severity of text noise in the test",
    "test-image": "Curves by the severity of image noise in the test",
}


def chosen_tables(markdown: str) -> dict[str, str]:
    """The tables of the page by the beginning of their titles.

    Args:
        markdown: all tables, each under its title in bold.
    """
    parts = [part for part in markdown.split("\n**") if part.strip()]
    tables = {}
    for title in TITLES:
        for part in parts:
            if part.removeprefix("**").startswith(title):
                tables[title] = "**" + part.removeprefix("**").strip()
    return tables


def differences(rows: list[dict[str, str]], level: float) -> list[str]:
    """Which strategies differ at a rate of wrong pairs, over the average of the languages, one line a winner.

    Args:
        rows: of significance.csv.
        level: the rate; 0 is clean.
    """
    beaten: dict[str, list[str]] = defaultdict(list)
    for row in rows:
        is_asked = row["stage"] == "training" and row["language"] == AVERAGE
        if is_asked and float(row["level"]) == level and float(row["p_holm"]) < 0.05:
            pair = (row["first"], row["second"])
            better, worse = pair if float(row["difference"]) > 0 else pair[::-1]
            beaten[better].append(f"`{worse}`")
    return [f"`{better}` is ahead of {', '.join(sorted(worse))}" for better, worse in sorted(beaten.items())]


def section(report: Path, runs: Path) -> str:
    """What is written into the page."""
    tables = chosen_tables((report / "tables" / "tables.md").read_text(encoding="utf-8"))
    with (report / "significance.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    levels = sorted({float(row["level"]) for row in rows if row["stage"] == "training"})
    tests = [
        f"- rate {level:g}: {'; '.join(differences(rows, level)) or 'no strategy is ahead of another'}"
        for level in levels
    ]
    environment = json.loads(next(iter(sorted(runs.glob("*/environment.json")))).read_text(encoding="utf-8"))
    versions = ", ".join(f"{name} {environment['versions'][name]}" for name in ("torch", "lightning", "transformers"))
    curves = {stem: f"![{words}](images/noise_{stem}.png)" for stem, words in FIGURES.items()}
    found = tables.get("Detected noise")
    parts = [
        tables["Wrong correspondence"],
        curves["training-correspondence-caption"],
        "Significant differences (paired t-test over queries on values averaged over seeds, average of the languages, "
        "Holm-corrected, p < .05):\n\n" + "\n".join(tests),
        *([found] if found else []),
        tables["Test-time text noise"],
        curves["test-text"],
        tables["Test-time image noise"],
        curves["test-image"],
        f"{len(list(runs.glob('*/metrics.json')))} runs; {versions}, Python {platform.python_version()}.",
    ]
    return "\n\n".join(parts)


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, help="folder of the finished runs, such as runs/noise")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        report = write_report([str(options.runs)], folder, None, "The noise study", QUESTION, "").parent
        text = section(report, options.runs)
        for stem in FIGURES:
            shutil.copyfile(report / "figures" / f"{stem}.png", IMAGES / f"noise_{stem}.png")
    replace_section(PAGE, COMMAND, text)
    print(PAGE)


if __name__ == "__main__":
    main()
