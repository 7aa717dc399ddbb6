"""What benchmarks share: parts in processes of their own, results in files, and sections of the docs."""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from foundations.files import write_json, write_whole

README = Path(__file__).parent.parent / "README.md"
END = "<!-- end -->"


def run_module(name: str, module: str, *arguments: str, environment: Mapping[str, str]) -> dict[str, Any]:
    """Run a module in a process of its own; the last line that it prints is its result in JSON.

    Raises:
        SystemExit: it failed; the message has the name.
    """
    command = [sys.executable, "-m", module, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | dict(environment))
    if done.returncode:
        sys.exit(f"{name} failed:\n{done.stderr[-3000:]}")
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def add_output_options(parser: argparse.ArgumentParser, page: Path) -> None:
    """Add the options of `write_results`, and ``--render``."""
    parser.add_argument("--json", type=Path, help="write one row a figure to this file")
    parser.add_argument("--results", type=Path, help="write all that the docs need to this file, for --render")
    parser.add_argument("--render", type=Path, help="write the docs from such a file, and stop")
    parser.add_argument("--write-docs", action="store_true", help=f"put the tables into {page.name}")


def write_results(
    options: argparse.Namespace, rows: list[dict[str, Any]], record: dict[str, Any], text: str, page: Path, command: str
) -> None:
    """Print the section of the docs, and write rows, record and section where the options ask for them."""
    print(text)
    if options.json:
        write_json(options.json, rows)
    if options.results:
        write_json(options.results, record)
    if options.write_docs:
        replace_section(page, command, text)


def versions(*packages: str) -> str:
    """The versions of packages, for the line below a table."""
    return ", ".join(f"{package} {_version(package)}" for package in packages)


def machine() -> str:
    """What the figures were measured on: the GPU, or the processor's kind and the number of threads; and Python's."""
    import torch

    gpu = torch.cuda.is_available()
    threads = f"{platform.machine()}, {os.environ.get('OMP_NUM_THREADS', 'all')} thread(s)"
    return f"{f'One {torch.cuda.get_device_name()}' if gpu else threads}, Python {platform.python_version()}"


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def replace_section(path: Path, command: str, text: str) -> None:
    """Put text between the marks of a page, ``<!-- begin: written by COMMAND -->`` and ``<!-- end -->``.

    Args:
        path: the page.
        command: what writes the section.
        text: what stands there afterwards.

    Raises:
        ValueError: the page has no such marks.
    """
    page = path.read_text(encoding="utf-8")
    begin = f"<!-- begin: written by {command} -->"
    head, found, rest = page.partition(begin)
    _, ended, tail = rest.partition(END)
    if not (found and ended):
        raise ValueError(f"{path} has no section between {begin!r} and {END!r}")
    with write_whole(path) as file:
        file.write(f"{head}{begin}\n{text}\n{END}{tail}")
