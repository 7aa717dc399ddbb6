from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from retrieval.trec import read_run

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def texts(tsv_folder, tmp_path_factory) -> dict[str, Path]:
    """The documents as TSV and as JSONL, and queries."""
    folder = tmp_path_factory.mktemp("collection")
    lines = (tsv_folder / "documents.tsv").read_text(encoding="utf-8").splitlines()
    records = [dict(zip(("docid", "text"), line.split("\t"), strict=True)) for line in lines]
    (folder / "documents.jsonl").write_text("".join(json.dumps(each) + "\n" for each in records), encoding="utf-8")
    return {
        "tsv": tsv_folder / "documents.tsv",
        "jsonl": folder / "documents.jsonl",
        "queries": tsv_folder / "queries.tsv",
    }


@pytest.fixture(scope="module")
def index(finished_run, texts, tmp_path_factory, script) -> Path:
    folder = tmp_path_factory.mktemp("search") / "index"
    done = script(
        "search.py", "index", finished_run, texts["tsv"], "--output", folder, "--side", "teacher", "--block", 20
    )
    assert done.status == 0, done.err
    assert done.out == f"{folder}: 90 documents, 32 dimensions\n"
    return folder


@pytest.fixture(scope="module")
def weighted_run(tiny_config, tsv_folder, tmp_path_factory, script) -> Path:
    """A run whose MaxSim weighs query tokens by their IDF; the words of a query are not equally frequent."""
    output = tmp_path_factory.mktemp("weighted")
    shutil.copytree(tsv_folder, output / "data")
    with (output / "data" / "pairs.tsv").open("a", encoding="utf-8") as file:
        file.writelines(f"the water {number}\tmaji {number}\n" for number in range(200))
    for name in ("queries.tsv", "dev.queries.tsv"):
        lines = (tsv_folder / name).read_text(encoding="utf-8").splitlines()
        (output / "data" / name).write_text("".join(f"{line} maji ya the sun\n" for line in lines), encoding="utf-8")
    words = ["--config", tiny_config, "--strategy", "mse", "--score", "both", "--evaluation.token_weights", "idf"]
    words += ["--data.root", output / "data"]
    done = script("train.py", *words, "--output", output, "--name", "run", "--logger", "none")
    assert done.status == 0, done.err
    return output / "run"


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_gives_the_ranking_of_the_run_folder(finished_run, index, texts, script, tmp_path):
    """Student's queries against the teacher's documents: what train.py tested."""
    words = ["--run", finished_run, "--output", tmp_path / "x.run", "--k", 100, "--memory-mb", 1]
    done = script("search.py", "query", index, texts["queries"], *words)
    assert done.status == 0, done.err
    found, expected = read_run(tmp_path / "x.run"), read_run(finished_run / "test.pooled.run")
    assert found.keys() == expected.keys()
    for query, scores in expected.items():
        assert found[query] == pytest.approx(scores, abs=1e-5)
    scored = script("evaluate.py", "--run", tmp_path / "x.run", "--qrels", finished_run / "test.qrels")
    assert scored.status == 0, scored.err


def test_jsonl_and_the_student_side(finished_run, texts, script, tmp_path):
    words = ["--dtype", "fp16", "--tokens"]
    for kind in ("tsv", "jsonl"):
        done = script("search.py", "index", finished_run, texts[kind], "--output", tmp_path / kind, *words)
        assert done.status == 0, done.err
    one, other = content(tmp_path / "tsv"), content(tmp_path / "jsonl")
    assert {name for name in one if one[name] != other[name]} == {"manifest.json"}  # it names the file
    done = script(
        "search.py", "query", tmp_path / "tsv", "--text", "the cat", "--run", finished_run, "--score", "maxsim"
    )
    assert done.status == 0, done.err
    hits = [line.split("  ") for line in done.out.splitlines()]
    assert len(hits) == 10
    documents = dict(line.split("\t") for line in texts["tsv"].read_text(encoding="utf-8").splitlines())
    assert all(documents[name] == text for _, name, text in (hit[-3:] for hit in hits))
    scores = [float(hit[-3]) for hit in hits]
    assert scores == sorted(scores, reverse=True)


@pytest.mark.parametrize("score", ["maxsim", "hybrid"])
def test_scores_of_the_run_and_of_the_index_are_the_same(weighted_run, texts, script, tmp_path, score):
    """Weights of tokens by the IDF that the checkpoint holds, and BM25 of the texts that were indexed."""
    words = ["--output", tmp_path / "index", "--side", "teacher", "--tokens", "--block", 20]
    assert script("search.py", "index", weighted_run, texts["tsv"], *words).status == 0
    outputs: dict[str, dict] = {}
    for side in ("student", "teacher"):
        run = tmp_path / f"{side}.run"
        words = ["--run", weighted_run, "--output", run, "--score", score, "--side", side]
        done = script("search.py", "query", tmp_path / "index", weighted_run.parent / "data" / "queries.tsv", *words)
        assert done.status == 0, done.err
        words = [
            "--run",
            run,
            "--qrels",
            weighted_run / "test.qrels",
            "--metrics",
            "map",
            "--json",
            tmp_path / "x.json",
        ]
        assert script("evaluate.py", *words).status == 0
        outputs[side] = json.loads((tmp_path / "x.json").read_text())["test"]["per_query"]
    words = ["--score", score, "--metrics", "map", "--json", tmp_path / "x.json"]
    done = script("evaluate.py", weighted_run, *words)
    assert done.status == 0, done.err
    rows = json.loads((tmp_path / "x.json").read_text())
    assert rows["test"]["per_query"] == outputs["student"]
    assert rows["undistilled"]["per_query"] == outputs["teacher"]
    done = script("evaluate.py", weighted_run, *words, "--token_weights", "uniform")
    assert json.loads((tmp_path / "x.json").read_text()) != rows


def test_hybrid_reads_the_texts_that_were_indexed(finished_run, texts, script, tmp_path):
    copy, index = tmp_path / "copy.tsv", tmp_path / "index"
    copy.write_text(texts["tsv"].read_text(encoding="utf-8"), encoding="utf-8")
    assert script("search.py", "index", finished_run, copy, "--output", index, "--tokens").status == 0
    words = ["query", index, "--text", "the cat", "--run", finished_run, "--score", "hybrid", "--k", 8]
    done = script("search.py", *words)
    assert done.status == 0, done.err
    assert all("the cat" in line for line in done.out.splitlines()[:3])
    with copy.open("a", encoding="utf-8") as file:
        file.write("new\ttext\n")
    assert "this file has changed since" in script("search.py", *words).err
    copy.unlink()
    assert "are no longer there" in script("search.py", *words).err


@pytest.mark.parametrize("kind", ["flat", "ivf", "hnsw"])
def test_faiss(finished_run, index, texts, script, tmp_path, kind):
    pytest.importorskip("faiss")
    words = ["--run", finished_run, "--output", tmp_path / "x.run", "--k", 5, "--index", kind]
    options = {"ivf": ["--nlist", 4, "--nprobe", 4], "hnsw": ["--ef-search", 90]}.get(kind, [])
    done = script("search.py", "query", index, texts["queries"], *words, *options)
    assert done.status == 0, done.err
    assert f"{kind}: recall@5 against exact search is 1.0000" in done.out
    if kind != "flat":
        stored = next(index.glob(f"{kind}-*.faiss"))
        before = stored.stat().st_mtime_ns
        assert script("search.py", "query", index, texts["queries"], *words, *options).status == 0
        assert stored.stat().st_mtime_ns == before, "built once"


def test_without_faiss(finished_run, index, script, monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", None)
    done = script("search.py", "query", index, "--text", "a", "--run", finished_run, "--index", "ivf")
    assert (done.status, done.err) == (2, "search.py: error: FAISS is not installed: pip install 'potstill[faiss]'\n")


def test_goes_on_after_an_interruption(finished_run, index, texts, script, tmp_path):
    folder = tmp_path / "index"
    words = ["index", finished_run, texts["tsv"], "--output", folder, "--side", "teacher", "--block", 20]
    assert script("search.py", *words).status == 0
    for number in (1, 4):
        (folder / f"pooled-{number:05}.npy").unlink()
    broken = script("search.py", "query", folder, "--text", "a", "--run", finished_run)
    assert broken.status == 2
    assert "2 of 5 blocks are missing (the first is 1)" in broken.err
    assert script("search.py", *words).status == 0
    assert content(folder) == {name: data for name, data in content(index).items() if not name.endswith(".faiss")}


@pytest.mark.slow
def test_ranks_of_torchrun_write_the_same_bytes(finished_run, index, texts, tmp_path):
    words = ["index", finished_run, texts["tsv"], "--output", tmp_path / "two", "--side", "teacher", "--block", "20"]
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "search.py"]
    done = subprocess.run(
        [*command, *map(str, words)], cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("90 documents") == 1
    assert content(tmp_path / "two") == {n: data for n, data in content(index).items() if not n.endswith(".faiss")}


def test_wrong_input(finished_run, index, texts, script, tmp_path):
    out = ["--output", tmp_path / "out"]
    bad = tmp_path / "bad.tsv"
    bad.write_text("a\tone\nb\n", encoding="utf-8")
    cases = [
        (["index", finished_run, tmp_path / "none.tsv", *out], "none.tsv: no such file"),
        (["index", finished_run, bad, *out], "bad.tsv:2: "),
        (["index", tmp_path, texts["tsv"], *out], "no config.yaml there, expected the folder of a run"),
        (["index", finished_run, texts["tsv"], *out, "--block", 0], "block is 0, expected at least 1"),
        (["index", finished_run, texts["tsv"], *out, "--dtype", "int8"], "invalid choice: 'int8'"),
        (["index", finished_run, texts["tsv"], "--output", index], "holds vectors of another model"),
        (["index", finished_run, texts["jsonl"], "--output", texts["tsv"]], "this is a file"),
        (["index", finished_run, texts["tsv"], *out, "--checkpoint", tmp_path / "x.ckpt"], "no such checkpoint"),
        (["query", index, "--run", finished_run, *out], "either a file of queries or --text"),
        (["query", index, texts["queries"], "--run", finished_run], "expected --output"),
        (["query", tmp_path, "--text", "a", "--run", finished_run], "no manifest.json there"),
        (["query", index, "--text", "a", "--run", finished_run, "--score", "maxsim"], "index with --tokens"),
        (["query", index, "--text", "a", "--run", finished_run, "--memory-mb", 0], "memory_mb is 0"),
        (["query", index, "--text", "a", "--run", finished_run, "--k", 0], "k is 0"),
        (["query", index, "--text", "a", "--run", finished_run, "--index", "ivf", "--nlist", 91], "nlist is 91"),
        (["frobnicate"], "invalid choice: 'frobnicate'"),
        ([], "required: index|query"),
    ]  # fmt: skip
    for words, message in cases:
        done = script("search.py", *words)
        assert done.status == 2, words
        assert message in done.err
        assert done.err.startswith("search.py: error: ")
        assert done.err.count("\n") == 1
        assert not (tmp_path / "out").exists(), words


def test_help_imports_nothing_heavy():
    code = "import sys; sys.argv = ['search.py', 'index', '--help']; import search\n"
    code += "try: search.main()\nexcept SystemExit: pass\n"
    code += "assert not {'torch', 'transformers', 'faiss'} & set(sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "--batch-size" in done.stdout
