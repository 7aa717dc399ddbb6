"""What the faults are put into: a small TSV folder, two tiny models, a configuration, and processes on them."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.conftest import ENGLISH, TEXTS, WORDS, bert_tokenizer, save_tiny, unigram_tokenizer

ROOT = Path(__file__).parents[2]
INJECT = Path(__file__).parent / "inject"
_SECONDS = 240
_THREAD = threading.local()

CONFIG = """\
model:
  teacher:
    class_path: lightning_modules.teachers.online.OnlineTeacher
    init_args: {{model: {models}/bert, max_length: 32}}
  student:
    class_path: lightning_modules.students.transformer.TransformerEncoder
    init_args: {{model: {models}/unigram, max_length: 32, vocabulary: trim, dropout: 0.1}}
  strategy: {{class_path: strategies.mse.MSE}}
  lr: 0.003
  warmup_steps: 2
data:
  class_path: datamodules.tsv.TSVDataModule
  init_args: {{root: {data}, batch_size: 10, english: none, remove_leaks: false}}
trainer: {{max_epochs: 2, accelerator: cpu, precision: 32-true}}
evaluation: {{metrics: [map]}}
plots: false
logger: none
checkpoint_every: 3
"""

MIXTURE = """\
data:
  class_path: datamodules.mixture.MixtureDataModule
  init_args:
    batch_size: 10
    english: none
    remove_leaks: false
    parts:
      sw:
        class_path: datamodules.tsv.TSVDataModule
        init_args: {{root: {data}, english: none, remove_leaks: false}}
      so:
        class_path: datamodules.tsv.TSVDataModule
        init_args: {{root: {data}2, english: none, remove_leaks: false}}
"""


@dataclass(frozen=True)
class Ended:
    """How a process ended: exit status (128 + n of signal n), all that it printed, and seconds."""

    status: int
    text: str
    seconds: float


@dataclass(frozen=True)
class Place:
    """Folders of a matrix.

    Args:
        folder: holds all of it.
    """

    folder: Path

    @property
    def data(self) -> Path:
        """The TSV folder."""
        return self.folder / "data"

    @property
    def config(self) -> Path:
        """A configuration that trains on it for 20 steps."""
        return self.folder / "tiny.yaml"

    @property
    def mixture(self) -> Path:
        """The data of a configuration with two languages."""
        return self.folder / "mixture.yaml"

    def make(self) -> None:
        """Write data, models and configuration."""
        write_data(self.data)
        write_data(self.folder / "data2", str.upper)
        tokenizer, special = bert_tokenizer([word for text in ENGLISH for word in text.split()])
        save_tiny(self.folder / "models" / "bert", tokenizer, special)
        tokenizer, special = unigram_tokenizer(TEXTS)
        save_tiny(self.folder / "models" / "unigram", tokenizer, special, seed=1)
        text = CONFIG.format(models=self.folder / "models", data=self.data)
        self.config.write_text(text, encoding="utf-8")
        self.mixture.write_text(MIXTURE.format(data=self.data), encoding="utf-8")

    def start(
        self, words: Sequence[object], cwd: Path, environment: dict[str, str] | None = None, ranks: int = 1
    ) -> subprocess.Popen[str]:
        """A process of Python with these words, with our modules and the faults of ``environment``."""
        launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={ranks}"] if ranks > 1 else []
        command = [sys.executable, *launcher, str(ROOT / str(words[0])), *map(str, words[1:])]
        return subprocess.Popen(
            command, cwd=cwd, env=self._variables(environment), text=True, errors="replace",
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip

    def _variables(self, environment: dict[str, str] | None) -> dict[str, str]:
        own = ("SLURM_", "WANDB_", "TORCHELASTIC_", "FAULT", "SLOW")
        variables = {key: value for key, value in os.environ.items() if not key.startswith(own)}
        variables |= {"OMP_NUM_THREADS": "1", "PYTHONPATH": f"{INJECT}:{ROOT}", "WANDB_MODE": "offline", "TZ": "UTC"}
        return (
            variables | {"POTSTILL_CACHE": str(self.folder / "cache"), "HOME": str(self.folder)} | (environment or {})
        )

    def run(
        self, words: Sequence[object], cwd: Path, environment: dict[str, str] | None = None, ranks: int = 1,
        seconds: float = _SECONDS,
    ) -> Ended:  # fmt: skip
        """Run such a process to its end; one that takes too long is killed, and has the status 999."""
        began = time.monotonic()
        if ranks == 1:
            return self._forked(words, cwd, environment, seconds)
        process = self.start(words, cwd, environment, ranks)
        try:
            text, _ = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            text, _ = process.communicate()
            return Ended(999, text, time.monotonic() - began)
        status = process.returncode if process.returncode >= 0 else 128 - process.returncode
        return Ended(status, text, time.monotonic() - began)

    def _forked(self, words: Sequence[object], cwd: Path, environment: dict[str, str] | None, seconds: float) -> Ended:
        """Let this thread's `benchmarks.faults.server` fork it."""
        began = time.monotonic()
        if not hasattr(_THREAD, "server"):
            _THREAD.server = subprocess.Popen(
                [sys.executable, "-m", "benchmarks.faults.server"], cwd=ROOT, env=self._variables({}), text=True,
                stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            )  # fmt: skip
        output = cwd / f"output-{time.monotonic_ns()}.txt"
        request = {"words": [str(ROOT / str(words[0])), *map(str, words[1:])], "cwd": str(cwd), "output": str(output),
                   "environment": self._variables(environment), "seconds": seconds}  # fmt: skip
        print(json.dumps(request), file=_THREAD.server.stdin, flush=True)
        status = int(_THREAD.server.stdout.readline())
        return Ended(status, output.read_text(encoding="utf-8", errors="replace"), time.monotonic() - began)


def write_data(folder: Path, foreign: Callable[[str], str] = str) -> None:
    """Pairs of two words, queries of one word, documents of two words, judgments; ``foreign`` changes the targets."""
    folder.mkdir(parents=True)
    translated = {word: foreign(other) for word, other in WORDS.items()}
    couples = list(itertools.permutations(translated.items(), 2))
    lines: dict[str, list[str]] = {
        "pairs.tsv": [f"{a} {b}\t{x} {y}" for (a, x), (b, y) in couples] + [f"{a}\t{x}" for a, x in translated.items()],
        "documents.tsv": [f"{a}-{b}\tthe {a} {b}" for (a, _), (b, _) in couples],
        "queries.english.tsv": [f"{a}\t{a}" for a in WORDS],
    }
    for prefix, words in (("", list(WORDS)[:6]), ("dev.", list(WORDS)[6:])):
        lines[f"{prefix}queries.tsv"] = [f"{word}\t{translated[word]}" for word in words]
        lines[f"{prefix}qrels"] = [
            f"{word} 0 {a}-{b} {1 + (word == a)}" for word in words for (a, _), (b, _) in couples if word in (a, b)
        ]
    for name, content in lines.items():
        (folder / name).write_text("\n".join(content) + "\n", encoding="utf-8")
