"""The commands and links in the docs: each train.py command line is parsed by the real parser."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
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
        )
        assert known, line


@pytest.mark.slow
@pytest.mark.parametrize("line", TRAIN)
def test_train_command_is_accepted(line: str, tmp_path: Path) -> None:
    package = tmp_path / "my_package"
    package.mkdir()
    text = (ROOT / "docs" / "strategies.md").read_text("utf-8")
    (package / "huber.py").write_text(re.findall(r"```python\n(.*?)```", text, re.S)[0], "utf-8")
    words = [*shlex.split(line)[1:], *([] if "--print_config" in line else ["--print_config"])]
    environment = {"PYTHONPATH": f"{tmp_path}:{ROOT}", "PATH": "/usr/bin:/bin", "HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, *words], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "class_path" in done.stdout


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text("utf-8")):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), target
