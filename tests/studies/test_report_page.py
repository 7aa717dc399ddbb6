"""The report: figures equal a slow computation, and the page shows them in a browser without a network."""

from __future__ import annotations

import csv
import json
import re
import shutil
import statistics
import subprocess
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from scipy import integrate, stats

from retrieval.statistics import holm, macro_t_test, one_group
from studies.figures import SUMMARIES, Study
from studies.runs import Condition, find_folders, finished_run, run_scores, strategy_names, training_condition
from studies.tables import robustness_table

QUERIES = 40
SLOPES = {"contrastive": 0.5, "mse": 0.7, "ot": 0.3}
CLASSES = {"contrastive": "strategies.contrastive.Contrastive", "mse": "strategies.mse.MSE",
           "ot": "strategies.ot.OptimalTransport"}  # fmt: skip
TEST_NOISE = {"text-keyboard": 0.06, "text-ocr": 0.03, "image-jpeg": 0.04}


def per_query(strategy: str, level: float, language: str, seed: int) -> dict[str, float]:
    """Made-up reciprocal ranks that fall with the level."""
    words = f"{strategy}{language}{seed}{level}"
    rng, queries = np.random.default_rng(list(words.encode())), np.random.default_rng(list(language.encode()))
    ease = queries.uniform(0.3, 1.0, QUERIES)
    values = ease * (0.9 - SLOPES[strategy] * level**1.5) * rng.uniform(0.8, 1.1, QUERIES)
    return {f"q{number}": float(value) for number, value in enumerate(values.clip(0, 1))}


def rows(values: dict[str, float]) -> tuple[dict[str, Any], dict[str, Any]]:
    """``metrics.json`` and ``per_query.json`` of a run."""
    low = {query: value / 5 for query, value in values.items()}
    both = {"test": {"mrr": values, "map": low}, "undistilled": {"mrr": low, "map": low}}
    means = {row: {name: float(np.mean(list(v.values()))) for name, v in of.items()} for row, of in both.items()}
    return means, both


def write_run(folder: Path, strategy: str, rate: float, language: str, seed: int, tests: bool = True) -> Path:
    """One run folder."""
    folder.mkdir(parents=True)
    noise = {"rate": rate, "level": "caption", "text": "", "text_severity": 0, "seed": 0} if rate else None
    teacher = {"class_path": "a.OnlineTeacher", "init_args": {"model": "starter/minilm"}}
    config = {
        "seed_everything": seed,
        "model": {
            "strategy": {"class_path": CLASSES[strategy], "init_args": {"pooled_weight": 1.0}},
            "student": {"class_path": "a.StaticEncoder", "init_args": {"model": "starter/e5-small"}},
            "teacher": {"class_path": "a.CachedTeacher", "init_args": {"teacher": teacher}},
            "lr": 0.001,
        },
        "data": {
            "class_path": "a.StarterDataModule",
            "init_args": {"language": language, "noise": noise, "batch_size": 64},
        },
        "trainer": {"max_epochs": 3},
        "output": str(folder.parent),
        "name": folder.name,
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    means, values = rows(per_query(strategy, rate, language, seed))
    (folder / "metrics.json").write_text(json.dumps(means))
    (folder / "per_query.json").write_text(json.dumps(values))
    (folder / "environment.json").write_text(json.dumps({"command": ["train.py"], "versions": {"torch": "2.9"}}))
    if tests and not rate:
        (folder / "test_noise").mkdir()
        for kind, slope in TEST_NOISE.items():
            for severity in (1, 3, 5):
                noisy = {query: value * (1 - slope * severity) for query, value in values["test"]["mrr"].items()}
                means, both = rows(noisy)
                content = {"test": {"means": means["test"], "per_query": both["test"]}}
                (folder / "test_noise" / f"{kind}-{severity}.json").write_text(json.dumps(content))
    return folder


def write_study(
    output: Path,
    strategies: Sequence[str] = tuple(SLOPES),
    rates: Sequence[float] = (0.0, 0.2, 0.4, 0.8),
    languages: Sequence[str] = ("sw", "mr"),
    seeds: Sequence[int] = (0, 1, 2),
) -> Path:
    """All runs of a study."""
    for strategy in strategies:
        for rate in rates:
            for language in languages:
                for seed in seeds:
                    write_run(output / f"{strategy}-rate{rate}-{language}-seed{seed}", strategy, rate, language, seed)
    return output


RATES, LANGUAGES, SEEDS = (0.0, 0.2, 0.8), ("mr", "sw"), (0, 1, 2)
SERIES = ("training", "correspondence-caption")


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Path:
    return write_study(tmp_path_factory.mktemp("study") / "runs", rates=RATES, languages=LANGUAGES, seeds=SEEDS)


def study_of(folder: Path, metric: str = "mrr") -> Study:
    return Study(run_scores([finished_run(each) for each in find_folders([folder])], metric), metric)


def slow(strategy: str, rate: float, language: str, seed: int) -> float:
    return statistics.fmean(per_query(strategy, rate, language, seed).values())


def test_figures_equal_a_slow_computation(runs):
    study = study_of(runs)
    assert study.strategies == ["contrastive", "mse", "ot"]
    assert study.missing() == []
    for strategy in study.strategies:
        for language in (*LANGUAGES, "average"):
            names = LANGUAGES if language == "average" else [language]
            curves = [
                [statistics.fmean(slow(strategy, rate, name, seed) for name in names) for rate in RATES]
                for seed in SEEDS
            ]
            for place, rate in enumerate(RATES):
                figure = study.figure(strategy, SERIES, rate, language)
                values = [curve[place] for curve in curves]
                assert figure.value == pytest.approx(statistics.fmean(values), abs=1e-12)
                expected = stats.t.interval(0.95, 2, np.mean(values), stats.sem(values))
                assert figure.interval == pytest.approx(expected, abs=1e-12)
            for name, of in {
                "drop": lambda c: (c[0] - c[-1]) / c[0],
                "auc": lambda c: integrate.trapezoid(c, RATES) / 0.8,
                "mmi": lambda c: (c[0] - statistics.fmean(c[1:])) / c[0],
            }.items():
                summary = study.summary(strategy, SERIES, language, SUMMARIES[name])
                assert summary.value == pytest.approx(statistics.fmean(map(of, curves)), abs=1e-12), name
    kinds = [("test", "text-keyboard"), ("test", "text-ocr")]
    # Keyboard noise takes 6 % a severity, OCR noise 3 %; the mean severity is 3.
    assert study.overall_mmi("ot", kinds, "average").value == pytest.approx((0.18 + 0.09) / 2)


def test_differences_are_paired_on_averages_over_seeds_and_holm_corrected(runs):
    found = study_of(runs).differences(SERIES, "sw")
    assert len(found) == 9
    expected = []
    for each in found:
        one, other = (
            np.mean([list(per_query(name, each.level, "sw", seed).values()) for seed in SEEDS], axis=0)
            for name in (each.first, each.second)
        )
        assert each.difference == pytest.approx(np.mean(one - other), abs=1e-12)
        expected.append(macro_t_test(one_group(one - other)))
    assert [each.p for each in found] == pytest.approx(holm(expected), rel=1e-9)


def test_clean_column_equals_metrics_json_exactly(tmp_path):
    folder = write_study(tmp_path / "runs", rates=(0.0, 0.4), languages=("sw",), seeds=(4,))
    table = robustness_table(study_of(folder), SERIES)
    for row in table.blocks["sw"]:
        means = json.loads((folder / f"{row[0].text}-rate0.0-sw-seed4" / "metrics.json").read_text())
        assert row[1].figure.value == means["test"]["mrr"]
        assert row[1].text == f"{means['test']['mrr']:.3f}"


def test_missing_seeds_are_named_and_never_averaged_silently(tmp_path, script):
    folder = write_study(tmp_path / "runs", rates=(0.0, 0.4), languages=LANGUAGES, seeds=(0, 1))
    shutil.rmtree(folder / "ot-rate0.4-sw-seed1")
    (folder / "mse-rate0.4-mr-seed0" / "metrics.json").unlink()
    study = study_of_finished(folder)
    assert study.missing() == [
        "mse / wrong correspondence, caption level 0.4 / mr / seed 0",
        "ot / wrong correspondence, caption level 0.4 / sw / seed 1",
    ]
    sw = study.figure("ot", SERIES, 0.4, "sw")
    assert (sw.value, sw.seeds, sw.complete) == (slow("ot", 0.4, "sw", 0), (0,), False)
    average = study.figure("ot", SERIES, 0.4, "average")
    assert average.seeds == (0,)
    assert average.value == pytest.approx((slow("ot", 0.4, "sw", 0) + slow("ot", 0.4, "mr", 0)) / 2)
    drop = study.summary("ot", SERIES, "sw", SUMMARIES["drop"])
    assert drop.value == pytest.approx(1 - slow("ot", 0.4, "sw", 0) / slow("ot", 0.0, "sw", 0))
    # mse has seed 1 there and ot seed 0 for the other language, so their averages share nothing.
    assert not [
        each
        for each in study.differences(SERIES, "average")
        if each.level and {each.first, each.second} == {"mse", "ot"}
    ]
    done = script("report.py", folder, "--metric", "mrr")
    assert done.status == 0, done.err
    page = (folder / "report" / "index.html").read_text()
    assert "no run of: ot / wrong correspondence, caption level 0.4 / sw / seed 1" in page
    assert "not finished: mse-rate0.4-mr-seed0" in page
    assert "†" in (folder / "report" / "tables" / "tables.md").read_text()


def study_of_finished(folder: Path) -> Study:
    finished = [each for each in find_folders([folder]) if (each / "metrics.json").is_file()]
    return Study(run_scores([finished_run(each) for each in finished], "mrr"), "mrr")


def test_wrong_input_is_one_line(tmp_path, script):
    folder = write_study(tmp_path / "runs", strategies=["ot"], rates=(0.0,), languages=["sw"], seeds=(0, 1))
    assert "no such folder" in script("report.py", tmp_path / "none").err
    (tmp_path / "empty").mkdir()
    assert "found no run folder" in script("report.py", tmp_path / "empty").err
    done = script("report.py", folder, "--metric", "mpa")
    assert (done.status, "did you mean 'map'?" in done.err) == (2, True)
    write_run(folder / "again", "ot", 0.0, "sw", 1)
    assert "the same strategy, noise, language and seed as again" in script("report.py", folder, "--metric", "mrr").err
    shutil.rmtree(folder / "again")
    config = folder / "ot-rate0.0-sw-seed1" / "config.yaml"
    config.write_text(config.read_text().replace("max_epochs: 3", "max_epochs: 9"))
    done = script("report.py", folder)
    assert done.status == 2
    assert "trainer.max_epochs is 9 here and 3 in ot-rate0.0-sw-seed0" in done.err
    (folder / "ot-rate0.0-sw-seed0" / "per_query.json").write_text("{")
    config.write_text(config.read_text().replace("max_epochs: 9", "max_epochs: 3"))
    assert "per_query.json:1: invalid JSON" in script("report.py", folder).err


def test_strategies_are_named_by_the_sweep_or_by_what_differs(tmp_path):
    folder = write_study(tmp_path / "runs", strategies=["ot"], rates=(0.0,), languages=["sw"], seeds=(0, 1))
    config = folder / "ot-rate0.0-sw-seed1" / "config.yaml"
    config.write_text(config.read_text().replace("pooled_weight: 1.0", "pooled_weight: 0.5"))
    read = [finished_run(each) for each in find_folders([folder])]
    assert strategy_names(read) == ["ot (pooled_weight=1.0)", "ot (pooled_weight=0.5)"]
    (folder / "ot-rate0.0-sw-seed1" / "cell.json").write_text(json.dumps({"labels": {"config": "ot_half"}}))
    assert strategy_names([finished_run(each) for each in find_folders([folder])]) == ["ot", "ot_half"]


def test_training_noise_of_a_configuration():
    def of(**noise: object) -> Condition:
        return training_condition({f"data.init_args.noise.{key}": value for key, value in noise.items()})

    assert of() == of(rate=0.0, text="keyboard", text_severity=0) == Condition()
    assert of(rate=0.4, level="image") == Condition("training", "correspondence-image", 0.4)
    assert of(text="ocr", text_severity=3) == Condition("training", "text-ocr", 3.0)
    assert of(rate=0.2, image="jpeg", image_severity=2).kind == "correspondence-caption+image-jpeg-2"


def test_files_of_the_report(runs, script):
    done = script("report.py", runs, "--metric", "mrr", "--title", "A <study>")
    assert done.status == 0, done.err
    report = runs / "report"
    rows = list(csv.DictReader((report / "tables" / "training-correspondence-caption.csv").open()))
    study = study_of(runs)
    [row] = [r for r in rows if (r["strategy"], r["language"], r["column"]) == ("ot", "average", "0.8")]
    assert float(row["value"]) == study.figure("ot", SERIES, 0.8, "average").value
    assert row["seeds"] == "0 1 2"
    assert len(list(csv.DictReader((report / "runs.csv").open()))) == 54 + 18 * 9
    latex = (report / "tables" / "tables.tex").read_text()
    assert latex.count("\\toprule") == latex.count("\\bottomrule") == latex.count("\\begin{table}")
    assert "40.7 \\%" in latex or "\\%" in latex
    assert not re.search(r"(?<!\\)%(?! \\usepackage)", latex), "a % that is not escaped hides the rest of a LaTeX line"
    for stem in ("training-correspondence-caption", "test-text"):
        assert (report / "figures" / f"{stem}.png").read_bytes().startswith(b"\x89PNG")
        assert (report / "figures" / f"{stem}.svg").read_text().startswith("<svg")


class Cells(HTMLParser):
    """The attributes of every ``td`` with a ``data-run``, and what could fetch something."""

    def __init__(self) -> None:
        super().__init__()
        self.runs: list[dict[str, str]] = []
        self.fetched: list[str] = []
        self.text = ""

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        if tag == "td" and "data-run" in found:
            self.runs.append(found)
        for name in ("src", "href", "xlink:href", "srcset", "data", "action", "poster"):
            value = found.get(name) or ""
            if value and not value.startswith(("#", "data:")):
                self.fetched.append(value)

    def handle_data(self, data):
        self.text += data


BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.mark.slow
@pytest.mark.skipif(BROWSER is None, reason="chromium is not installed, so the page cannot be rendered")
def test_page_in_a_browser_without_network_shows_metrics_json(runs, script, tmp_path):
    script("report.py", runs, "--metric", "mrr", "--output", tmp_path / "report")
    page = tmp_path / "report" / "index.html"
    log = tmp_path / "net.json"
    done = subprocess.run(
        [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking",
         "--disable-component-update", "--enable-logging=stderr", "--v=0",
         "--host-resolver-rules=MAP * ~NOTFOUND", f"--log-net-log={log}", f"--user-data-dir={tmp_path / 'profile'}",
         "--dump-dom", page.as_uri()],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "CONSOLE" not in done.stderr, "the page has an error or breaks its own content policy"
    cells = Cells()
    cells.feed(done.stdout)
    assert cells.fetched == []
    assert not re.search(r"url\((?!#)|@import", done.stdout), "the style sheet fetches something"
    urls = set(re.findall(r"https?://[^\s\"'<)]+", done.stdout))
    assert urls <= {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}
    requests = log.read_text(errors="replace")
    assert "file:///" in requests, "the log of requests is the right one"
    hosts = set(re.findall(r"https?://([a-zA-Z0-9.-]+)", requests))
    own = re.compile(r"(.+\.)?(google|googleapis|gvt1|gstatic|chromium)\.(com|org)")  # the browser's own services
    assert {host for host in hosts if not own.fullmatch(host)} == set()

    shown = {each["data-run"]: each for each in cells.runs if each["data-condition"].split("/")[0] != "test"}
    for folder in find_folders([runs]):
        means = json.loads((folder / "metrics.json").read_text())
        assert float(shown[folder.name]["data-value"]) == means["test"]["mrr"]
    tests = [each for each in cells.runs if each["data-condition"] == "test/text-ocr/5"]
    assert len(tests) == 18
    for each in tests:
        means = json.loads((runs / each["data-run"] / "test_noise" / "text-ocr-5.json").read_text())
        assert float(each["data-value"]) == means["test"]["means"]["mrr"]


def test_runs_without_noise_have_a_report(tmp_path, script):
    """One run alone, and strategies side by side: a table and, of several, the tests between them."""
    folder = write_study(tmp_path / "runs", rates=(0.0,), languages=("sw",), seeds=(0,))
    for run in folder.iterdir():
        shutil.rmtree(run / "test_noise")
    alone = folder / "ot-rate0.0-sw-seed0"
    done = script("report.py", alone, "--metric", "mrr")
    assert done.status == 0, done.err
    mean = json.loads((alone / "metrics.json").read_text())["test"]["mrr"]
    assert f"| sw | ot | {mean:.3f} |" in (alone / "report" / "tables" / "tables.md").read_text()
    assert "Differences" not in (alone / "report" / "index.html").read_text()
    assert script("report.py", folder, "--metric", "mrr").status == 0
    rows = list(csv.DictReader((folder / "report" / "significance.csv").open()))
    assert [(row["first"], row["second"]) for row in rows] == [
        ("contrastive", "mse"),
        ("contrastive", "ot"),
        ("mse", "ot"),
    ]
    assert "Differences between strategies" in (folder / "report" / "index.html").read_text()
    assert list(csv.DictReader((folder / "report" / "tables" / "results.csv").open()))[-1]["column"] == "0"


def test_the_page_escapes_names(tmp_path, script):
    folder = write_study(tmp_path / "a<b>", strategies=["ot"], rates=(0.0,), languages=("<i>",), seeds=(0,))
    assert script("report.py", folder, "--metric", "mrr", "--title", "A <study> & more").status == 0
    page = (folder / "report" / "index.html").read_text()
    assert "<h1>A &lt;study&gt; &amp; more</h1>" in page
    assert "<i>" not in page


EVIL = "<script>alert(1)</script>"


def test_the_page_of_plain_runs_with_markup_in_everything(tmp_path, script, finished_run):
    """Two runs of train.py without noise; names, options, queries and versions hold markup."""
    for name in ("a", f"b{EVIL.replace('/', '')}"):
        folder = tmp_path / "runs" / name
        shutil.copytree(finished_run, folder)
        config = yaml.safe_load((folder / "config.yaml").read_text())
        config["seed_everything"] = int(name == "a")
        config["model"]["student"]["init_args"]["model"] = config["data"]["class_path"] = EVIL
        config["model"]["strategy"] = {"class_path": f"x.{EVIL}", "init_args": {"option": EVIL}}
        config["model"]["teacher"]["init_args"]["model"] = EVIL
        (folder / "config.yaml").write_text(yaml.safe_dump(config))
        for file in ("per_query.json", "environment.json"):
            content = (folder / file).read_text()
            (folder / file).write_text(content.replace('"maji"', json.dumps(EVIL)).replace('"train.py"', f'"{EVIL}"'))
    done = script("report.py", tmp_path / "runs", "--title", EVIL, "--question", EVIL)
    assert done.status == 0, done.err
    page = (tmp_path / "runs" / "report" / "index.html").read_text()
    assert "alert(1)" in page
    assert EVIL not in page
    assert re.findall(r"<script[^&]*?>", page) == ["<script>"], "the page's own"
