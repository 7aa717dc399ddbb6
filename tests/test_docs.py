"""The commands, links, names and paths in the docs: each command line is parsed by the real parser."""

from __future__ import annotations

import argparse
import re
import shlex
from pathlib import Path
from pkgutil import resolve_name

import pytest

from lightning_modules.names import MOVED

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


def commands() -> list[str]:
    """Lines of the bash blocks, each once."""
    blocks = [block for page in PAGES for block in re.findall(r"```bash\n(.*?)```", page.read_text("utf-8"), re.S)]
    return list(
        dict.fromkeys(re.split(r"\s+# ", line)[0].strip() for block in blocks for line in block.splitlines() if line)
    )


TRAIN = [line for line in commands() if line.startswith("python train.py") and "--resume" not in line]
OTHERS = [
    line
    for line in commands()
    if re.match(r"(python|torchrun .*?) (evaluate|compare|baseline|search|sweep|report)\.py", line)
]
ROOMS = "foundations|strategies|retrieval|datamodules|lightning_modules|studies|potstill|benchmarks"


def test_every_command_is_of_a_known_kind() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text("utf-8"), re.M))
    for line in commands():
        words = shlex.split(line)
        known = (
            (words[0] == "make" and words[1] in targets)
            or (words[0] == "python" and (words[1] == "-m" or (ROOT / words[1]).is_file()))
            or words[0] in ("source", "torchrun", "curl", ".venv/bin/pre-commit")
            or words[:2] == ["git", "clone"]
        )
        assert known, line


@pytest.fixture(scope="module")
def user_package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the package that docs/strategies.md writes."""
    folder = tmp_path_factory.mktemp("user")
    (folder / "my_package").mkdir()
    text = (ROOT / "docs" / "strategies.md").read_text("utf-8")
    (folder / "my_package" / "huber.py").write_text(re.findall(r"```python\n(.*?)```", text, re.S)[0], "utf-8")
    return folder


@pytest.mark.parametrize("line", TRAIN)
def test_train_command_is_accepted(
    line: str, script, user_package: Path, finished_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.syspath_prepend(user_package)
    # The run that a command before it would have made.
    words = [str(finished_run) if word == "runs/late-en" else word for word in shlex.split(line)[1:]]
    done = script(*words, *([] if "--print_config" in line else ["--print_config"]))
    assert done.status == 0, done.err
    assert "class_path" in done.out


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text("utf-8")):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), target


@pytest.mark.parametrize("line", OTHERS)
def test_command_of_another_script_is_accepted(line: str, script, monkeypatch: pytest.MonkeyPatch) -> None:
    parse = argparse.ArgumentParser.parse_args

    def parse_and_stop(parser: argparse.ArgumentParser, *arguments: list[str]) -> None:
        parse(parser, *arguments)
        raise SystemExit(0)

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse_and_stop)
    words = shlex.split(line)
    done = script(*words[next(number for number, word in enumerate(words) if word.endswith(".py")) :])
    assert done.status == 0, done.err


@pytest.mark.parametrize("page", [*PAGES, ROOT / "CHANGELOG.md"], ids=lambda path: path.name)
def test_names_and_paths_exist(page: Path) -> None:
    text = page.read_text("utf-8")
    for name in re.findall(rf"(?<![\w./-])(?:{ROOMS})(?:\.\w+)+(?![\w/*])(?<!\.md)(?<!\.png)", text):
        assert name in MOVED or resolve_name(name) is not None, name
    for path in re.findall(rf"(?<![\w./~-])(?:{ROOMS}|configs|docs|tests)/[\w./-]*", text):
        assert (ROOT / path.rstrip(".")).exists(), path
    folders = [ROOT, *(ROOT / room for room in ROOMS.split("|"))]
    for path in re.findall(r"`([\w./]*\w\.py)`", text):  # a page may leave the first folder out
        assert any((folder / path).is_file() for folder in folders) or path == "imagenet_c/corruptions.py", path
