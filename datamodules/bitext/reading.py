"""Bitext from a file, two parallel files, or a dataset of Hugging Face: one entry, `read_bitext`, for all of them.

| what | recognised by |
| --- | --- |
| ``source<TAB>target``, perhaps with a score before or behind | what is nothing else |
| the same with commas or semicolons, and quotes as CSV has them | the name, ``.csv`` |
| JSON lines: ``{"translation": {"en": .., "sw": ..}}``, ``{"english": .., "non_english": ..}``, ... | the first line |
| TMX, plain or zipped | the first bytes |
| two parallel files, ``FILE.en,FILE.sw`` | the comma |
| a dataset of the library `datasets`: a folder, or ``datasets:ID``, ``datasets:ID:CONFIG:SPLIT`` | the prefix |

Files may be compressed (gzip, bz2, xz). Texts that one side lacks are left out; what was left out, a header and other
things that a user should know are said in one warning.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from datamodules.bitext.table import Notes, Row, read_csv, read_tsv, score_of
from datamodules.bitext.tmx import languages_of, read_tmx
from datamodules.pairs import make_pairs
from datamodules.sources import PairFile, Pairs
from datamodules.text import normalise
from datamodules.text_files import stays_on_disk
from foundations.cache import cache_folder, file_key, made_once
from foundations.errors import InputError
from foundations.files import decode, is_packed, json_line, open_content, require_file, scan_lines

DATASETS = "datasets:"
"""How the name of a dataset of Hugging Face begins."""

_SOURCES = ("english", "en", "eng", "source", "src", "sentence1")
_TARGETS = ("non_english", "target", "tgt", "trg", "sentence2")
_SCORE = re.compile(r"(.*[_-])?score", re.IGNORECASE)
_RECORD = 'a JSON object such as {"translation": {"en": "...", "sw": "..."}} or {"source": "...", "target": "..."}'


def located(spec: str, root: str | Path = "") -> str:
    """The spec with its files in a folder, unless they are absolute or a dataset's name.

    >>> located("a.en,/b/a.sw", "/data")
    '/data/a.en,/b/a.sw'
    """
    if spec.startswith(DATASETS):
        return spec
    root = Path(root)
    whole = root / Path(spec).expanduser()
    parts = [spec] if whole.exists() else spec.split(",")
    return ",".join(str(root / Path(part.strip()).expanduser()) for part in parts)


def open_pairs(
    spec: str, stream: bool | None = None, languages: str | None = None, min_score: float | None = None
) -> Pairs:
    """The pairs of a bitext, in its order.

    Args:
        spec: see the head of this module; made by `located`.
        stream: leave the pairs on disk; by default those of files above 256 MB. What is not plain
            ``source<TAB>target`` is written as such into the cache folder first. Not of datasets.
        languages: as for `read_bitext`.
        min_score: as for `read_bitext`.

    Raises:
        InputError: as `read_bitext`.
    """
    paths = [Path(part) for part in _parts(spec)]
    if not paths or paths[0].is_dir() or not any(stays_on_disk(path, stream) for path in paths):
        return make_pairs(read_bitext(spec, languages, min_score))
    if len(paths) == 1 and min_score is None and not is_packed(paths[0]) and not _format(paths[0]):
        next(read_tsv(paths[0], notes := Notes(spec)), None)
        if not notes.parts:  # no header
            # Perhaps an empty cell, or a score, which the copy below lacks; what else is wrong stops that as well.
            with suppress(InputError):
                return PairFile(paths[0])
    key = file_key(paths[0], "bitext 1", *(file_key(path) for path in paths[1:]), f"{languages} {min_score}")
    target = cache_folder() / "bitext" / f"{key}.tsv"
    make = partial(_write, read_bitext(spec, languages, min_score))
    return PairFile(made_once(target, make, f"the bitext of {spec}"))


def _write(texts: Iterable[tuple[str, str]], path: Path) -> None:
    with path.open("w", encoding="utf-8", newline="\n") as file:
        file.writelines(f"{normalise(source)}\t{normalise(target)}\n" for source, target in texts)


def read_bitext(spec: str, languages: str | None = None, min_score: float | None = None) -> Iterator[tuple[str, str]]:
    """The (source, target) texts of a bitext, in its order; neither is empty.

    Args:
        spec: see the head of this module; made by `located`.
        languages: codes of source and target, such as ``en,sw``, for files that name the language of each text; by
            default the English text and the only other one.
        min_score: leave out pairs whose score is lower.

    Raises:
        InputError: no such file, an empty or damaged one; with the line, one of a wrong shape; parallel files of
            different length; min_score without scores; a dataset that cannot be loaded.
    """
    notes, scored = Notes(spec), False
    unit, rows = _rows(spec, _codes(languages), notes)
    for number, source, target, score in rows:
        scored = scored or score is not None
        if min_score is not None and (score is None or score < min_score):
            notes.low += score is not None
            if score is None:
                raise InputError(f"min_score is {min_score}, but the pairs have no score", spec, number)
        elif source and target and not (source.isspace() or target.isspace()):
            yield source, target
        else:
            notes.empty.append(number)
    if scored and min_score is None:
        notes.parts.append("the pairs have scores, and all are taken: --data.min_score leaves out those below a score")
    notes.warn(unit)


def _rows(spec: str, languages: tuple[str, str] | None, notes: Notes) -> tuple[str, Iterator[Row]]:
    """What is numbered in a bitext, and its rows."""
    parts = _parts(spec)
    if not parts:
        return "row", _records(enumerate(_dataset(spec), start=1), languages, spec)
    if len(parts) == 2:
        return "line", _parallel(Path(parts[0]), Path(parts[1]))
    if len(parts) > 2:
        raise InputError(f"found {len(parts)} files, expected one, or two that are parallel", spec)
    path = Path(spec)
    if path.is_dir():
        return "row", _records(enumerate(_dataset(spec), start=1), languages, spec)
    kind = _format(require_file(path))
    if kind == "tmx":
        return "unit", _units(path, languages)
    if kind == "json":
        lines = ((number, json_line(line, _RECORD, path, number)) for number, _, line in scan_lines(path, _RECORD))
        return "line", _records(lines, languages, path)
    return "line", read_csv(path, notes) if kind == "csv" else read_tsv(path, notes)


def _parts(spec: str) -> list[str]:
    """The files of a spec; none of a dataset by its name."""
    if spec.startswith(DATASETS):
        return []
    return [spec] if Path(spec).exists() else spec.split(",")


def _format(path: Path) -> str:
    """The format of a file by its content, or its name: ``tmx``, ``json`` or ``csv``; empty for tab-separated lines."""
    if zipfile.is_zipfile(path):
        return "tmx"
    with open_content(path) as (file, _):
        # Translation memories may be in UTF-16; other files may not, which their readers say.
        start = file.readline(1 << 16).replace(b"\0", b"").lstrip(b"\xef\xbb\xbf\xff\xfe \t\r\n")
    if start.startswith((b"<?xml", b"<tmx", b"<!DOCTYPE tmx")):
        return "tmx"
    if start.startswith(b"{") and b"\t" not in start:
        return "json"
    return "csv" if ".csv" in path.suffixes else ""


def _parallel(source: Path, target: Path) -> Iterator[Row]:
    """The lines of two files with the same number of lines."""
    sides = [scan_lines(path, "a text on each line", blank=True) for path in (source, target)]
    counts = [0, 0]
    while any(lines := [next(side, None) for side in sides]):
        counts = [count + (line is not None) for count, line in zip(counts, lines, strict=True)]
        if lines[0] is not None and lines[1] is not None:
            number, (first, second) = lines[0][0], (lines[0][2], lines[1][2])
            yield number, decode(first, "text", source, number), decode(second, "text", target, number), None
    if counts[0] != counts[1]:
        raise InputError(f"the file has {counts[1]:,} lines, but {source} has {counts[0]:,}, expected as many", target)


def _units(path: Path, languages: tuple[str, str] | None) -> Iterator[Row]:
    """The units of TMX files that have both languages, counted; of any region, unless it was asked for."""
    tags = languages or (tag.partition("-")[0] for tag in _sides(languages_of(path), None, path, 0))
    for number, texts in enumerate(read_tmx(path, *tags), start=1):
        yield number, *texts, None


def _records(records: Iterable[tuple[int, Any]], languages: tuple[str, str] | None, path: str | Path) -> Iterator[Row]:
    """The rows of JSON objects; the fields are those of the first of them."""
    sides: tuple[str, str] | None = None
    for number, whole in records:
        record = whole.get("translation", whole) if isinstance(whole, dict) else whole
        if not isinstance(record, dict):
            record = whole
        if not isinstance(record, dict):
            raise InputError(f"found a JSON {type(record).__name__}, expected {_RECORD}", path, number)
        if sides is None:
            names = [name for name, value in record.items() if _may_be_text(name, value)]
            sides = _sides(names, languages, path, number)
        for name in sides:
            if name not in record or not isinstance(record[name], str | None):
                problem = "is no string" if name in record else "is missing"
                raise InputError(f"the field {name!r} {problem}, expected {_RECORD}", path, number)
        score = next((value for name, value in {**record, **whole}.items() if _SCORE.fullmatch(name)), None)
        source, target = (record[name] or "" for name in sides)
        yield number, source, target, None if score is None else score_of(score, path, number)


def _may_be_text(name: str, value: Any) -> bool:
    return isinstance(value, str | None) and name not in ("id", "_id") and not _SCORE.fullmatch(name)


def _sides(names: Sequence[str], languages: tuple[str, str] | None, path: str | Path, number: int) -> tuple[str, str]:
    """Which of some fields or languages are source and target."""
    if languages:
        found = [next((name for name in names if _fits(name, (code.lower(),))), None) for code in languages]
    else:
        source = next((name for name in names if _fits(name, _SOURCES)), None)
        others = [name for name in names if name != source]
        target = next((name for name in others if _fits(name, _TARGETS)), None)
        found = [source, target or (others[0] if len(others) == 1 else None)]
    if found[0] is None or found[1] is None:
        hint = f"it has {', '.join(names) or 'none'}: name two of these with --data.pair_languages SOURCE,TARGET"
        raise InputError(f"cannot tell which texts are source and target; {hint}", path, number)
    return found[0], found[1]


def _fits(name: str, codes: Sequence[str]) -> bool:
    """Whether a name is one of some codes, perhaps with a region or script: ``en-GB``, ``eng_Latn``."""
    lower = name.lower()
    return lower in codes or (lower not in _TARGETS and re.split("[-_]", lower)[0] in codes)


def _codes(languages: str | None) -> tuple[str, str] | None:
    if languages is None:
        return None
    codes = [code.strip() for code in languages.split(",")]
    if len(codes) != 2 or not all(codes):
        raise InputError(f"pair_languages is {languages!r}, expected two codes with a comma, such as en,sw")
    return codes[0], codes[1]


def _dataset(spec: str) -> Iterable[Mapping[str, Any]]:
    """The rows of a dataset of the library `datasets`: a folder, or ID, ID:CONFIG or ID:CONFIG:SPLIT."""
    try:
        import datasets
    except ImportError:
        raise InputError("this needs the library datasets: pip install 'potstill[datasets]'", spec) from None
    is_name, folder = spec.startswith(DATASETS), Path(spec)
    parts = spec.removeprefix(DATASETS).split(":") if is_name else [spec]
    name, config, split = [*parts, "", ""][:3]
    if len(parts) > 3 or not name:
        raise InputError("expected datasets:ID, datasets:ID:CONFIG or datasets:ID:CONFIG:SPLIT", spec)
    try:
        if not is_name and any((folder / file).is_file() for file in ("state.json", "dataset_dict.json")):
            found = datasets.load_from_disk(spec)
        else:
            found = datasets.load_dataset(name, config or None)
    except Exception as error:  # of many libraries: a missing id, no network, a damaged file
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise InputError(f"cannot load the dataset: {reason}", spec) from error
    if isinstance(found, dict):
        chosen = split or ("train" if "train" in found else next(iter(found)) if len(found) == 1 else "")
        if chosen not in found:
            raise InputError(f"the split is {split or 'not said'}, expected one of {', '.join(found)}", spec)
        found = found[chosen]
    rows: Iterable[Mapping[str, Any]] = found
    return rows
