"""One side of the training benchmark, in a process of its own: prints one line of JSON.

python -m benchmarks.training_side sentence_transformers '{"pairs": 640, ...}'
python -m benchmarks.training_side potstill '{"strategy": "mse", ...}'
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback

from lightning_modules.starter_models import resolve_model

TIMES = Path("times.json")


class Times(Callback):
    """Notes when training began and ended; ``train.py`` is told of it by an option.

    Args:
        file: JSON file to write.
    """

    def __init__(self, file: str) -> None:
        self.file, self.first = Path(file), 0.0

    def on_train_start(self, *_: Any) -> None:
        """Note the first step."""
        self.first = time.time()

    def on_train_end(self, *_: Any) -> None:
        """Write both times."""
        self.file.write_text(json.dumps({"first": self.first, "last": time.time()}), encoding="utf-8")


def potstill(settings: dict[str, Any]) -> dict[str, float]:
    """``train.py`` with an empty teacher cache; dev is scored once, after the last step."""
    from train import train

    with tempfile.TemporaryDirectory() as folder:
        times = Path(folder) / TIMES
        train(
            [
                *("--strategy", settings["strategy"], "--data", "starter", "--config", "configs/contextual.yaml"),
                *("--data.language", settings["language"], "--data.english", "sources"),
                *(f"--data.limit_pairs={settings['pairs']}", f"--data.batch_size={settings['batch']}"),
                *("--student.layers", str(settings["layers"]), "--student.dropout", "0"),
                *(f"--model.lr={settings['lr']}", f"--model.embedding_lr={settings['lr']}"),
                *(f"--model.teacher.init_args.cache_dir={folder}/teacher",),
                *(f"--trainer.max_epochs={settings['epochs']}",),
                *(f"--trainer.check_val_every_n_epoch={settings['epochs']}",),
                *("--trainer.callbacks+=benchmarks.training_side.Times", f"--trainer.callbacks.file={times}"),
                *("--trainer.enable_progress_bar", "false", "--seed_everything", str(settings["seed"])),
                *("--logger", "none", "--output", folder, "--name", "run", "--checkpoint_every", "1000000"),
                *("--evaluation.undistilled", "false"),
                *settings.get("options", ()),
            ]
        )
        noted = json.loads(times.read_text(encoding="utf-8"))
        dev = _dev_map(Path(folder) / "run")
    return {"loop": noted["last"] - noted["first"], "all": noted["last"] - settings["start"], "dev": dev}


def _dev_map(run: Path) -> float:
    """The dev MAP of the last validation, as the checkpoint's name of the best score keeps it."""
    import torch

    checkpoint = torch.load(run / "checkpoints" / "best.ckpt", weights_only=True, map_location="cpu")
    scores = [state["best_model_score"] for state in checkpoint["callbacks"].values() if "best_model_score" in state]
    return float(next(score for score in scores if score is not None))


def sentence_transformers(settings: dict[str, Any]) -> dict[str, float]:
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

    data = _starter(settings)
    teacher = SentenceTransformer(modules=_mean_pooled(modules, resolve_model("starter/minilm"), 128, unit=True))
    labels = teacher.encode([pair.source for pair in data.pairs], batch_size=64, show_progress_bar=False)
    rows = Dataset.from_dict({"text": [pair.target for pair in data.pairs], "label": list(labels)})
    with tempfile.TemporaryDirectory() as folder:
        student = SentenceTransformer(modules=_mean_pooled(modules, _start(folder, settings["layers"]), 64))
        trainer = SentenceTransformerTrainer(
            model=student,
            args=SentenceTransformerTrainingArguments(
                output_dir=folder,
                num_train_epochs=settings["epochs"],
                per_device_train_batch_size=settings["batch"],
                learning_rate=settings["lr"],
                warmup_steps=50,
                bf16=settings["bf16"],
                seed=settings["seed"],
                report_to=[],
                save_strategy="no",
                disable_tqdm=True,
                use_cpu=True,
            ),
            train_dataset=rows,
            loss=losses.MSELoss(student),
        )
        first = time.time()
        trainer.train()
        last = time.time()
    return {
        "loop": last - first,
        "all": last - settings["start"],
        "dev": _score(student, teacher, data.collections["dev"]),
    }


def _starter(settings: dict[str, Any]) -> Any:
    """The same pairs and queries as `potstill` has."""
    from datamodules.starter import StarterDataModule

    data = StarterDataModule(
        language=settings["language"], english="sources", remove_leaks=True,
        limit_pairs=settings["pairs"], seed=settings["seed"],
    )  # fmt: skip
    data.setup("fit")
    return data


def _mean_pooled(modules: Any, model: str, max_length: int, unit: bool = False) -> list[Any]:
    """A transformer with mean pooling, as sentence-transformers puts it together."""
    transformer = modules.Transformer(model, max_seq_length=max_length)
    pooling = modules.Pooling(transformer.get_embedding_dimension(), pooling_mode="mean")
    return [transformer, pooling, *([modules.Normalize()] if unit else [])]


def _start(folder: str, layers: int) -> str:
    """The student before training, as a folder of ``transformers``."""
    from lightning_modules.encoder import TransformerEncoder

    path = f"{folder}/start"
    TransformerEncoder("starter/e5-small", layers=layers, dropout=0.0).save_pretrained(path)
    return path


def _score(student: Any, teacher: Any, dev: Any) -> float:
    """MAP of the dev queries among the documents that the teacher read."""
    import torch

    from retrieval.metrics import evaluate_run, mean_over_queries
    from retrieval.search import search, to_run

    options = {"normalize_embeddings": True, "show_progress_bar": False, "convert_to_tensor": True}
    queries, documents = list(dev.queries), list(dev.documents)
    vectors = student.encode([dev.queries[key] for key in queries], **options).float()
    index = teacher.encode([dev.documents[key] for key in documents], **options).float()
    with torch.no_grad():
        run = to_run(*search(vectors, index, 100, documents), queries, documents)
    return mean_over_queries(evaluate_run(run, dev.qrels, ["map"]))["map"]


def main() -> None:
    """Entry point."""
    side = {"potstill": potstill, "sentence_transformers": sentence_transformers}[sys.argv[1]]
    print(json.dumps(side(json.loads(sys.argv[2]))))


if __name__ == "__main__":
    main()
