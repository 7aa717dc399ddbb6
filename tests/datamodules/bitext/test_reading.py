"""Bitext as it comes: every format gives the same pairs, and what is odd is said."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import json
import lzma
import warnings
import zipfile
from pathlib import Path

import pytest

from datamodules.bitext.reading import located, open_pairs, read_bitext
from datamodules.sources import PairSource
from foundations.errors import InputError

PAIRS = [("water is life", "maji ni uhai"), ('He said "no, thanks"', "Alisema hapana; asante"), ("café", "mkahawa")]
SCORES = [0.9, 1.07, 0.4]


def jsonl(rows: list) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def as_csv(rows: list, **options) -> str:
    file = io.StringIO()
    csv.writer(file, **options).writerows(rows)
    return file.getvalue()


def tmx(encoding: str = "utf-8") -> bytes:
    units = "".join(
        f'<tu><tuv xml:lang="en-GB"><seg>{a}</seg></tuv><tuv xml:lang="sw"><seg>{b}</seg></tuv></tu>' for a, b in PAIRS
    )
    text = f'<?xml version="1.0" encoding="{encoding}"?><tmx version="1.4"><header/><body>{units}</body></tmx>'
    return text.encode(encoding)


FILES = {
    "pairs.tsv": "".join(f"{a}\t{b}\n" for a, b in PAIRS),
    "pairs.txt": "\ufeff" + "\r\n".join(f" {a}\t{b} " for a, b in PAIRS),
    "pairs.csv": as_csv(PAIRS),
    "semicolon.csv": as_csv(PAIRS, delimiter=";"),
    "tabs.csv": as_csv(PAIRS, delimiter="\t", quoting=csv.QUOTE_ALL),
    "translation.jsonl": jsonl([{"id": "1", "translation": {"sw": b, "en": a}} for a, b in PAIRS]),
    "names.json": jsonl([{"english": a, "non_english": b} for a, b in PAIRS]),
    "codes.jsonl": jsonl([{"swh_Latn": b, "eng_Latn": a} for a, b in PAIRS]),
    "source.jsonl": jsonl([{"source": a, "target": b, "other": "x"} for a, b in PAIRS]),
    "memory.tmx": tmx(),
    "memory16.tmx": tmx("utf-16"),
}
PACK = {"gz": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress}


def write(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.mark.parametrize("packed", ["", *PACK])
@pytest.mark.parametrize("name", FILES)
def test_every_format_gives_the_same_pairs(tmp_path: Path, name: str, packed: str) -> None:
    content = FILES[name] if isinstance(FILES[name], bytes) else FILES[name].encode()
    path = write(tmp_path, f"{name}.{packed}" if packed else name, PACK[packed](content) if packed else content)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert list(read_bitext(str(path))) == PAIRS


def test_zipped_tmx(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "memory.zip", "w") as archive:
        archive.writestr("en-sw.tmx", tmx())
    assert list(read_bitext(str(tmp_path / "memory.zip"))) == PAIRS


def test_tmx_with_several_regions_and_languages(tmp_path: Path) -> None:
    path = write(tmp_path, "x.tmx", tmx().replace(b"en-GB", b"en-US", 1).replace(b'"sw"', b'"sw-KE"', 1))
    assert list(read_bitext(str(path))) == PAIRS
    assert list(read_bitext(str(path), "en-GB,sw")) == PAIRS[1:]
    more = tmx().replace(b"<tu>", b'<tu><tuv xml:lang="fr"><seg>x</seg></tuv>')
    with pytest.raises(InputError, match=r"y\.tmx: cannot tell .* it has fr, en-GB, sw: name two"):
        list(read_bitext(str(write(tmp_path, "y.tmx", more))))


@pytest.mark.parametrize("packed", ["", "gz"])
def test_two_parallel_files(tmp_path: Path, packed: str) -> None:
    suffix = f".{packed}" if packed else ""
    for side, name in enumerate(("a,b.en", "a.sw")):
        content = "".join(f"{pair[side]}\n" for pair in [*PAIRS[:1], ("", "x"), ("y", " "), *PAIRS[1:]]).encode()
        write(
            tmp_path, (name if packed else name.replace(",", "")) + suffix, PACK[packed](content) if packed else content
        )
    if packed:  # a comma in the name of a file that is there
        (tmp_path / "a,b.en.gz").rename(tmp_path / "ab.en.gz")
    spec = located(f"ab.en{suffix}, a.sw{suffix}", tmp_path)
    with pytest.warns(UserWarning, match=r"2 pairs lack a text and are left out \(line 2, 3\)"):
        assert list(read_bitext(spec)) == PAIRS
    write(tmp_path, "longer", "1\n2\n3\n4\n5\n6\n7\n")
    with pytest.raises(InputError, match=r"longer: the file has 7 lines, but .*ab\.en.* has 5, expected as many"):
        list(read_bitext(located(f"ab.en{suffix},longer", tmp_path)))
    with pytest.raises(InputError, match="found 3 files"):
        list(read_bitext(located("a,b,c", tmp_path)))


def test_a_file_with_a_comma_in_its_name(tmp_path: Path) -> None:
    write(tmp_path, "en,sw.tsv", FILES["pairs.tsv"])
    assert list(read_bitext(located("en,sw.tsv", tmp_path))) == PAIRS


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.tsv", "source\ttarget\na\tb\n", r"line 1 is a header \(source, target\) and is passed over$"),
        ("x.tsv", "\nen\tswh_Latn\na\tb\n", r"line 2 is a header \(en, swh_Latn\)"),
        ("x.tsv", "English\tNon_English\nEnglish\tKiswahili\na\tb\n", r"line 1 is a header \(English, Non_English\)"),
        ("x.csv", "english,yoruba\na,b\n", r"line 1 is a header"),
        ("x.tsv", "a\tb\n\tc\nd\t \n  \ne\tf\n", r"2 pairs lack a text and are left out \(line 2, 3\)$"),
        ("x.csv", "a,b\n,c\n", r"1 pairs lack a text and are left out \(line 2\)$"),
        ("x.jsonl", jsonl([{"en": "a", "sw": "b"}, {"en": None, "sw": "c"}]), r"1 pairs lack a text .*\(line 2\)$"),
        ("x.tsv", 'a "b"\tc\n"He said ""no"""\td\n', r"1 of 2 lines have quotes as CSV .* \(line 2\), .*\.csv"),
        ("x.tsv", '"a"\t"b"\n"c"\t"d"\n', "2 of 2 lines have quotes"),
        ("x.tsv", "a\tb\t0.5\n", "the pairs have scores, and all are taken: --data.min_score"),
        ("x.tsv", "src\ttgt\tlaser score\na\tb\t1\n\tx\t1\n", r"header .*; the pairs have scores.*; 1 pairs lack"),
    ],
)  # fmt: skip
def test_what_is_odd_is_said_in_one_warning(tmp_path: Path, name: str, content: str, message: str) -> None:
    path = write(tmp_path, name, content)
    with pytest.warns(UserWarning, match=message) as caught:
        pairs = list(read_bitext(str(path)))
    assert len(caught) == 1
    assert all(source and target for source, target in pairs)
    assert ("English", "Kiswahili") in pairs or "Kiswahili" not in content


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.tsv", "a\tb\nc\n", r"x\.tsv:2: found 1 column, expected 2: source<TAB>target$"),
        ("x.tsv", "a\tb\nc\td\t0.3\n", r"x\.tsv:2: found 3 columns, expected 2"),
        ("x.tsv", "a\tb\tc\n", r"x\.tsv:1: found 3 columns, expected 2: source<TAB>target, or three with a score"),
        ("x.tsv", "a b\n", r"x\.tsv:1: found 1 column, expected 2"),
        ("x.tsv", "a\tb\tc\td\n", r"x\.tsv:1: found 4 columns, expected 2"),
        ("x.tsv", "a\tb\t0.3\nc\td\n", r"x\.tsv:2: found 2 columns, expected 3"),
        ("x.tsv", "a\tb\t0.3\nc\td\tx\n", r"x\.tsv:2: the score is 'x', expected a finite number"),
        ("x.tsv", "a\tb\t0.3\nc\td\tnan\n", r"x\.tsv:2: the score is 'nan'"),
        ("x.csv", 'a,b\n"c"x,d\n', r"x\.csv:2: mixed quotes \(.*\), expected CSV"),
        ("x.csv", 'a,b\n"c,d\n', r"x\.csv:2: mixed quotes \(.*\), expected CSV"),
        ("x.csv", "a,b\nc,d,e\n", r"x\.csv:2: found 3 columns, expected 2"),
        ("x.jsonl", '{"en": "a", "sw": "b"}\n{"en": "a"}\n', r"x\.jsonl:2: the field 'sw' is missing"),
        ("x.jsonl", '{"en": "a", "sw": "b"}\n{"en": "a", "sw": 1}\n', r"x\.jsonl:2: the field 'sw' is no string"),
        ("x.jsonl", '{"en": "a", "sw": "b"}\n[1]\n', r"x\.jsonl:2: found a JSON list"),
        ("x.jsonl", '{"en": "a", "sw": "b"\n', r"x\.jsonl:1: invalid JSON"),
        ("x.jsonl", '{"de": "a", "sw": "b", "fr": "c"}\n', r"x\.jsonl:1: cannot tell .* it has de, sw, fr: name two"),
        ("x.tsv", "a\tb\n".encode("utf-16"), r"x\.tsv: this is UTF-16"),
        ("x.jsonl", '{"en": "a", "sw": "b"}'.encode("utf-16"), r"x\.jsonl: this is UTF-16"),
        ("x.csv", "a,b\n".encode("utf-16"), r"x\.csv: this is UTF-16"),
        ("x.tsv", "", r"x\.tsv: the file is empty"),
        ("x.csv", "\n", r"x\.csv: the file is empty"),
        ("x.tsv.gz", b"a\tb\n", r"x\.tsv\.gz: the file is damaged or not compressed"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_an_error_with_its_line(tmp_path: Path, name: str, content: str | bytes, message: str) -> None:
    path = write(tmp_path, name, content)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for stream in (False, True):
            with pytest.raises(InputError, match=message) as error:
                list(open_pairs(str(path), stream))
            assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["behind.tsv", "before.tsv", "header.tsv", "x.csv", "x.jsonl"])
def test_a_score_column(tmp_path: Path, name: str) -> None:
    rows = [[a.replace('"', ""), b, str(score)] for (a, b), score in zip(PAIRS, SCORES, strict=True)]
    texts = [(a, b) for a, b, _ in rows]
    if name == "before.tsv":
        rows = [[score, a, b] for a, b, score in rows]
    if name == "header.tsv":
        rows = [["source", "target", "score"], *rows]
    content = "".join("\t".join(row) + "\n" for row in rows)
    if name == "x.csv":
        content = as_csv(rows)
    if name == "x.jsonl":
        content = jsonl([{"translation": {"en": a, "sw": b}, "laser_score": float(score)} for a, b, score in rows])
    path = write(tmp_path, name, content)
    with pytest.warns(UserWarning, match="the pairs have scores, and all are taken"):
        assert list(read_bitext(str(path))) == texts
    with pytest.warns(UserWarning, match="1 pairs score below min_score and are left out$"):
        assert list(read_bitext(str(path), min_score=0.9)) == texts[:2]
    with pytest.raises(InputError, match=r"min_score is 0\.9, but the pairs have no score"):
        list(read_bitext(str(write(tmp_path, "without.tsv", FILES["pairs.tsv"])), min_score=0.9))


def test_languages_by_name(tmp_path: Path) -> None:
    rows = [{"fr": "eau", "sw": "maji", "en": "water"}]
    path = str(write(tmp_path, "x.jsonl", jsonl(rows)))
    assert list(read_bitext(path, "fr,sw")) == [("eau", "maji")]
    assert list(read_bitext(path, "en, fr")) == [("water", "eau")]
    with pytest.raises(InputError, match=r"x\.jsonl:1: cannot tell .* it has fr, sw, en"):
        list(read_bitext(path, "en,yo"))
    with pytest.raises(InputError, match=r"pair_languages is 'en', expected two codes with a comma, such as en,sw"):
        list(read_bitext(path, "en"))


@pytest.mark.parametrize("name", FILES)
def test_a_stream_holds_the_same(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POTSTILL_CACHE", str(tmp_path / "cache"))
    path = write(tmp_path, name, FILES[name])
    streamed, read = open_pairs(str(path), stream=True), open_pairs(str(path))
    assert isinstance(streamed, PairSource)
    assert isinstance(read, list)
    assert [(pair.source, pair.target) for pair in streamed] == [(pair.source, pair.target) for pair in read] == PAIRS
    if name == "pairs.tsv":  # plain lines stay where they are
        assert not (tmp_path / "cache" / "bitext").exists()


@pytest.mark.parametrize("stream", [False, True])
def test_scores_and_headers_in_a_stream(tmp_path: Path, stream: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POTSTILL_CACHE", str(tmp_path / "cache"))
    path = str(write(tmp_path, "x.tsv", "source\ttarget\tscore\na\tb\t0.5\nc\td\t0.7\n"))
    for least, expected in ((None, [("a", "b"), ("c", "d")]), (0.6, [("c", "d")])):
        with pytest.warns(UserWarning, match="is a header"):
            pairs = open_pairs(path, stream, min_score=least)
        assert [(pair.source, pair.target) for pair in pairs] == expected


def test_datasets_of_hugging_face(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hf")
    rows = [{"id": str(i), "translation": {"en": a, "sw": b}} for i, (a, b) in enumerate([*PAIRS, ("", "x")])]
    whole = datasets.Dataset.from_list(rows)
    whole.save_to_disk(str(tmp_path / "saved"))
    datasets.DatasetDict({"train": whole, "test": whole.select([0])}).save_to_disk(str(tmp_path / "splits"))
    (tmp_path / "files").mkdir()
    whole.to_parquet(str(tmp_path / "files" / "train.parquet"))
    for name in ("saved", "splits", "files"):
        with pytest.warns(UserWarning, match=r"1 pairs lack a text and are left out \(row 4\)"):
            assert list(read_bitext(str(tmp_path / name))) == PAIRS
    monkeypatch.setattr(
        datasets, "load_dataset", lambda name, config: {(name, config): {"test": rows[:1]}}["a/b", "en-sw"]
    )
    assert list(read_bitext("datasets:a/b:en-sw:test")) == PAIRS[:1]
    assert list(read_bitext("datasets:a/b:en-sw")) == PAIRS[:1]  # the only split
    with pytest.raises(InputError, match="the split is train, expected one of test"):
        list(read_bitext("datasets:a/b:en-sw:train"))
    with pytest.raises(InputError, match="expected datasets:ID"):
        list(read_bitext("datasets:a/b:en-sw:test:more"))
    monkeypatch.undo()
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hf")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="empty: cannot load the dataset"):
        list(read_bitext(str(tmp_path / "empty")))
