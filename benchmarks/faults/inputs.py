"""The faults of input: options, files of data, configurations, checkpoints and run folders, archives, scripts."""

from __future__ import annotations

import gzip
import io
import os
import pickle
import random
import shutil
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
import yaml

from benchmarks.faults.scene import RESUME, TRAIN, Fault, Scene

_ON_DATA = (*TRAIN, "--data.root", "{data}")
_EVALUATE = ("evaluate.py", "{out}/k")
_BOMB = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join(['*' + before] * 10)}]\n" for before, name in zip("abcdefg", "bcdefgh", strict=True)
)

OPTIONS = {
    "--seed_everything -1": "seed_everything",
    "--seed_everything 99999999999": "seed_everything",
    "--seed_everything x": "seed_everything",
    "--name ../elsewhere": "name is",
    "--name /tmp/elsewhere": "name is",
    f"--name {'n' * 300}": "300 bytes",
    "--name a\x07b": "name is",
    "--model.lr 0": "lr is 0",
    "--model.lr -1": "lr is -1",
    "--model.lr nan": "lr is 'nan'",
    "--model.lr inf": "lr is 'inf'",
    "--model.lr high": "model.lr is 'high'",
    "--lr 0.1": "did you mean 'model.lr'",
    "--seed 3": "did you mean 'seed_everything'",
    "--model.warmup_steps -5": "warmup_steps",
    "--model.schedule step": "schedule",
    "--model.space white": "space",
    "--model.score cosine": "score",
    "--data.batch_size 0": "batch_size",
    "--data.batch_size -3": "batch_size",
    "--data.batch_size 1000000": "batch",
    "--data.batch_size 2.5": "batch_size",
    "--data.limit_pairs 0": "limit_pairs",
    "--data.limit_pairs 3": "",
    "--data.num_workers -1": "num_workers",
    "--data.root /nonexistent": "/nonexistent",
    "--data nonsense": "unknown dataset 'nonsense'",
    "--strategy nonsense": "unknown distillation strategy 'nonsense'",
    "--strategy ddp": "--trainer.strategy ddp",
    "--strategy os.system": "",
    "--strategy ot --strategy.epsilon -1": "epsilon",
    "--strategy ot --strategy.iterations 0": "iterations",
    "--strategy contrastive --strategy.temperature 0": "temperature",
    "--student nonsense": "unknown student 'nonsense'",
    "--student.model /nonexistent": "nonexistent",
    "--student.max_length 0": "max_length",
    "--student.max_length 100000": "max_length",
    "--student.dropout 2": "dropout",
    "--student.pooling last": "pooling",
    "--student.layers 0": "layers",
    "--student.layers 99": "layers",
    "--teacher /nonexistent/model": "no such folder",
    "--trainer.precision bf16-true": "precision",
    "--trainer.precision 64-true": "precision",
    "--trainer.precision 8": "precision",
    "--trainer.max_epochs -3": "max_epochs",
    "--trainer.max_epochs many": "max_epochs",
    "--trainer.devices 0": "devices",
    "--trainer.devices -7": "devices",
    "--trainer.accelerator gpu": "",
    "--trainer.accelerator abacus": "accelerator",
    "--trainer.strategy magic": "strategy",
    "--trainer.accumulate_grad_batches 0": "accumulate_grad_batches",
    "--trainer.gradient_clip_val -1": "gradient_clip_val",
    "--trainer.limit_train_batches -1": "limit_train_batches",
    "--trainer.limit_train_batches 0": "",
    "--trainer.val_check_interval 1000": "val_check_interval",
    "--trainer.val_check_interval -1": "val_check_interval",
    "--trainer.log_every_n_steps -1": "log_every_n_steps",
    "--trainer.callbacks+=LearningRateMonitor": "needs a logger",
    "--trainer.callbacks+=EarlyStopping --trainer.callbacks.monitor=val_loss": "monitor of EarlyStopping",
    "--trainer.callbacks+=Nonsense": "callbacks",
    "--checkpoint_every 0": "checkpoint_every",
    "--checkpoint_every -1": "checkpoint_every",
    "--checkpoint_every x": "checkpoint_every",
    "--logger nonsense": "logger",
    "--logger": "logger",
    "--plots maybe": "plots",
    "--evaluation.metrics nonsense": "nonsense",
    "--evaluation.metrics []": "metric",
    "--evaluation.batch_size 0": "batch_size",
    "--evaluation.shard_texts -1": "shard_texts",
    "--resume /nonexistent": "nonexistent",
    "--from best": "--resume",
    "--nonsense 1": "unknown option --nonsense",
    "fit": "leave out fit",
    "--config /nonexistent.yaml": "no such config file",
    "--config {data}": "no such config file",
}
"""Options that cannot be used -> what the line must hold."""

CONFIGS: dict[str, str | bytes] = {
    "billion laughs": _BOMB,
    "200 levels": "{a: " * 200 + "1" + "}" * 200,
    "a list": "[]",
    "empty": "",
    "a control character": "model: {lr: 1\x01}\n",
    "!!int foo": "model: {lr: !!int foo}\n",
    "!!python/object/apply:os.system": "model: {lr: !!python/object/apply:os.system [touch executed]}\n",
    "no YAML": "model: {lr: [1\n",
    "a tab": "model:\n\tlr: 1\n",
    "a key twice": "model: {lr: 1}\nmodel: {lr: 2}\n",
    "an unknown option": "model: {learning: 1}\n",
    "a number for a group": "model: 3\n",
    "Latin-1": "name: \xe9\n".encode("latin-1"),
    "UTF-16": "model: {lr: 1}\n".encode("utf-16"),
    "random bytes": random.Random(0).randbytes(2000),
    "a key that is a list": "? [a, b]\n: 1\n",
    "a date for a number": "model: {lr: 2024-01-01}\n",
    "an unknown class": "model: {strategy: {class_path: nowhere.Nothing}}\n",
    "a class that is no strategy": "model: {strategy: {class_path: torch.nn.Linear, init_args: {in_features: 1}}}\n",
}
"""Content of a configuration that is given."""


def _written(name: str, content: str | bytes) -> Callable[[Scene], Path]:
    return lambda scene: scene.write(name, content)


def options() -> Iterator[Fault]:
    """Values of options."""
    for option, says in OPTIONS.items():
        name = option if len(option) < 60 else f"{option[:20]}... ({len(option)} letters)"
        status = (0, 2) if not says else 2
        yield Fault("option", name.replace("\x07", "\\a"), (*TRAIN, *option.split(" ")), status, says,
                    after="" if status != 2 else "no run")  # fmt: skip


def configs() -> Iterator[Fault]:
    """Configurations that are given."""
    for name, content in CONFIGS.items():
        prepare = _written("bad.yaml", content)
        words = (*TRAIN, "--config", "{here}/bad.yaml")
        status, says = ((0, 2), "") if name in ("a key twice", "empty") else (2, r"bad\.yaml|model|nowhere")
        yield Fault("configuration", name, words, status, says, prepare, after="" if status != 2 else "no run",
                    seconds=60)  # fmt: skip


def _file(name: str, change: Callable[[bytes], bytes]) -> Callable[[Scene], None]:
    def prepare(scene: Scene) -> None:
        path = scene.data / name
        path.write_bytes(change(path.read_bytes()))

    return prepare


def data() -> Iterator[Fault]:
    """Files of a TSV folder."""
    damages: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
        "empty": ("", lambda _: b""),
        "UTF-16": ("UTF-16", lambda old: old.decode().encode("utf-16")),
        "Latin-1": ("UTF-8", lambda old: old.replace(b"a", b"\xe9")),
        "random bytes": ("", lambda _: random.Random(1).randbytes(3000)),
        "truncated gzip": ("damaged|empty|end", lambda old: gzip.compress(old)[:-12]),
        "one column": ("", lambda old: old.replace(b"\t", b" ").replace(b" 0 ", b" ")),
    }
    for name in ("pairs.tsv", "queries.tsv", "documents.tsv", "qrels"):
        for damage, (says, change) in damages.items():
            yield Fault("data", f"{name}: {damage}", _ON_DATA, 2, rf"{name}[\s\S]*({says})",
                        _file(name, change), after="no run")  # fmt: skip
        yield Fault("data", f"{name}: missing", _ON_DATA, 2, name, _without(name), after="no run")
    rows: dict[str, tuple[str, Callable[[bytes], bytes], int | tuple[int, ...], str]] = {
        "a document's id twice": (
            "documents.tsv",
            lambda old: old + old.splitlines()[0] + b"\n",
            2,
            "is already that of line 1",
        ),
        "a query's id twice": (
            "queries.tsv",
            lambda old: old + old.splitlines()[0] + b"\n",
            2,
            "is already that of line 1",
        ),
        "a grade of 20 digits": ("qrels", lambda old: old + b"sun 0 sun-cat " + b"9" * 20 + b"\n", 2, "qrels"),
        "a grade of letters": ("qrels", lambda old: old + b"sun 0 sun-cat high\n", 2, "qrels"),
        "judgments of unknown ids only": ("qrels", lambda _: b"x 0 y 1\n", 2, "qrels"),
        "one pair": ("pairs.tsv", lambda old: old.splitlines()[0] + b"\n", 2, "pair"),
        "a pair without a text": ("pairs.tsv", lambda old: old + b"cat\t\n", 0, "left out|lack"),
        "a pair of 3 MB": ("pairs.tsv", lambda old: old + b"cat " * 750_000 + b"\tpaka\n", 0, "distilled student"),
        "control characters": ("pairs.tsv", lambda old: old + b"c\x00\x1b[2Jat\tp\x07aka\n", (0, 2), "student|pairs"),
        "a lone surrogate": ("pairs.tsv", lambda old: old + b"cat\t\xed\xa0\x80\n", 2, "pairs.tsv:101"),
        "CRLF": ("pairs.tsv", lambda old: old.replace(b"\n", b"\r\n"), 0, "distilled student"),
        "<script> in a query": (
            "queries.tsv",
            lambda old: old.replace(b"jua", b"<script>alert(1)</script>"),
            0,
            "student",
        ),
    }
    for what, (name, change, status, says) in rows.items():
        yield Fault("data", f"{name}: {what}", _ON_DATA, status, says, _file(name, change))
    yield Fault("data", "pairs.tsv is a folder", _ON_DATA, 2, "pairs.tsv", _folder_for_file, after="no run")
    yield Fault("data", "NaN in the loss: learning rate 1e30", (*TRAIN, "--model.lr", "1e30"), 1,
                "is not finite; its batch is|not finite, so no checkpoint")  # fmt: skip


def _without(name: str) -> Callable[[Scene], None]:
    return lambda scene: (scene.data / name).unlink()


def _folder_for_file(scene: Scene) -> None:
    (scene.data / "pairs.tsv").unlink()
    (scene.data / "pairs.tsv").mkdir()


class _Attack:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch executed",)


def _saved(value: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


def _zipped(**files: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in files.items():
            archive.writestr(name.replace("__", "../"), content)
    return buffer.getvalue()


def _flipped(old: bytes) -> bytes:
    content, dice = bytearray(old), random.Random(2)
    for _ in range(400):
        content[dice.randrange(len(content))] ^= 1 << dice.randrange(8)
    return bytes(content)


def checkpoints() -> Iterator[Fault]:
    """Checkpoints that are damaged, foreign or hostile."""
    damages: dict[str, Callable[[bytes], bytes]] = {
        "empty": lambda _: b"",
        "truncated": lambda old: old[: len(old) // 2],
        "text": lambda _: b"weights",
        "another zip": lambda _: _zipped(a=b"b"),
        "a list": lambda _: _saved([1, 2]),
        "no weights in it": lambda _: _saved({"epoch": 1}),
        "a pickle that calls os.system": lambda _: pickle.dumps(_Attack()),
        "a torch file that calls os.system": lambda _: _saved({"state_dict": _Attack()}),
        "400 bits flipped": _flipped,
    }
    for name, change in damages.items():
        for command, run, file in ((RESUME, "cut", "last"), (_EVALUATE, "done", "best")):

            def prepare(scene: Scene, file: str = file, change: Callable[[bytes], bytes] = change) -> None:
                path = scene.run / "checkpoints" / f"{file}.ckpt"
                path.write_bytes(change(path.read_bytes()))

            says = rf"{file}\.ckpt"
            yield Fault("checkpoint", f"{command[0]}, {file}.ckpt: {name}", command, 2, says, prepare, run=run,
                        after="unchanged")  # fmt: skip
    yield Fault("checkpoint", "--resume with another batch size in mid-epoch", (*RESUME, "--data.batch_size", "5"), 2,
                "cannot resume in mid-epoch", run="cut", after="unchanged")  # fmt: skip
    yield Fault("checkpoint", "--resume with another student", (*RESUME, "--student", "static"), 2,
                "model.student", run="cut", after="unchanged")  # fmt: skip
    yield Fault("checkpoint", "--resume with another projection", (*RESUME, "--model.projection", "linear"), 0,
                "without effect here: model.projection", run="cut")  # fmt: skip
    yield Fault("checkpoint", "--from a name that is none", (*RESUME, "--from", "first"), 2,
                "--from is 'first'", run="cut", after="unchanged")  # fmt: skip
    yield Fault(
        "checkpoint", "--resume of a finished run", RESUME, 0, "nothing to resume", run="done", after="unchanged"
    )
    yield Fault("checkpoint", "no checkpoints", RESUME, 0, "the run starts again", _without_checkpoints, run="cut")
    yield Fault(
        "checkpoint", "evaluate.py without checkpoints", _EVALUATE, 2, "best.ckpt", _without_checkpoints, run="done"
    )


def _without_checkpoints(scene: Scene) -> None:
    shutil.rmtree(scene.run / "checkpoints")


def run_folders() -> Iterator[Fault]:
    """Run folders that somebody sent."""

    def config(change: Callable[[Scene, dict[str, Any]], Any]) -> Callable[[Scene], None]:
        def prepare(scene: Scene) -> None:
            path = scene.run / "config.yaml"
            content = yaml.safe_load(path.read_text(encoding="utf-8"))
            change(scene, content)
            path.write_text(yaml.safe_dump(content), encoding="utf-8")

        return prepare

    def payload(scene: Scene, content: dict[str, Any]) -> None:
        scene.write("out/k/payload.py", "import pathlib\npathlib.Path('executed').touch()\nclass P: pass\n")
        content["model"]["strategy"] = {"class_path": "out.k.payload.P"}

    def popen(_: Scene, content: dict[str, Any]) -> None:
        content["trainer"]["profiler"] = {
            "class_path": "subprocess.Popen",
            "init_args": {"args": ["touch", "executed"]},
        }

    def remote(_: Scene, content: dict[str, Any]) -> None:
        content["model"]["student"]["init_args"]["trust_remote_code"] = True

    def anchored(scene: Scene) -> None:
        scene.write("out/k/config.yaml", _BOMB)

    changes = {
        "a class path into the folder": (config(payload), "out.k.payload.P"),
        "subprocess.Popen as profiler": (config(popen), "subprocess.Popen"),
        "trust_remote_code": (config(remote), "trust_remote_code"),
        "aliases of aliases": (anchored, "config.yaml"),
        "no config.yaml": (lambda scene: (scene.run / "config.yaml").unlink(), "config.yaml|no run"),
        "config.yaml is a folder": (_folder_for_config, "config.yaml"),
        "config.yaml is empty": (_written("out/k/config.yaml", ""), "config.yaml"),
        "config.yaml is random bytes": (_written("out/k/config.yaml", b"\x00\xff" * 99), "config.yaml"),
    }  # fmt: skip
    commands = (
        RESUME,
        _EVALUATE,
        ("search.py", "index", "{out}/k", "{data}/documents.tsv", "--output", "{here}/index"),
    )
    for name, (prepare, says) in changes.items():
        for command in commands:
            yield Fault("run folder", f"{command[0]}: {name}", command, 2, says, prepare, run="done", after="unchanged",
                        seconds=60)  # fmt: skip


def _folder_for_config(scene: Scene) -> None:
    (scene.run / "config.yaml").unlink()
    (scene.run / "config.yaml").mkdir()


_ENTITY = (
    '<?xml version="1.0"?><!DOCTYPE tmx [<!ENTITY a "aaaaaaaaaa">'
    + "".join(
        f'<!ENTITY {name} "{("&" + before + ";") * 10}">' for before, name in zip("abcdefgh", "bcdefghi", strict=True)
    )
    + ']><tmx><body><tu><tuv xml:lang="en"><seg>&i;</seg></tuv><tuv xml:lang="sw"><seg>b</seg></tuv></tu></body></tmx>'
)
_OUTSIDE = (
    '<?xml version="1.0"?><!DOCTYPE tmx [<!ENTITY x SYSTEM "file:///etc/passwd">]><tmx><body><tu><tuv xml:lang="en">'
    '<seg>&x;</seg></tuv><tuv xml:lang="sw"><seg>b</seg></tuv></tu></body></tmx>'
)


def archives() -> Iterator[Fault]:
    """Archives of pairs."""
    tmx = (*TRAIN, "--data.pairs", "{here}/pairs.tmx.zip", "--data.pair_languages", "en,sw")
    files = {
        "truncated": _zipped(**{"a.tmx": b"<tmx/>" * 99})[:60],
        "without TMX": _zipped(a=b"b"),
        "a TMX of entities of entities": _zipped(**{"a.tmx": _ENTITY.encode()}),
        "a TMX that includes /etc/passwd": _zipped(**{"a.tmx": _OUTSIDE.encode()}),
        "a member that leads out": _zipped(**{"____a.tmx": b"<tmx><body></body></tmx>"}),
        "no zip": b"zip",
        "half a TMX": _zipped(**{"a.tmx": b"<tmx><body><tu>"}),
    }
    for name, content in files.items():
        yield Fault("archive", f"zip of pairs: {name}", tmx, 2, r"pairs\.tmx\.zip", _written("pairs.tmx.zip", content),
                    after="no run", seconds=90)  # fmt: skip
    packed = (*TRAIN, "--data.pairs", "{here}/pairs.tsv.gz")
    many = gzip.compress(b"a\tb\n" * 200)
    for name, content in {
        "truncated": many[:-6],
        "a wrong checksum": many[:-8] + b"\0" * 8,
        "plain text": b"a\tb\n",
    }.items():
        yield Fault("archive", f"pairs.tsv.gz: {name}", packed, 2, r"pairs\.tsv\.gz", _written("pairs.tsv.gz", content),
                    after="no run")  # fmt: skip


def scripts() -> Iterator[Fault]:
    """The other scripts."""

    def row(injection: str, words: str, says: str, prepare: Callable[[Scene], Any] | None = None,
            status: int | tuple[int, ...] = 2) -> Fault:  # fmt: skip
        return Fault("script", injection, tuple(words.split(" ")), status, says, prepare, run="done")

    run, qrels = "{out}/k/test.pooled.run", "{out}/k/test.qrels"
    yield row("evaluate.py of nothing", "evaluate.py", "folder")
    yield row("evaluate.py: no such folder", "evaluate.py /nonexistent", "nonexistent")
    yield row("evaluate.py: a run without judgments", f"evaluate.py --run {run}", "--qrels")
    yield row("evaluate.py: judgments as run", f"evaluate.py --run {qrels} --qrels {qrels}", "test.qrels")
    yield row("evaluate.py: an unknown metric", "evaluate.py {out}/k --metrics nonsense", "nonsense")
    yield row("evaluate.py: --json into no folder", "evaluate.py {out}/k --json /proc/x/a.json", "a.json|/proc/x")
    yield row("evaluate.py: a severity of 9", "evaluate.py {out}/k --text_noise keyboard --severity 9", "severity")
    yield row("evaluate.py: unknown noise", "evaluate.py {out}/k --text_noise nonsense --severity 2", "nonsense")
    yield row("compare.py: no such run", "compare.py {out}/k /nonexistent", "nonexistent")
    yield row("compare.py: no such row", "compare.py {out}/k:nonsense {out}/k", "nonsense")
    yield row(
        "compare.py: damaged metrics.json",
        "compare.py {out}/k {out}/k",
        "json",
        lambda scene: [scene.write(f"out/k/{name}.json", '{"a": ') for name in ("metrics", "per_query")],
    )
    yield row(
        "compare.py: random bytes as a run",
        f"compare.py {{here}}/a.run {run} --qrels {qrels}",
        "a.run",
        lambda scene: scene.write("a.run", random.Random(3).randbytes(999)),
    )
    yield row(
        "compare.py: a score that is NaN",
        f"compare.py {{here}}/a.run {run} --qrels {qrels}",
        "a.run",
        lambda scene: scene.write("a.run", "cat Q0 cat-sun 1 nan x\n"),
    )
    yield row(
        "baseline.py: fuse one run", f"baseline.py fuse {run} --output {{here}}/f.run", "two|runs|least", status=(0, 2)
    )
    empty = "baseline.py bm25 --queries {here}/e --documents {here}/e --output {here}/b"
    yield row("baseline.py: an empty collection", empty, "/e: ", lambda scene: scene.write("e", ""))  # fmt: skip
    yield row("search.py: no index", "search.py query /nonexistent --text a --run {out}/k", "nonexistent")
    yield row("search.py: an empty query", "search.py query {here} --text= --run {out}/k", "")
    yield row(
        "search.py: documents of random bytes",
        "search.py index {out}/k {here}/d.tsv --output {here}/i",
        "d.tsv",
        lambda scene: scene.write("d.tsv", random.Random(4).randbytes(999)),
    )
    yield row("sweep.py: no such file", "sweep.py --config /nonexistent.yaml", "nonexistent")
    yield row(
        "sweep.py: billion laughs",
        "sweep.py --config {here}/s.yaml",
        "s.yaml",
        lambda scene: scene.write("s.yaml", _BOMB),
    )
    yield row(
        "sweep.py: an empty file", "sweep.py --config {here}/s.yaml", "s.yaml", lambda scene: scene.write("s.yaml", "")
    )
    yield row("report.py: nothing to report", "report.py {data}", "data")
    yield row("report.py of a plain run", "report.py {out}/k", "", status=0)
    yield row(
        "report.py: damaged history.json",
        "report.py {out}/k",
        "json",
        lambda scene: scene.write("out/k/history.json", "[{"),
        status=(0, 2),
    )
    yield row(
        "report.py: damaged metrics.json",
        "report.py {out}/k",
        "json",
        lambda scene: [scene.write(f"out/k/{name}.json", "[1]") for name in ("metrics", "per_query")],
    )
    yield Fault("script", "SLURM_NTASKS=4 with one process", TRAIN, 2, "ntasks|tasks", after="no run",
                environment={"SLURM_JOB_ID": "9", "SLURM_NTASKS": "4", "SLURM_JOB_NAME": "job"})  # fmt: skip


INPUTS = (options, configs, data, checkpoints, run_folders, archives, scripts)
