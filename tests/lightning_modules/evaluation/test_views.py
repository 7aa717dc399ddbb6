from __future__ import annotations

import json
import statistics
from dataclasses import replace

import pytest
import torch

from foundations.errors import InputError
from lightning_modules.distillation import DistillationModule
from lightning_modules.evaluation.callback import RetrievalEvaluation
from lightning_modules.evaluation.encoding import EncodedTexts
from lightning_modules.evaluation.ranking import rank
from lightning_modules.run import plots
from lightning_modules.run.run_folder import write_results
from lightning_modules.students.transformer import TransformerEncoder
from lightning_modules.teachers.base import Teacher
from retrieval.collection import Collection, View
from retrieval.compare import compare_runs, load_runs
from retrieval.index.tokens import TokenMatrix
from retrieval.metrics import evaluate_run
from retrieval.results import averages
from retrieval.table import print_table, results_table
from retrieval.trec import read_qrels, read_run
from retrieval.views import check_views
from strategies.base import Embeddings
from strategies.mse import MSE

IMAGES, CAPTIONS = 13, 5
METRICS = ["rsum", "success@1", "success@5", "success@10", "median_rank"]


def flickr_like(captions: int = CAPTIONS, name: str = "test") -> Collection:
    """Images with some captions each; the last image has one only."""
    queries = {f"i{i:02}#{c}": f"caption {c} of {i}" for i in range(IMAGES) for c in range(captions if i < 12 else 1)}
    documents = {f"i{i:02}": f"image {i}" for i in range(IMAGES)}
    qrels = {query: {query[:3]: 1} for query in queries}
    back = {image: {query: 1 for query in queries if query[:3] == image} for image in documents}
    views = (View("text_to_image", qrels), View("image_to_text", back, transposed=True))
    return Collection(name, queries, documents, qrels, views=views)


def random_texts(ids, seed: int) -> EncodedTexts:
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, 5, (len(ids),), generator=generator)
    tokens = torch.nn.functional.normalize(torch.randn(int(lengths.sum()), 6, generator=generator), dim=1)
    pooled = torch.randn(len(ids), 4, generator=generator).round()  # many equal vectors, so many ties
    pooled[pooled.abs().sum(1) == 0, 0] = 1
    return EncodedTexts(list(ids), pooled, TokenMatrix(tokens, torch.nn.functional.pad(lengths.cumsum(0), (1, 0))))


def scores_by_hand(asking: EncodedTexts, asked: EncodedTexts, kind: str) -> dict[str, dict[str, float]]:
    table = {}
    for row, name in enumerate(asking.ids):
        table[name] = {}
        for place, other in enumerate(asked.ids):
            if kind == "pooled":
                value = torch.cosine_similarity(asking.pooled[row].double(), asked.pooled[place].double(), dim=0)
                table[name][other] = round(float(value), 6)
            else:
                mine, theirs = (
                    each.tokens.select(torch.tensor([at])).values for each, at in ((asking, row), (asked, place))
                )
                table[name][other] = float((mine @ theirs.T).max(1).values.sum())
    return table


def best_rank(scores: dict[str, float], relevant) -> int:
    order = sorted(scores, reverse=True)
    order.sort(key=scores.get, reverse=True)  # stable: ties by descending id
    return min(order.index(name) + 1 for name in relevant)


@pytest.mark.parametrize("kind", ["pooled", "maxsim"])
def test_image_text_metrics_equal_a_slow_loop(kind):
    collection = flickr_like()
    queries, documents = random_texts(sorted(collection.queries), 0), random_texts(collection.documents, 1)
    result = rank(queries, documents, collection, METRICS, kind, 100)
    images = {image: [query for query in collection.queries if query[:3] == image] for image in collection.documents}
    forward = scores_by_hand(queries, documents, kind)
    backward = scores_by_hand(documents, queries, kind)
    ranks = {
        "text_to_image": {query: best_rank(forward[query], [query[:3]]) for query in forward},
        "image_to_text": {image: best_rank(backward[image], captions) for image, captions in images.items()},
    }
    total = 0.0
    for view, found in ranks.items():
        assert result.means[f"{view}/median_rank"] == statistics.median(found.values())
        for k in (1, 5, 10):
            share = sum(place <= k for place in found.values()) / len(found)
            assert result.means[f"{view}/success@{k}"] == pytest.approx(share)
            assert result.per_query[f"{view}/success@{k}"] == {name: place <= k for name, place in found.items()}
            total += 100 * share
    assert result.means["rsum"] == pytest.approx(total)
    assert 0 < total < 600
    assert sum(result.per_query["rsum"].values()) / IMAGES == pytest.approx(total)
    assert list(result.per_query["rsum"]) == list(collection.documents)
    assert set(result.runs) == {f"text_to_image.{kind}", f"image_to_text.{kind}"}


def regions(**options) -> Collection:
    """Phrases of two images with the regions of their own image, by type."""
    queries = {f"a{n}": f"phrase {n}" for n in range(6)} | {f"b{n}": f"phrase {n}" for n in range(4)}
    documents = {f"{image}-{n}": f"region {n}" for image, count in (("a", 4), ("b", 7)) for n in range(count)}
    qrels = {query: {f"{query[0]}-{int(query[1]) % 3}": 1, "a-3": 1} for query in queries}
    candidates = {query: [name for name in documents if name[0] == query[0]] for query in queries}
    candidates["b3"] = ["b-6", "b-5"]  # nothing relevant
    groups = {query: "people" if int(query[1]) % 2 else ("animals", "other") for query in queries if query != "a0"}
    view = View("regions", qrels, candidates=candidates, groups=groups)
    return Collection("test", queries, documents, qrels, views=(view,), **options)


@pytest.mark.parametrize("kind", ["pooled", "maxsim"])
def test_only_candidates_are_ranked_and_groups_have_means(kind):
    collection = regions()
    (view,) = collection.views
    queries, documents = random_texts(sorted(collection.queries), 2), random_texts(sorted(collection.documents), 3)
    metrics = ["success@1", "success@2", "median_rank", "upper_bound"]
    result = rank(queries, documents, collection, metrics, kind, 3)
    scores = scores_by_hand(queries, documents, kind)
    run = result.runs[f"regions.{kind}"]
    ranks = {}
    for query, candidates in view.candidates.items():
        own = {name: scores[query][name] for name in candidates}
        order = sorted(sorted(own, reverse=True), key=own.get, reverse=True)
        assert sorted(run[query], key=lambda name: (run[query][name], name), reverse=True) == order[:3]
        relevant = [name for name in view.qrels[query] if name in own]
        ranks[query] = best_rank(own, relevant) if relevant else len(own) + 1
    for k in (1, 2):
        assert result.per_query[f"regions/success@{k}"] == {
            query: float(place <= k and query != "b3") for query, place in ranks.items()
        }
    assert result.means["regions/median_rank"] == statistics.median(ranks.values())
    assert result.means["regions/upper_bound"] == pytest.approx(0.9)
    values = result.per_query["regions/success@1"]
    for group, members in (("people", "a1 a3 a5 b1 b3"), ("animals", "a2 a4 b0 b2"), ("other", "a2 a4 b0 b2")):
        own = [values[name] for name in members.split()]
        assert result.means[f"regions/{group}/success@1"] == pytest.approx(sum(own) / len(own))
        assert set(result.per_query[f"regions/{group}/success@1"]) == set(members.split())


def test_with_both_scores_those_of_tokens_have_their_prefix():
    collection = flickr_like()
    queries, documents = random_texts(sorted(collection.queries), 0), random_texts(collection.documents, 1)
    both = rank(queries, documents, collection, METRICS, "both", 100)
    for kind, prefix in (("pooled", ""), ("maxsim", "maxsim/")):
        alone = rank(queries, documents, collection, METRICS, kind, 100)
        assert {prefix + name: value for name, value in alone.means.items()}.items() <= both.means.items()
    assert {"rsum", "maxsim/rsum", "maxsim/image_to_text/success@5"} <= set(both.means)


def test_metrics_of_the_written_runs_are_those_of_the_result(tmp_path):
    collection = flickr_like()
    queries, documents = random_texts(sorted(collection.queries), 0), random_texts(collection.documents, 1)
    result = rank(queries, documents, collection, METRICS, "pooled", 100)
    write_results(tmp_path, {"test": result}, {"test": collection})
    for view in ("text_to_image", "image_to_text"):
        run, qrels = read_run(tmp_path / f"test.{view}.pooled.run"), read_qrels(tmp_path / f"test.{view}.qrels")
        again = evaluate_run(run, qrels, ["success@5"])["success@5"]
        assert again == result.per_query[f"{view}/success@5"]
    assert json.loads((tmp_path / "metrics.json").read_text())["test"] == result.means


def test_runs_with_views_can_be_compared(tmp_path):
    collection = flickr_like()
    for seed in (1, 2):
        queries, documents = random_texts(sorted(collection.queries), 0), random_texts(collection.documents, seed)
        result = rank(queries, documents, collection, METRICS, "pooled", 100)
        (tmp_path / str(seed)).mkdir()
        write_results(tmp_path / str(seed), {"test": result}, {"test": collection})
    runs = load_runs([str(tmp_path / "1"), str(tmp_path / "2")])
    found = {(one.metric, one.run): one for one in compare_runs(runs)}
    assert found["rsum", "2"].queries == IMAGES
    assert found["text_to_image/success@1", "2"].queries == len(collection.queries)
    assert found["rsum", "2"].mean == pytest.approx(result.means["rsum"])
    with pytest.raises(InputError, match="median_rank is no mean"):
        compare_runs(runs, ["image_to_text/median_rank"])


def bad(**changes) -> View:
    qrels = {"i00#0": {"i00": 1}}
    return View(**({"name": "own", "qrels": qrels} | changes))


@pytest.mark.parametrize(
    ("views", "message"),
    [
        ([bad(name="maxsim")], "expected a name of its own"),
        ([bad(name="Text to image")], "expected a name of its own"),
        ([bad(), bad()], "expected a name of its own"),
        ([bad(qrels={"i00#0": {"i00": 0}})], "has no relevant document"),
        ([bad(qrels={"i99#0": {"i00": 1}})], "names 'i99#0'"),
        ([bad(qrels={"i00#0": {"i99": 1}})], "names 'i99'"),
        ([bad(transposed=True)], "names 'i00#0'"),
        ([bad(candidates={"i00#0": ["i98"]})], "names 'i98'"),
        ([bad(transposed=True, candidates={})], "a transposed view has no candidates"),
        ([bad(groups={"i97": "people"})], "names 'i97'"),
    ],
)
def test_views_that_do_not_fit_are_refused(views, message):
    collection = flickr_like()
    with pytest.raises(ValueError, match=message):
        check_views(Collection("test", collection.queries, collection.documents, collection.qrels, views=tuple(views)))


def test_metrics_that_do_not_fit_are_refused():
    plain = Collection("test", {"q": "a"}, {"d": "b"}, {"q": {"d": 1}})
    for metrics, data, message in (
        (["rsum"], plain, "rsum adds up views"),
        (["upper_bound"], flickr_like(), "no view of the collection 'test' has any"),
    ):
        with pytest.raises(InputError, match=message):
            RetrievalEvaluation(metrics).check({"test": data})
    with pytest.raises(InputError, match="above 12"):
        RetrievalEvaluation(["success@1"], shard_texts=12).check({"test": flickr_like()})
    with pytest.raises(InputError, match="median_rank needs all"):
        RetrievalEvaluation(["median_rank"], shard_texts=0).check({"test": plain})
    with pytest.raises(ValueError, match="rsum needs the first 10"):
        RetrievalEvaluation(["rsum"], k=5)
    with pytest.raises(ValueError, match="rsum has no cutoff"):
        RetrievalEvaluation(["rsum@5"])
    with pytest.raises(ValueError, match="belongs to a run's evaluation"):
        evaluate_run({"q": {"d": 1.0}}, {"q": {"d": 1}}, ["rsum"])


class GivenTeacher(Teacher):
    """Knows the vectors of some texts."""

    dim = 4
    prepare = fit_idf = lambda *_, **__: None

    def __init__(self, vectors):
        self.vectors = vectors

    def encode(self, texts, tokens=False, device=None, side="queries"):
        return Embeddings(torch.stack([self.vectors[text] for text in texts]))


@pytest.fixture
def logged_by(evaluate, tiny_bert):
    """A function that gives what a validation logs, of vectors that are given instead of encoded."""

    def logged_by(callback: RetrievalEvaluation, *collections: Collection) -> dict[str, float]:
        vectors, given = {}, []
        for number, collection in enumerate(collections):
            renamed = {side: {} for side in ("queries", "documents")}
            for side, seed in (("queries", number), ("documents", 9)):
                texts = random_texts(sorted(collection.texts(side)), seed)
                renamed[side] = {name: f"{collection.name} {side} {name}" for name in collection.texts(side)}
                vectors |= {renamed[side][name]: row for name, row in zip(texts.ids, texts.pooled, strict=True)}
            given.append(replace(collection, **renamed))
        module = DistillationModule(TransformerEncoder(tiny_bert, max_length=32), GivenTeacher(vectors), MSE())
        module.reader_of = lambda *_: "teacher"
        return evaluate(callback, module, *given, test=False)

    return logged_by


def test_the_first_metric_is_logged_without_a_view_to_choose_checkpoints_by(logged_by):
    logged = logged_by(RetrievalEvaluation(["success@1", "rsum"]), flickr_like(name="dev"))
    views = [logged[f"dev/{view}/success@1"] for view in ("text_to_image", "image_to_text")]
    assert logged["dev/success@1"] == pytest.approx(sum(views) / 2)
    assert "dev/success@5" not in logged
    assert RetrievalEvaluation(["rsum"]).monitor_mode == "max"
    assert RetrievalEvaluation(["median_rank", "rsum"]).monitor_mode == "min"


def test_several_languages_have_views_and_averages(logged_by):
    names = ("dev/sw", "dev/so")
    logged = logged_by(RetrievalEvaluation(["success@1", "rsum"]), *(flickr_like(name=name) for name in names))
    for metric in ("rsum", "success@1", "image_to_text/success@1"):
        own = [logged[f"{name}/{metric}"] for name in names]
        assert own[0] != own[1]
        assert logged[f"dev/{metric}"] == pytest.approx(sum(own) / 2)


def test_a_group_that_one_language_lacks_has_no_average(capsys, logged_by):
    rows = {}
    for name in ("sw", "so"):
        collection = regions()
        (view,) = collection.views
        if name == "so":
            view = replace(view, groups=dict.fromkeys(view.groups, "people"))
        queries, documents = random_texts(sorted(collection.queries), 2), random_texts(sorted(collection.documents), 3)
        collection = replace(collection, name=f"dev/{name}", views=(view,))
        rows[name] = {"test": rank(queries, documents, collection, ["success@1", "median_rank"], "pooled", 10)}
    means = {name: {"test": found["test"].means} for name, found in rows.items()}
    average = averages(means)["test"]
    assert "regions/people/success@1" in average
    assert "regions/animals/success@1" not in average
    grouped = {name: {"test": found["test"].per_query} for name, found in rows.items()}
    print_table(results_table(grouped, "words", means))
    animals = [line.split() for line in capsys.readouterr().out.splitlines() if "regions/animals" in line]
    assert [line[-1] != "-" for line in animals] == [True, False, False]
    callback = RetrievalEvaluation(["success@1"])
    assert "dev/regions/success@1" in logged_by(callback, *(
        replace(regions(), name=f"dev/{name}", views=(replace(regions().views[0], groups=groups),))
        for name, groups in (("sw", {"a1": "people"}), ("so", {}))
    ))  # fmt: skip


def test_the_table_has_a_line_a_view_and_score(capsys):
    collection = flickr_like()
    queries, documents = random_texts(sorted(collection.queries), 0), random_texts(collection.documents, 1)
    result = rank(queries, documents, collection, ["rsum", "success@1", "median_rank"], "both", 100)
    print_table(results_table({"": {"test": result.per_query}}, "words", {"": {"test": result.means}}))
    lines = [line.split() for line in capsys.readouterr().out.splitlines() if line.split()]
    assert lines[1] == ["view", "rsum", "success@1", "median_rank"]
    names = ["all", "text_to_image", "image_to_text", "all, MaxSim", "text_to_image, MaxSim", "image_to_text, MaxSim"]
    found = [" ".join(line) for line in lines[3:]]
    assert [name for name, line in zip(names, found, strict=True) if name in line] == names
    assert f" {result.means['rsum']:.1f} [" in found[0]
    assert found[1].endswith(f" {result.means['text_to_image/median_rank']:g}")
    assert f" {result.means['maxsim/image_to_text/success@1']:.3f} [" in found[5]
    assert found[5].endswith(f" {result.means['maxsim/image_to_text/median_rank']:g}")


def test_plots_draw_each_view_and_group(tmp_path, monkeypatch):
    drawn: list[list[str]] = []
    monkeypatch.setattr(plots, "_save", lambda figure, path: drawn.append([a.get_title() for a in figure.axes]) or path)
    collection = flickr_like()
    queries, documents = random_texts(sorted(collection.queries), 0), random_texts(collection.documents, 1)
    result = rank(queries, documents, collection, METRICS, "pooled", 100)
    plots.plot_rows(tmp_path / "results.png", {"test": result})
    assert drawn.pop() == ["rsum"] + [f"{view.name}\nsuccess@{k}" for view in collection.views for k in (1, 5, 10)]
    assert plots.plot_groups(tmp_path / "groups.png", {"test": result}) is None
    grouped = regions()
    queries, documents = random_texts(sorted(grouped.queries), 2), random_texts(sorted(grouped.documents), 3)
    result = rank(queries, documents, grouped, ["success@1", "upper_bound"], "pooled", 3)
    assert plots.plot_groups(tmp_path / "groups.png", {"test": result}) == tmp_path / "groups.png"
    assert drawn.pop() == ["regions, success@1"]
    history = [
        {"step": step, "train/loss": 1.0, **{f"dev/{name}": 0.5 for name in
         ("sw/rsum", "rsum", "sw/text_to_image/success@1", "text_to_image/success@1", "regions/people/success@1")}}
        for step in (1.0, 2.0)
    ]  # fmt: skip
    plots.plot_curves(tmp_path / "curves.png", history, {"sw"})
    average = "\naverage of the languages"
    titles = ["training loss", "rsum of the dev queries" + average, "dev queries" + average, "rsum of the dev queries"]
    assert drawn.pop() == titles
