"""The commands and links in the docs: each train.py command line is parsed by the real parser."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


def commands() -> list[str]:
    """Lines of the bash blocks, each once."""
    blocks = [block for page in PAGES for block in re.findall(r"```bash\n(.*?)```", page.read_text("utf-8"), re.S)]
    return list(dict.fromkeys(line.split("  #")[0].strip() for block in blocks for line in block.splitlines() if line))


TRAIN = [line for line in commands() if line.startswith("python train.py") and "--resume" not in line]


def test_every_command_is_of_a_known_kind() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text("utf-8"), re.M))
    for line in commands():
        words = shlex.split(line)
        known = (
            (words[0] == "make" and words[1] in targets)
            or (words[0] == "python" and (words[1] == "-m" or (ROOT / words[1]).is_file()))
            or words[0] in ("source", "torchrun", ".venv/bin/pre-commit")
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
