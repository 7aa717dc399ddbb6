"""One side of the training benchmark, in a process of its own: prints one line of JSON.

python -m benchmarks.training_side sentence_transformers '{"inputs": "prepared", "epochs": 1, ...}'
python -m benchmarks.training_side potstill '{"strategy": "mse", "inputs": "prepared", ...}'
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, Trainer

from foundations.files import read_json
from lightning_modules.evaluation.callback import RetrievalEvaluation

Result = dict[str, Any]
"""Seconds from the start of the process and from the first step to the last, ``all`` and ``loop``; processor time
in ``all_cpu`` and ``loop_cpu``; ``dev`` and ``test``: average precision by query."""


class Notes(Callback):
    """Notes when training began and ended, and the average precision of each query; `train.py` is told of it.

    Args:
        file: JSON file to write.
    """

    def __init__(self, file: str) -> None:
        self.file = Path(file)
        self.noted: dict[str, Any] = {}

    def on_train_start(self, *_: Any) -> None:
        """Note the first step."""
        self.noted["first"] = now()

    def on_validation_start(self, *_: Any) -> None:
        """Note the last step: dev is scored once, after it."""
        self.noted["last"] = now()

    def on_test_end(self, trainer: Trainer, *_: Any) -> None:
        """Write all."""
        (evaluation,) = (each for each in trainer.callbacks if isinstance(each, RetrievalEvaluation))  # type: ignore[attr-defined]
        for split in ("dev", "test"):
            self.noted[split] = dict(evaluation.results[split].per_query["map"])
        self.file.write_text(json.dumps(self.noted), encoding="utf-8")


def now() -> tuple[float, float]:
    """The time when the device has done what it was given, and the processor's time of this process."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.time(), time.process_time()


def spans(first: Sequence[float], last: Sequence[float], settings: dict[str, Any]) -> dict[str, float]:
    """The four times of a result, from what `now` gave at the first and at the last step."""
    seconds = {"all": last[0] - settings["started"], "loop": last[0] - first[0]}
    return seconds | {"all_cpu": last[1], "loop_cpu": last[1] - first[1]}


def train_with(callback: str, inputs: str, cache: str, options: list[str]) -> dict[str, Any]:
    """Run ``train.py`` on prepared inputs with a callback, and read the JSON file that the callback writes.

    Args:
        callback: class path; its option ``file`` is the file to write.
        inputs: folder of `benchmarks.training_inputs`.
        cache: of the teacher's vectors.
        options: of ``train.py``, in addition to those of all benchmarks.
    """
    from lightning_modules.commands.train import train

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "noted.json"
        train([
            *("--data", "tsv", f"--model.teacher.init_args.cache_dir={cache}"),
            f"--model.teacher.init_args.teacher.init_args.model={inputs}/teacher",
            *(f"--trainer.callbacks+={callback}", f"--trainer.callbacks.file={file}"),
            *options,
            *("--logger", "none", "--output", folder, "--name", "run", "--checkpoint_every", "1000000"),
            *("--trainer.enable_progress_bar", "false", "--evaluation.undistilled", "false"),
        ])  # fmt: skip
        noted: dict[str, Any] = read_json(file)
    return noted


def potstill(settings: dict[str, Any]) -> Result:
    """``train.py`` with an empty teacher cache; dev is scored once, after the last step."""
    inputs = settings["inputs"]
    with tempfile.TemporaryDirectory() as cache:
        noted = train_with("benchmarks.training_side.Notes", inputs, cache, [
            *("--strategy", settings["strategy"], "--config", "configs/contextual.yaml"),
            *("--data.root", f"{inputs}/data", f"--data.batch_size={settings['batch']}"),
            *("--student.model", f"{inputs}/{settings['start']}", "--student.vocabulary", "keep"),
            *("--student.layers", str(settings["layers"]), "--student.dropout", "0"),
            *(f"--student.max_length={settings['max_length']}", f"--model.warmup_steps={settings['warmup']}"),
            *(f"--model.lr={settings['lr']}", f"--model.embedding_lr={settings['lr']}"),
            *(f"--trainer.max_epochs={settings['epochs']}", f"--seed_everything={settings['seed']}"),
            f"--trainer.check_val_every_n_epoch={settings['epochs']}",
        ])  # fmt: skip
    return spans(noted["first"], noted["last"], settings) | {split: noted[split] for split in ("dev", "test")}


def sentence_transformers(settings: dict[str, Any]) -> Result:
    """MSELoss and the SentenceTransformerTrainer: teacher vectors computed first, dynamic padding, fused AdamW.

    Every pair is one row, the student's text and the teacher's vector. (The recipe for multilingual models lets the
    student read the English text as well, twice the work; the starter's pairs hold English texts of their own.)
    """
    from datasets import Dataset
    from sentence_transformers import (
        SentenceTransformer,
        SentenceTransformerTrainer,
        SentenceTransformerTrainingArguments,
    )
    from sentence_transformers.sentence_transformer import losses, modules

    from datamodules.tsv import TSVDataModule

    inputs = settings["inputs"]
    data = TSVDataModule(f"{inputs}/data", english="none", remove_leaks=False)
    data.setup("fit")
    teacher = SentenceTransformer(modules=_mean_pooled(modules, f"{inputs}/teacher", 128, unit=True))
    labels = teacher.encode([pair.source for pair in data.pairs], batch_size=64, show_progress_bar=False)
    rows = Dataset.from_dict({"text": [pair.target for pair in data.pairs], "label": list(labels)})
    torch.manual_seed(settings["seed"])
    with tempfile.TemporaryDirectory() as folder:
        start = f"{inputs}/{settings['start']}"
        unit = settings.get("unit", False)
        student = SentenceTransformer(modules=_mean_pooled(modules, start, settings["max_length"], unit))
        trainer = SentenceTransformerTrainer(
            model=student,
            args=SentenceTransformerTrainingArguments(
                output_dir=folder,
                num_train_epochs=settings["epochs"],
                per_device_train_batch_size=settings["batch"],
                dataloader_drop_last=True,
                learning_rate=settings["lr"],
                warmup_steps=settings["warmup"],
                bf16=settings["bf16"],
                seed=settings["seed"],
                report_to=[],
                save_strategy="no",
                disable_tqdm=True,
                use_cpu=not torch.cuda.is_available(),
                **settings.get("arguments", {}),
            ),
            train_dataset=rows,
            loss=losses.MSELoss(student),
        )
        first = now()
        trainer.train()
        last = now()
    student.eval()
    splits = {split: _scores(student, teacher, data.collections[split]) for split in ("dev", "test")}
    return spans(first, last, settings) | splits


def _mean_pooled(modules: Any, model: str, max_length: int, unit: bool = False) -> list[Any]:
    """A transformer with mean pooling in float32, as sentence-transformers puts it together."""
    transformer = modules.Transformer(model, max_seq_length=max_length)
    pooling = modules.Pooling(transformer.get_embedding_dimension(), pooling_mode="mean")
    return [transformer, pooling, *([modules.Normalize()] if unit else [])]


def _scores(student: Any, teacher: Any, collection: Any) -> dict[str, float]:
    """Average precision of each query among the documents that the teacher read."""
    from retrieval.index.search import search, to_run
    from retrieval.metrics import evaluate_run

    options = {"normalize_embeddings": True, "show_progress_bar": False, "convert_to_tensor": True}
    queries, documents = list(collection.queries), list(collection.documents)
    vectors = student.encode([collection.queries[key] for key in queries], **options).float().cpu()
    index = teacher.encode([collection.documents[key] for key in documents], **options).float().cpu()
    run = to_run(*search(vectors, index, 100, documents), queries, documents)
    return dict(evaluate_run(run, collection.qrels, ["map"])["map"])


def main() -> None:
    """Entry point."""
    side = {"potstill": potstill, "sentence_transformers": sentence_transformers}[sys.argv[1]]
    print(json.dumps(side(json.loads(sys.argv[2]))))


if __name__ == "__main__":
    main()
