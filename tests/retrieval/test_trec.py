from __future__ import annotations

import bz2
import gzip
import lzma
import re
import subprocess
import sys
import warnings

import ir_measures
import numpy as np
import pytest

from foundations.errors import InputError
from foundations.files import write_whole
from retrieval.metrics import evaluate_run
from retrieval.trec import ranked_documents, read_qrels, read_run, write_qrels, write_run


def test_qrels_and_runs_come_back_as_written(tmp_path):
    qrels = {"q1": {"d1": 2, "d2": 0, "d3": -1}, "frage": {"d\u00a0ü": 1}}
    write_qrels(tmp_path / "test.qrels", qrels)
    assert read_qrels(tmp_path / "test.qrels") == qrels
    run = {"q1": {"d1": 0.1 + 0.2, "d2": -1e-300}, "frage": {"d\u00a0ü": float(np.float32(1 / 3))}}
    write_run(tmp_path / "test.run", run, tag="ot")
    assert read_run(tmp_path / "test.run") == run
    assert sorted(path.name for path in tmp_path.iterdir()) == ["test.qrels", "test.run"]


def test_run_file_is_what_ir_measures_reads(tmp_path):
    write_run(tmp_path / "run", {"q": {"a": 0.5, "b": 0.5, "c": 1, "d": np.float32(-0.1)}}, tag="ot")
    lines = (tmp_path / "run").read_text().splitlines()
    assert lines[:3] == ["q Q0 c 1 1.0 ot", "q Q0 b 2 0.5 ot", "q Q0 a 3 0.5 ot"]
    theirs = list(ir_measures.read_trec_run(str(tmp_path / "run")))
    assert [(row.query_id, row.doc_id) for row in theirs] == [("q", "c"), ("q", "b"), ("q", "a"), ("q", "d")]
    assert theirs[3].score == float(np.float32(-0.1))


def test_metrics_of_a_written_run_are_the_same(tmp_path):
    rng = np.random.default_rng(0)
    scores = np.concatenate([rng.normal(size=50), np.float32(0.3) + rng.integers(0, 3, 50) * 1e-9])
    run = {f"q{i}": {f"d{j}": float(s) for j, s in enumerate(rng.permutation(scores))} for i in range(20)}
    qrels = {query: {f"d{j}": 1 for j in rng.integers(100, size=5)} for query in run}
    write_run(tmp_path / "run", run)
    names = ["map", "ndcg@10", "mrr@10", "mrr", "recall@5"]
    assert evaluate_run(read_run(tmp_path / "run"), qrels, names) == evaluate_run(run, qrels, names)


def test_ranks_are_those_of_trec_eval():
    """pytrec_eval finds each document at the rank that the run file gives it."""
    rng = np.random.default_rng(1)
    scores = {f"d{i}": float(s) for i, s in enumerate(0.5 + rng.integers(0, 4, 30) * 3e-8)}
    ranked = ranked_documents(scores)
    qrels = {document: {document: 1} for document in scores}
    values = ir_measures.pytrec_eval.iter_calc([ir_measures.RR], qrels, dict.fromkeys(scores, scores))
    assert {value.query_id: round(1 / value.value) for value in values} == {
        document: rank for rank, document in enumerate(ranked, start=1)
    }


@pytest.mark.parametrize(
    "text",
    [
        "q1 0 d1 1\nq1 0 d2 0\nq2 0 d1 3\n",
        "q1\t0\td1\t1\r\nq1\t0\td2\t0\r\n\r\nq2\t0\td1\t3",
        "q1\td1\t1\nq1\td2\t0\nq2\td1\t+3\n",
        "\ufeffq1 Q0 d1 1\n  q1   Q0  d2 0 \nq2 Q0 d1 3\n\n",
        "# who judged this 3\n#\nq1 0 d1 1\n#x\nq1 0 d2 0\n# q1 0 d9 1\nq2 0 d1 3\n#end",
        "query-id\tcorpus-id\tscore\nq1\td1\t1\nq1\td2\t0\nq2\td1\t3\n",
    ],
)
def test_qrels_with_spaces_tabs_three_columns_and_blank_lines(tmp_path, text):
    (tmp_path / "qrels").write_bytes(text.encode())
    assert read_qrels(tmp_path / "qrels") == {"q1": {"d1": 1, "d2": 0}, "q2": {"d1": 3}}


@pytest.mark.parametrize(
    ("text", "where", "message"),
    [
        (b"q1 0 d1 1\nq1 0 d2\n", ":2: ", "found 3 columns, expected 4 columns like the lines before"),
        (b"q1 d1 1\nq1 0 d2 1\n", ":2: ", "found 4 columns, expected 3 columns like the lines before"),
        (b"\nq1\n", ":2: ", "found 1 column, expected 'query 0 document grade'"),
        (b"q1 0 d1 yes\n", ":1: ", "the grade is 'yes', expected an integer"),
        (b"q1 0 d1 1.0\n", ":1: ", "the grade is '1.0', expected an integer"),
        (b"q1 0 d1 1_0\n", ":1: ", "the grade is '1_0', expected an integer"),
        (b"q1 0 d1 nan\n", ":1: ", "the grade is 'nan', expected an integer"),
        (b"q1 0 d1 1\nq2 0 d1 1\nq1 0 d1 2\n", ":3: ", "document 'd1' is judged twice for query 'q1'"),
        (b"q1 0 d1 1\nq1 0 d\xff 1\n", ":2: ", "invalid UTF-8 (invalid start byte), expected 'query 0 document"),
        (b"", ": ", "the file is empty, expected lines of 'query 0 document grade'"),
        (b"\n \n", ": ", "the file is empty"),
        (b"# nothing\n", ": ", "the file holds no judgment"),
        (b"q1 0 d1 2147483648\n", ":1: ", "the grade is 2147483648, expected at most 2147483647"),
        (b"q1 0 d1 -99999999999999999999\n", ":1: ", "the grade is -99999999999999999999, expected at most"),
        (b"q1 0 d1 1\nquery-id corpus-id 0 score\n", ":2: ", "the grade is 'score', expected an integer"),
    ],
)
def test_wrong_qrels_are_named_by_line(tmp_path, text, where, message):
    check_message(read_qrels, tmp_path / "x.qrels", text, where, message)


@pytest.mark.parametrize(
    ("text", "where", "message"),
    [
        (
            b"q Q0 d 1 0.5 tag\nq Q0 e 2 0.4\n",
            ":2: ",
            "found 5 columns, expected 6: 'query Q0 document rank score tag'",
        ),
        (b"q Q0 d 1 0.5 my tag\n", ":1: ", "found 7 columns, expected 6"),
        (b"q Q0 d first 0.5 tag\n", ":1: ", "the rank is 'first', expected an integer"),
        (b"q Q0 d 1 high tag\n", ":1: ", "the score is 'high', expected a finite number"),
        (b"q Q0 d 1 1_0 tag\n", ":1: ", "the score is '1_0', expected a finite number"),
        (b"q Q0 d 1 0.5 t\nq Q0 e 2 NaN t\n", ":2: ", "the score is 'NaN', expected a finite number"),
        (b"q Q0 d 1 -inf tag\n", ":1: ", "the score is '-inf', expected a finite number"),
        (b"q Q0 d 1 1e999 tag\n", ":1: ", "the score is '1e999', expected a finite number"),
        (b"q Q0 d 1 2 t\nr Q0 d 1 2 t\nq Q0 d 3 0 t\n", ":3: ", "document 'd' appears twice for query 'q'"),
        ("q Q0 d 1 2 t\n".encode("utf-16"), ": ", "this is UTF-16, expected UTF-8"),
        (b"# nothing\n", ": ", "the file holds no result"),
        (b"", ": ", "the file is empty, expected lines of 'query Q0 document rank score tag'"),
    ],
)
def test_wrong_runs_are_named_by_line(tmp_path, text, where, message):
    check_message(read_run, tmp_path / "x.run", text, where, message)


def check_message(read, path, text, where, message):
    path.write_bytes(text)
    with pytest.raises(InputError, match=re.escape(f"{path}{where}{message}")) as caught:
        read(path)
    assert "\n" not in str(caught.value)


def test_a_header_of_judgments_is_said_unless_it_is_that_of_beir(tmp_path):
    (tmp_path / "qrels").write_text("qid 0 docid relevance\nq1 0 d1 1\n")
    with pytest.warns(UserWarning, match=r"qrels: line 1 is a header \(qid 0 docid relevance\) and is passed over"):
        assert read_qrels(tmp_path / "qrels") == {"q1": {"d1": 1}}
    (tmp_path / "qrels").write_text("query-id\tcorpus-id\tscore\nq1\td1\t1\n")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read_qrels(tmp_path / "qrels") == {"q1": {"d1": 1}}


def test_comments_in_runs_and_ids_that_look_like_comments(tmp_path):
    run, qrels = {"#q": {"#d": 1.5, "d": 0.5}}, {"#q": {"#d": 1}}
    write_run(tmp_path / "run", run)
    write_qrels(tmp_path / "qrels", qrels)
    for name in ("run", "qrels"):
        content = (tmp_path / name).read_text()
        (tmp_path / name).write_text(f"# made today\n#\n{content}# q Q0 d 1 0.5 tag\n#end")
    assert read_run(tmp_path / "run") == run
    assert read_qrels(tmp_path / "qrels") == qrels
    with pytest.raises(ValueError, match="the id '#' is the sign of a comment"):
        write_run(tmp_path / "run", {"#": {"d": 1.0}})


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress])
def test_compressed_runs_and_qrels(tmp_path, pack):
    (tmp_path / "x").write_bytes(pack(b"q Q0 d 1 0.5 tag\n"))
    assert read_run(tmp_path / "x") == {"q": {"d": 0.5}}
    (tmp_path / "x").write_bytes(pack(b"q 0 d 1\n"))
    assert read_qrels(tmp_path / "x") == {"q": {"d": 1}}


def test_missing_files_and_folders(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        read_run(tmp_path / "none.run")
    with pytest.raises(InputError, match="this is a folder, expected a file"):
        read_qrels(tmp_path)
    with pytest.raises(InputError, match=r"the folder .* does not exist"):
        write_run(tmp_path / "no" / "x.run", {"q": {"d": 1.0}})


@pytest.mark.parametrize(
    ("run", "message"),
    [
        ({"q": {"d": 1.0}, "r": {"e": float("nan")}}, "query 'r', document 'e': the score is nan"),
        ({"q": {"d": 1.0, "e f": 2.0}}, "the id 'e f' is empty or holds white space"),
        ({"q": {"d": 1.0}, "": {"d": 2.0}}, "the id '' is empty"),
        ({"q": {}}, "the run to write holds no document"),
    ],
)
def test_an_unusable_run_leaves_the_old_file(tmp_path, run, message):
    path = tmp_path / "x.run"
    path.write_text("old")
    with pytest.raises(ValueError, match=re.escape(message)):
        write_run(path, run)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_killed_writer_leaves_the_old_file(tmp_path):
    path = tmp_path / "x.json"
    path.write_text("old")
    script = (
        "import os, sys\nfrom foundations.files import write_whole\n"
        "with write_whole(sys.argv[1]) as file:\n    file.write('half'); file.flush(); os._exit(9)\n"
    )
    assert subprocess.run([sys.executable, "-c", script, str(path)], check=False).returncode == 9
    assert path.read_text() == "old"
    with write_whole(path) as file:
        file.write("new")
    assert path.read_text() == "new"
