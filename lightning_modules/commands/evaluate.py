"""What evaluate.py does: score a checkpoint or a TREC run again."""

from __future__ import annotations

import inspect
import json
from argparse import Namespace
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from foundations.errors import InputError, as_input_error
from foundations.files import write_json
from lightning_modules.cli.front_door import Arguments, run_config
from lightning_modules.models.trust import read_run_config
from retrieval.metrics import DEFAULT_METRICS, SUMMARIES, evaluate_run, mean_over_queries, parse_metric
from retrieval.results import Result, Rows, averages, by_language, english_note, to_json
from retrieval.table import print_table, results_table
from retrieval.trec import check_queries, read_qrels, read_run

if TYPE_CHECKING:
    from lightning.pytorch import LightningDataModule

    from datamodules.base import PairsDataModule
    from datamodules.flickr30k.splits import SplitByImage
    from lightning_modules.cli.cli import PotstillCLI
    from lightning_modules.teachers.base import Encoder
    from retrieval.collection import Collection
    from strategies.functional import Marginals


def score_checkpoint(options: Namespace, data: Sequence[str]) -> None:
    """Evaluate a checkpoint on the test collection of its run, or of other data, and print the table.

    ``data`` has options of the command line that choose another dataset, whose test images must not be among those
    that the run was trained on. See ``evaluate.py --help`` for the others.
    """
    path = Path(options.checkpoint) if options.checkpoint else Path(options.folder) / "checkpoints" / "best.ckpt"
    _check_metrics(options)
    noise = _noise_options(options)
    extra = [*data, *run_options(options)]
    if options.metrics:
        extra.append(f"--evaluation.metrics={json.dumps(options.metrics)}")
    if noise is not None:
        extra.append(f"--data.test_noise={json.dumps(noise)}")
    cli = open_run(options.folder, extra, path)
    if data:
        refuse_trained_images(Path(options.folder), cli.datamodule)
    load_weights(cli.model, path)
    cli.trainer.test(cli.model, datamodule=cli.datamodule, verbose=False)
    if cli.trainer.is_global_zero:
        results = cli.evaluation.results
        grouped = by_language({name: result.per_query for name, result in results.items()})
        means = by_language({name: result.means for name, result in results.items()})
        print_table(results_table(grouped, f"{path}: test queries{_with(noise)}", means))
        if note := english_note(Path(options.folder)):
            print(note)
        _write(grouped, means, options.json)


def score_encoder(cli: PotstillCLI, encoder: Encoder, score: str) -> dict[str, Result]:
    """Score the test collections of a run with another encoder in the place of its student.

    Args:
        cli: of the run, with its weights.
        encoder: reads what the student reads; the teacher reads the rest.
        score: ``pooled`` or ``maxsim``.

    Returns:
        Name of a collection, such as ``test/sw``, -> its result.
    """
    module, evaluation, data = cli.model.eval(), cli.evaluation, cast("PairsDataModule", cli.datamodule)
    data.setup("test")
    readers = {"student": encoder, "teacher": encoder if module.siamese else module.teacher_in_space}
    weights = evaluation.query_weights(score)
    return {
        name: score_collection(collection, readers, evaluation.metrics, score, evaluation.k, weights)
        for name, collection in data.collections.items()
        if collection.split == "test"
    }


def score_collection(
    collection: Collection,
    readers: Mapping[str, Encoder],
    metrics: Sequence[str],
    score: str,
    k: int = 100,
    weights: Marginals = "uniform",
) -> Result:
    """Search a collection and score the rankings.

    Args:
        collection: with its judgments.
        readers: the encoders ``student`` and, where it reads a side, ``teacher``.
        metrics: names as in `retrieval.metrics.parse_metric`.
        score: ``pooled`` or ``maxsim``.
        k: documents to retrieve for each query.
        weights: how much each token of a query counts in MaxSim.
    """
    from lightning_modules.evaluation.encoding import encode
    from lightning_modules.evaluation.ranking import rank

    tokens = score == "maxsim"
    queries = encode(
        readers[collection.query_side], collection.queries, "queries", tokens=tokens, token_weights=weights
    )
    documents = encode(readers[collection.document_side], collection.documents, "documents", tokens=tokens)
    return rank(queries, documents, collection, metrics, score, k)


def run_options(options: Namespace) -> list[str]:
    """``--score`` and ``--token_weights`` of a script, as options of a run's configuration."""
    names = {"model.score": options.score, "evaluation.token_weights": options.token_weights}
    return [f"--{name}={value}" for name, value in names.items() if value]


def _check_metrics(options: Namespace) -> None:
    with as_input_error():
        for name in options.metrics or ():
            parse_metric(name)


def _noise_options(options: Namespace) -> dict[str, Any] | None:
    """Options of `datamodules.noise.options.EvaluationNoise`, with one severity for texts and images, or None."""
    if options.severity is None:
        return None
    kinds = {"text": options.text_noise or "", "image": options.image_noise or ""}
    severities = {f"{side}_severity": options.severity if kind else 0 for side, kind in kinds.items()}
    files = {"lexicon": options.lexicon, "translations": options.translations}
    return kinds | severities | files | {"seed": options.noise_seed}


def _with(noise: dict[str, Any] | None) -> str:
    """The noise for the table's title."""
    if noise is None:
        return ""
    kinds = [f"{noise[side]} {noise[f'{side}_severity']}" for side in ("text", "image") if noise[side]]
    return f" with noise: {', '.join(kinds)}"


def open_run(folder: str, extra: Sequence[str] = (), checkpoint: Path | None = None) -> PotstillCLI:
    """Build a run folder's model, data and trainer again, for one process and without loggers.

    Args:
        folder: run folder.
        extra: further options of the command line.
        checkpoint: must exist, if it is given.

    Raises:
        InputError: there is no such run folder or checkpoint, an option is wrong, or the folder names code from
            elsewhere and this is not within `trusting`.
    """
    config = run_config(folder)
    if checkpoint is not None and not checkpoint.is_file():
        raise InputError("no such checkpoint", checkpoint)
    from lightning_modules.cli.cli import PotstillCLI

    # The config may be that of a run on many devices, or of one that was not to be tested.
    single = ["--trainer.devices=1", "--trainer.num_nodes=1", "--trainer.strategy=auto"]
    whole = ["--trainer.fast_dev_run=false", "--trainer.limit_test_batches=1.0"]
    cli = PotstillCLI(Arguments([f"--config={config}", *single, *whole, *extra], configs=[config]), evaluate_only=True)
    cli.evaluation.large.folder = Path(folder)
    return cli


def load_weights(model: Any, path: Path) -> None:
    """Load a checkpoint's weights, and nothing else of it, into a `DistillationModule`.

    Raises:
        InputError: the file is no checkpoint, or one of another model.
    """
    from lightning_modules.models.files import read_weights

    weights = read_weights(path)
    try:
        model.load_state_dict(weights)
    except InputError as error:
        raise InputError(str(error), path) from error


def score_trec_run(options: Namespace) -> None:
    """Evaluate a TREC run against TREC judgments, and print the table."""
    _check_metrics(options)
    metrics: Sequence[str] = options.metrics or DEFAULT_METRICS
    if unfit := [name for name in metrics if name in SUMMARIES]:
        raise InputError(f"{unfit[0]} is not a metric of one ranked list, expected metrics such as success@1")
    run, qrels = read_run(options.run), read_qrels(options.qrels)
    check_queries(run, qrels, options.run)
    per_query = evaluate_run(run, qrels, metrics)
    title, label = f"{options.run} against {options.qrels}", Path(options.run).name
    print_table(results_table({"": {"test": per_query}}, title, labels={"test": label}))
    scored, unjudged = sum(query in run for query in qrels), sum(query not in qrels for query in run)
    print(f"{scored:,} of {len(qrels):,} judged queries scored; {unjudged:,} queries of the run have no judgments")
    _write({"": {"test": per_query}}, {"": {"test": mean_over_queries(per_query)}}, options.json)


def _write(grouped: dict[str, Rows], means: dict[str, dict[str, dict[str, float]]], json_file: str | None) -> None:
    """Write means and values per query, where a file was asked for."""
    if json_file:
        content = {
            language: {row: {"means": means[language][row], "per_query": values} for row, values in rows.items()}
            for language, rows in grouped.items()
        }
        write_json(json_file, to_json(content, {row: {"means": each} for row, each in averages(means).items()}))


def refuse_trained_images(run: Path, data: LightningDataModule) -> None:
    """Refuse, by an InputError, test images that were trained on: Flickr30k has two splits.

    ``run`` is the run folder, ``data`` what the run is to be evaluated on.
    """
    from datamodules.flickr30k.splits import SplitByImage

    parts = getattr(data, "parts", {"": data}).values()
    evaluated = [part.image_splits().evaluated for part in parts if isinstance(part, SplitByImage)]
    if not evaluated:
        return
    trained = _trained_images(read_run_config(run, "data"))
    tested = frozenset().union(*evaluated)
    if found := trained & tested:
        raise InputError(
            f"{len(found):,} of the {len(tested):,} dev and test images of these data are training images of this run, "
            f"such as {min(found)}: train without them (remove_overlap, see docs/data.md)",
            run,
        )


def _trained_images(data: Mapping[str, Any]) -> frozenset[str]:
    """The images that a run was trained on, by its configuration."""
    from datamodules.flickr30k.splits import keep_apart
    from datamodules.mixture import MixtureDataModule

    options = data.get("init_args") or {}
    is_mixture = data["class_path"] == f"{MixtureDataModule.__module__}.{MixtureDataModule.__name__}"
    found = {name: _build(part) for name, part in (options["parts"] if is_mixture else {"": data}).items()}
    parts = {name: part for name, part in found.items() if part is not None}
    trained: frozenset[str] = frozenset()
    for part in keep_apart(parts).values():
        splits = part.image_splits()
        trained |= splits.train - part.excluded_images - (splits.evaluated if part.remove_overlap else frozenset())
    return trained


def _build(data: Mapping[str, Any]) -> SplitByImage | None:
    """A datamodule that can say which images it uses; None for one without images that others use."""
    from datamodules.base import PairsDataModule
    from datamodules.flickr30k.splits import SplitByImage

    module, _, name = data["class_path"].rpartition(".")
    kind = getattr(import_module(module), name)
    if not issubclass(kind, SplitByImage):
        return None
    common = inspect.signature(PairsDataModule).parameters
    options = {key: value for key, value in (data.get("init_args") or {}).items() if key not in common}
    if "language" in options:  # of several languages, which have the same images
        options["language"] = options["language"].split(",")[0].strip()
    built: SplitByImage = kind(**options)
    return built
