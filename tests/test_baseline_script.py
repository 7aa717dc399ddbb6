"""baseline.py: runs of BM25, fused runs, reranked runs; and its messages."""

import gzip
import json
import shutil
import warnings

import pytest

from retrieval.trec import read_qrels, read_run, write_qrels, write_run


@pytest.fixture(scope="module")
def english(tsv_folder):
    return ["--queries", tsv_folder / "queries.english.tsv", "--documents", tsv_folder / "documents.tsv"]


def test_bm25_of_a_run_folder_with_translations_finds_everything(script, finished_run, tsv_folder, tmp_path):
    output, scores = tmp_path / "bm25.run", tmp_path / "scores.json"
    words = ["bm25", finished_run, "--translations", tsv_folder / "queries.english.tsv", "--output", output]
    done = script("baseline.py", *words)
    assert done.status == 0, done.err
    assert set(read_run(output)) == set(read_qrels(finished_run / "test.qrels"))
    qrels = finished_run / "test.qrels"
    done = script("evaluate.py", "--run", output, "--qrels", qrels, "--metrics", "map", "--json", scores)
    assert done.status == 0, done.err
    assert json.loads(scores.read_text())["test"]["means"]["map"] == 1.0
    done = script("compare.py", finished_run / "test.pooled.run", output, "--qrels", qrels, "--metrics", "map")
    assert done.status == 0, done.err


def test_lexicon_translates_words(script, tsv_folder, tmp_path, english):
    lexicon, output, direct = tmp_path / "lexicon.tsv", tmp_path / "bm25.run", tmp_path / "english.run"
    pairs = [line.split("\t") for line in (tsv_folder / "pairs.tsv").read_text().splitlines()]
    lexicon.write_text("".join(f"{x}\t{a}\n" for a, x in pairs if " " not in a))
    words = ["--queries", tsv_folder / "queries.tsv", "--documents", tsv_folder / "documents.tsv"]
    done = script("baseline.py", "bm25", *words, "--lexicon", lexicon, "--output", output)
    assert done.status == 0, done.err
    assert script("baseline.py", "bm25", *english, "--output", direct).status == 0
    translated, expected = read_run(output), read_run(direct)
    assert translated == {query: expected[query] for query in translated}


def test_fusing_a_run_with_itself_keeps_its_order(script, tmp_path, english):
    run, fused = tmp_path / "a.run", tmp_path / "fused.run"
    assert script("baseline.py", "bm25", *english, "--output", run).status == 0
    for method in ("rrf", "linear"):
        done = script("baseline.py", "fuse", run, run, "--method", method, "--output", fused)
        assert done.status == 0, done.err
        before, after = read_run(run), read_run(fused)
        assert {query: list(scores) for query, scores in before.items()} == {
            query: list(scores) for query, scores in after.items()
        }


def test_fusing_runs_that_share_no_query_warns(script, tmp_path):
    paths = [tmp_path / "a.run", tmp_path / "b.run"]
    for path in paths:
        write_run(path, {path.stem: {"d": 1.0}})
    with pytest.warns(UserWarning, match="no query is in all of the runs"):
        assert script("baseline.py", "fuse", *paths, "--output", tmp_path / "fused.run").status == 0
    assert set(read_run(tmp_path / "fused.run")) == {"a", "b"}


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_bm25_reads_json_lines(script, tmp_path, english, pack):
    texts = dict(zip(english[::2], english[1::2], strict=True))
    words = []
    for option, path in texts.items():
        rows = [line.split("\t") for line in path.read_text().splitlines()]
        content = "".join(json.dumps({"_id": name, "title": None, "text": text}) + "\n" for name, text in rows)
        copy = tmp_path / f"{option.strip('-')}.jsonl"
        copy.write_bytes(pack(content.encode()))
        words += [option, copy]
    runs = [tmp_path / "tsv.run", tmp_path / "json.run"]
    for run, arguments in zip(runs, (english, words), strict=True):
        done = script("baseline.py", "bm25", *arguments, "--output", run)
        assert done.status == 0, done.err
    assert runs[0].read_text() == runs[1].read_text()


def test_what_evaluate_says_of_the_queries(script, tmp_path):
    run, qrels = tmp_path / "a.run", tmp_path / "qrels"
    write_run(run, {"q1": {"d": 1.0}, "q2": {"e": 1.0}, "extra": {"d": 1.0}})
    for judged, message, said in (
        ({"q1": 1, "q2": 2}, None, "2 of 2 judged queries scored; 1 queries of the run have no judgments"),
        ({"q1": 1, "q2": 2, "q3": 1, "q4": 1}, "2 of the 4 judged queries are not in the run and count as 0", "2 of 4"),
        ({"other": 1}, "none of its 3 queries is in the qrels: are these the right qrels?", "0 of 1 judged queries"),
    ):
        write_qrels(qrels, {query: {"d": grade} for query, grade in judged.items()})
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            names = ["map", "AP(rel=2)", "Judged@10", "ndcg_cut_10"]
            done = script("evaluate.py", "--run", run, "--qrels", qrels, "--metrics", *names)
        assert done.status == 0, done.err
        assert said in done.out
        assert all(name in done.out for name in ("map(rel=2)", "judged@10", "ndcg@10"))
        ours = [str(each.message) for each in caught if "a.run" in str(each.message)]
        assert ours == ([] if message is None else ours[:1])
        assert message is None or message in ours[0]
    qrels.write_text("q1 0 d 99999999999999999999\n")
    done = script("evaluate.py", "--run", run, "--qrels", qrels)
    assert (done.status, done.err) == (
        2,
        f"evaluate.py: error: {qrels}:1: the grade is {'9' * 20}, expected at most {2**31 - 1}\n",
    )


@pytest.mark.parametrize("score", ["pooled", "maxsim"])
def test_reranking_everything_equals_the_search(script, finished_run, tsv_folder, tmp_path, score):
    documents = [line.split("\t")[0] for line in (tsv_folder / "documents.tsv").read_text().splitlines()]
    queries = list(read_qrels(finished_run / "test.qrels"))
    everything, output, scores = tmp_path / "all.run", tmp_path / "reranked.run", tmp_path / "scores.json"
    write_run(everything, {query: dict.fromkeys(documents, 0.0) for query in queries})
    words = ["--run", everything, "--depth", len(documents), "--score", score, "--output", output]
    done = script("baseline.py", "rerank", finished_run, *words)
    assert done.status == 0, done.err
    done = script("evaluate.py", finished_run, "--score", score, "--metrics", "map", "--json", scores)
    assert done.status == 0, done.err
    expected = json.loads(scores.read_text())["test"]["means"]["map"]
    qrels = finished_run / "test.qrels"
    done = script("evaluate.py", "--run", output, "--qrels", qrels, "--metrics", "map", "--json", scores)
    assert json.loads(scores.read_text())["test"]["means"]["map"] == pytest.approx(expected, abs=1e-9)
    if score == "pooled":
        reranked = read_run(output)
        for query, retrieved in read_run(finished_run / "test.pooled.run").items():
            assert retrieved == {document: reranked[query][document] for document in retrieved}


def test_reranking_leaves_out_what_is_below_the_depth(script, finished_run, tmp_path):
    run, output = finished_run / "test.pooled.run", tmp_path / "reranked.run"
    done = script("baseline.py", "rerank", finished_run, "--run", run, "--depth", "3", "--output", output)
    assert done.status == 0, done.err
    before, after = read_run(run), read_run(output)
    assert {query: dict(list(scores.items())[:3]) for query, scores in before.items()} == after


def test_tuned_weights_stay_with_the_run(script, finished_run, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(finished_run, run)
    done = script("baseline.py", "tune", run)
    assert done.status == 0, done.err
    tuned = json.loads((run / "hybrid.json").read_text())
    assert (len(tuned["tried"]), tuned["metric"], tuned["token_weights"]) == (30, "map", "norm")
    assert tuned["weights"] == tuned["tried"][0]["weights"]
    assert f"dev map {tuned['tried'][0]['value']:.3f}, pooled alone" in done.out

    def means(*words):
        done = script("evaluate.py", run, "--metrics", "map", "--json", tmp_path / "x.json", *words)
        assert done.status == 0, done.err
        return json.loads((tmp_path / "x.json").read_text())["test"]

    for weights, words in (
        ({"pooled": 0, "maxsim": 1, "bm25": 0}, ["--score", "maxsim", "--token_weights", "norm"]),
        ({"pooled": 1, "maxsim": 0, "bm25": 0}, ["--score", "pooled"]),
    ):
        (run / "hybrid.json").write_text(json.dumps(tuned | {"weights": weights}))
        assert means("--score", "hybrid") == means(*words)


def test_messages(script, finished_run, tsv_folder, tmp_path, english):
    run, output = finished_run / "test.pooled.run", tmp_path / "out.run"
    unknown, short = tmp_path / "unknown.run", tmp_path / "short.tsv"
    unknown.write_text("nobody Q0 d 1 1.0 x\n")
    short.write_text("nobody\ttext\n")
    no_words = tmp_path / "no_words.tsv"
    no_words.write_text("a\t!?\n")
    cases = [
        ([], "COMMAND"),
        (["bm25", "--output", output], "expected either a run folder"),
        (["bm25", finished_run, *english, "--output", output], "expected either a run folder"),
        (["bm25", *english, "--output", tmp_path / "none" / "x.run"], "in a folder that exists"),
        (["bm25", *english, "--k", "0", "--output", output], "--k is 0"),
        (["bm25", *english, "--b", "2", "--output", output], "b is 2.0"),
        (["bm25", *english[:2], "--documents", no_words, "--output", output], "hold no word"),
        (["bm25", "--queries", no_words, *english[2:], "--output", output], "no query has a word"),
        (["bm25", finished_run, "--translations", short, "--output", output], "short.tsv: no line for the query"),
        (["bm25", finished_run, "--collection", "tset", "--output", output], "no collection 'tset'"),
        (["bm25", tmp_path, "--output", output], "no config.yaml"),
        (["fuse", run, "--output", output], "found 1 run"),
        (["fuse", run, run, "--weights", "1", "--output", output], "1 weights for 2 runs"),
        (["fuse", run, tmp_path / "none.run", "--output", output], "no such file"),
        (["rerank", finished_run, "--run", unknown, "--output", output], "unknown.run: the query 'nobody' is not"),
        (["rerank", finished_run, "--run", run, "--depth", "0", "--output", output], "--depth is 0"),
    ]
    for arguments, message in cases:
        done = script("baseline.py", *arguments)
        assert done.status == 2, (arguments, done)
        assert message in done.err, (arguments, done.err)
        assert done.err.startswith("baseline.py: error: ")
        assert "Traceback" not in done.err
        assert not output.exists()
