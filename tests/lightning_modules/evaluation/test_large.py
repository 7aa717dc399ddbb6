"""Collections above the threshold go through shards on disk, with the same results."""

from __future__ import annotations

import pytest
import yaml
from lightning.pytorch import Trainer

from lightning_modules.commands.evaluate import load_weights, open_run
from lightning_modules.evaluation.encoding import StudentEncoder
from lightning_modules.teachers.online import OnlineTeacher
from retrieval.results import LEXICAL

SIDES = [("student", "teacher"), ("teacher", "student"), ("student", "student")]


def evaluated(finished_run, sides, score, folder, shard_texts):
    """Evaluate the checkpoint of the run with some threshold."""
    extra = [f"--evaluation.shard_texts={shard_texts}", f"--model.score={score}", "--data.eval_batch_size=7"]
    cli = open_run(str(finished_run), [*extra, f"--data.query_side={sides[0]}", f"--data.document_side={sides[1]}"])
    cli.evaluation.large.folder, cli.evaluation.large.block = folder, 20
    load_weights(cli.model, finished_run / "checkpoints" / "best.ckpt")
    trainer = Trainer(
        accelerator="cpu", logger=False, callbacks=[cli.evaluation], enable_progress_bar=False,
        enable_model_summary=False, use_distributed_sampler=False,
    )  # fmt: skip
    trainer.test(cli.model, datamodule=cli.datamodule, verbose=False)
    return cli.evaluation


@pytest.mark.parametrize("sides", SIDES)
def test_equals_the_small_path(finished_run, tmp_path, sides, monkeypatch):
    small = evaluated(finished_run, sides, "both", tmp_path, 200_000).results
    small = {row: result for row, result in small.items() if row not in LEXICAL}
    read: list[tuple[str, str, int]] = []
    for kind, reader in ((StudentEncoder, "student"), (OnlineTeacher, "teacher")):
        original = kind.encode

        def watched(self, texts, tokens=False, device=None, side="queries", reader=reader, original=original):
            read.append((reader, side, len(texts)))
            return original(self, texts, tokens, device, side)

        monkeypatch.setattr(kind, "encode", watched)
    with pytest.warns(UserWarning, match="no rows of BM25: the collection 'test' has 90 documents, more than"):
        evaluation = evaluated(finished_run, sides, "both", tmp_path, 50)
    assert {reader for reader, side, _ in read if side == "documents"} == {"teacher", sides[1]}
    assert max(count for *_, count in read) == 7
    large = evaluation.results
    assert large.keys() == small.keys() >= {"test", "undistilled"}
    for row, result in small.items():
        assert large[row].runs.keys() == {"pooled", "maxsim"}
        for name, run in result.runs.items():
            assert list(large[row].runs[name]) == list(run)
            for query, scores in run.items():
                assert large[row].runs[name][query] == pytest.approx(scores, abs=2e-3 if name == "maxsim" else 1e-5)
        assert large[row].means == pytest.approx(result.means, abs=0.02)
    assert not list(tmp_path.glob("shards/student*")), "the student's vectors are not kept"


@pytest.mark.slow
@pytest.mark.parametrize("shard_texts", [50, 200_000])
def test_one_and_two_ranks_give_the_same_bytes(finished_run, process, script, tmp_path, shard_texts):
    """The same weights (lr is as good as 0), in memory and in shards: equal metrics and run files."""
    config = yaml.safe_load((finished_run / "config.yaml").read_text(encoding="utf-8"))
    config["trainer"] |= {"max_epochs": 1, "limit_val_batches": 0}
    config["plots"] = False
    config["model"] |= {"lr": 1e-30, "score": "both"}
    config["data"]["init_args"]["eval_batch_size"] = 7
    config["evaluation"]["shard_texts"] = shard_texts
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    words = [
        "--config",
        tmp_path / "config.yaml",
        "--output",
        tmp_path,
        "--logger",
        "none",
        "--checkpoint_every",
        10**6,
    ]
    for devices in (1, 2):
        ranks = ["--trainer.devices", devices, "--trainer.strategy", "ddp" if devices == 2 else "auto"]
        run = process if devices == 2 else script
        done = run("train.py", *words, *ranks, "--name", devices, "--data.batch_size", 10 // devices)
        assert done.status == 0, done.err
    for name in ("test.pooled.run", "test.maxsim.run", "test.qrels", "metrics.json", "per_query.json"):
        assert (tmp_path / "1" / name).read_bytes() == (tmp_path / "2" / name).read_bytes(), name
    for devices in (1, 2):
        assert not (tmp_path / str(devices) / "shards" / "student-test").exists()
