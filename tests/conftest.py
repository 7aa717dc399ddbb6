from __future__ import annotations

import contextlib
import io
import itertools
import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import pytest

from tests.lightning_modules.models.packed_e5 import packed_bytes

ENGLISH = ["the cat sits on the mat", "good morning my friend", "the big red sun", "water is life", "a small cat"]
SWAHILI = ["habari ya asubuhi", "paka mdogo yuko nyumbani", "maji ni uhai", "rafiki yangu mkubwa", "jua kubwa jekundu"]
MARATHI = ["मांजर घरी आहे", "पाणी हेच जीवन", "माझा मोठा मित्र", "सूर्य लाल आहे"]
AMHARIC = ["ሰላም ለዓለም", "ውሃ ሕይወት ነው"]
TEXTS = ENGLISH + SWAHILI + MARATHI + AMHARIC


def save_tiny(folder: Path, tokenizer, special: dict[str, str], seed: int = 0, layers: int = 2, **options) -> str:
    import torch
    from transformers import BertConfig, BertModel

    from lightning_modules.models.files import write_tokenizer

    config = BertConfig(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=32,
        num_hidden_layers=layers,
        num_attention_heads=4,
        intermediate_size=48,
        max_position_embeddings=40,
        pad_token_id=tokenizer.token_to_id(special["pad_token"]),
        initializer_range=0.3,
        **options,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        BertModel(config).save_pretrained(folder)
    write_tokenizer(folder, tokenizer, special, 40)
    return str(folder)


def bert_tokenizer(words: list[str]):
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    characters = sorted({character for word in words for character in word})
    pieces = [*special, *characters, *(f"##{character}" for character in characters), *dict.fromkeys(words)]
    vocabulary = {piece: id_ for id_, piece in enumerate(dict.fromkeys(pieces))}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.add_special_tokens(special)
    ids = [(token, vocabulary[token]) for token in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = processors.TemplateProcessing("[CLS] $A [SEP]", special_tokens=ids)
    return tokenizer, dict(
        zip(["pad_token", "unk_token", "cls_token", "sep_token", "mask_token"], special, strict=True)
    )


def unigram_tokenizer(texts: list[str]):
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    words = sorted({f"▁{word}" for text in texts for word in text.split()})
    characters = ["▁", *sorted({character for text in texts for character in text.replace(" ", "")})]
    halves = sorted({word[: len(word) // 2] for word in words} | {word[len(word) // 2 :] for word in words})
    pieces = [("<s>", 0.0), ("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]
    # The characters are the least likely, and the last of them is the least of all.
    scores = {c: -9.0 - index / 1000 for index, c in enumerate(characters)}
    scores = dict.fromkeys(words, -4.0) | dict.fromkeys(halves, -6.0) | scores
    tokenizer = Tokenizer(models.Unigram([*pieces, *scores.items()], unk_id=3))
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.add_special_tokens(["<s>", "<pad>", "</s>", "<unk>", "<mask>"])
    ids = [("<s>", 0), ("</s>", 2)]
    tokenizer.post_processor = processors.TemplateProcessing("<s> $A </s>", special_tokens=ids)
    names = {
        "cls_token": "<s>",
        "pad_token": "<pad>",
        "sep_token": "</s>",
        "unk_token": "<unk>",
        "mask_token": "<mask>",
    }
    return tokenizer, names


def pytest_collection_modifyitems(items) -> None:
    """Skip what needs a GPU where there is none."""
    import torch

    if not torch.cuda.is_available():
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(pytest.mark.skip(reason="needs a GPU"))


@pytest.fixture(scope="session")
def tiny_bert(tmp_path_factory) -> str:
    """A folder with a random two-layer BERT, 32 wide, and an uncased WordPiece tokenizer."""
    tokenizer, special = bert_tokenizer([word for text in ENGLISH for word in text.split()])
    return save_tiny(tmp_path_factory.mktemp("models") / "tiny-bert", tokenizer, special)


@pytest.fixture(scope="session")
def tiny_unigram(tmp_path_factory) -> str:
    """The same with a Unigram tokenizer, whose ``<mask>`` is no piece of the model."""
    tokenizer, special = unigram_tokenizer(TEXTS)
    return save_tiny(tmp_path_factory.mktemp("models") / "tiny-unigram", tokenizer, special, seed=1)


@pytest.fixture
def texts() -> list[str]:
    return list(TEXTS)


@pytest.fixture(scope="session")
def packed_e5():
    """A function that gives a tiny e5-small-q4.bin, and the values of its tensors by name."""
    return packed_bytes


ROOT = Path(__file__).parent.parent
WORDS = {"cat": "paka", "mat": "mkeka", "morning": "asubuhi", "friend": "rafiki", "sun": "jua", "water": "maji",
         "life": "uhai", "big": "kubwa", "red": "jekundu", "small": "mdogo"}  # fmt: skip


@dataclass(frozen=True)
class Done:
    """How a command ended."""

    status: int
    out: str
    err: str


@pytest.fixture(scope="session")
def tsv_folder(tmp_path_factory) -> Path:
    """A folder for ``--data tsv``: pairs of two words, queries of one word, documents of two words."""
    folder = tmp_path_factory.mktemp("tsv")
    couples = list(itertools.permutations(WORDS.items(), 2))
    lines: dict[str, list[str]] = {
        "pairs.tsv": [f"{a} {b}\t{x} {y}" for (a, x), (b, y) in couples] + [f"{a}\t{x}" for a, x in WORDS.items()],
        "documents.tsv": [f"{a}-{b}\tthe {a} {b}" for (a, _), (b, _) in couples],
        "queries.english.tsv": [f"{a}\t{a}" for a in WORDS],
    }
    for prefix, words in (("", list(WORDS)[:6]), ("dev.", list(WORDS)[6:])):
        lines[f"{prefix}queries.tsv"] = [f"{word}\t{WORDS[word]}" for word in words]
        lines[f"{prefix}qrels"] = [
            f"{word} 0 {a}-{b} {1 + (word == a)}" for word in words for (a, _), (b, _) in couples if word in (a, b)
        ]
    for name, content in lines.items():
        (folder / name).write_text("\n".join(content) + "\n", encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def tiny_config(tmp_path_factory, tsv_folder, tiny_bert, tiny_unigram) -> Path:
    """A config file for train.py: tiny models, TSV data, a second of work; plots, which take longer, are off."""
    path = tmp_path_factory.mktemp("config") / "tiny.yaml"
    path.write_text(
        f"""\
model:
  teacher:
    class_path: lightning_modules.teachers.online.OnlineTeacher
    init_args: {{model: {tiny_bert}, max_length: 32}}
  student:
    class_path: lightning_modules.students.transformer.TransformerEncoder
    init_args: {{model: {tiny_unigram}, max_length: 32, vocabulary: trim, dropout: 0.1}}
  lr: 0.003
  warmup_steps: 2
data:
  class_path: datamodules.tsv.TSVDataModule
  init_args: {{root: {tsv_folder}, batch_size: 10, english: none, remove_leaks: false}}
trainer:
  max_epochs: 2
  accelerator: cpu
  precision: 32-true
evaluation:
  metrics: [map, ndcg@10, precision@1]
plots: false
""",
        encoding="utf-8",
    )
    return path


@pytest.fixture(scope="session")
def script() -> Callable[..., Done]:
    """Run one of the scripts in this process: script("train.py", "--strategy", "ot")."""

    def run(name: str, *arguments: object) -> Done:
        out, err, status = io.StringIO(), io.StringIO(), 0
        with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            patch.setattr(sys, "argv", [name, *map(str, arguments)])
            try:
                status = import_module(name.removesuffix(".py")).main() or 0
            except SystemExit as end:
                status = 0 if end.code is None else int(end.code)
        return Done(status, out.getvalue(), err.getvalue())

    return run


@pytest.fixture
def process() -> Callable[..., Done]:
    """Run a script in a process of its own, on one core, without the network."""

    def run(
        name: str, *arguments: object, environment: dict[str, str | None] | None = None, timeout: float = 300
    ) -> Done:
        own = {"OMP_NUM_THREADS": "1", "WANDB_MODE": "offline", "WANDB_SERVICE": None}  # a service of its own
        variables = os.environ | own | (environment or {})
        variables = {key: value for key, value in variables.items() if value is not None}
        done = subprocess.run(
            [sys.executable, str(ROOT / name), *map(str, arguments)],
            capture_output=True, text=True, env=variables, timeout=timeout, check=False, cwd=ROOT,
        )  # fmt: skip
        return Done(done.returncode, done.stdout, done.stderr)

    return run


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory, tiny_config, script) -> Path:
    """The folder of a short run of train.py with MSE."""
    output = tmp_path_factory.mktemp("finished")
    words = ["--config", tiny_config, "--strategy", "mse", "--output", output, "--name", "run"]
    done = script("train.py", *words, "--logger", "csv", "--checkpoint_every", "4", "--plots", "true")
    assert done.status == 0, done.err
    return output / "run"


@pytest.fixture
def ir_home(tmp_path, monkeypatch) -> Iterator[Path]:
    """The folder of ir_datasets for one test, to put official files into; nothing can be downloaded.

    ir_datasets reads the variable when it is imported, so it is imported anew here, and again after the test.
    """
    home = tmp_path / "ir_datasets"
    home.mkdir()
    monkeypatch.setenv("IR_DATASETS_HOME", str(home))
    monkeypatch.setenv("IR_DATASETS_DL_TRIES", "1")
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)

    def forget() -> None:
        for name in [name for name in sys.modules if name.split(".")[0] == "ir_datasets"]:
            del sys.modules[name]
        logging.getLogger("ir_datasets").handlers.clear()  # each import adds one

    forget()
    yield home
    forget()
