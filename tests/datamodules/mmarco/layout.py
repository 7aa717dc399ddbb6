"""A small mMARCO in the official layouts: a folder, and the home of ir_datasets."""

from __future__ import annotations

import random
import shutil
import tarfile
from pathlib import Path

from datamodules.mmarco.datamodule import MMarcoDataModule

WORDS = {"cat": "paka", "mat": "mkeka", "morning": "asubuhi", "friend": "rafiki", "sun": "jua", "water": "maji",
         "life": "uhai", "big": "kubwa", "red": "jekundu", "small": "mdogo"}  # fmt: skip
SCORES = """["{0}", ["3", 2.5], ["17", -1.0], ["4", 0.25]]
[{1}, [[5, 1], [6, 0.5]]]
"""
PASSAGES, TRAIN, DEV, SMALL = 40, 20, 12, 5
LANGUAGES = {"english": "en", "hindi": "hi", "german": "de", "dutch": "nl", "portuguese": "pt", "chinese": "zh"}
VERSIONS = {"helsinki": ("english", "german", "portuguese", "chinese"), "google": tuple(LANGUAGES)}


def passage(language: str, number: int, folder: str = "google") -> str:
    """Two words that the tiny models know, different for each passage; translations are marked."""
    words = [list(WORDS.items())[digit] for digit in divmod(number, 10)]
    if language == "english":
        return " ".join(word for word, _ in words)
    return " ".join([*(word for _, word in words), f"{language}-{folder}"])


def query(language: str, number: int, folder: str = "google") -> str:
    """The relevant passage: in English in capitals, which are the same to the tiny teacher; translations are marked."""
    text = passage(language, relevant(number), folder)
    return text.upper() if language == "english" else f"{text} uhai"


def qids() -> dict[str, list[int]]:
    """Query ids of the splits, each with a relevant passage of its own."""
    generator = random.Random(0)
    passages = generator.sample(range(PASSAGES), TRAIN + DEV)
    numbers = [number + PASSAGES * generator.randrange(10, 90) for number in passages]
    dev = numbers[TRAIN:]
    return {"train": numbers[:TRAIN], "dev": dev, "dev.small": dev[:SMALL]}


def relevant(number: int) -> int:
    return number % PASSAGES


def write_official(root: Path) -> Path:
    """The folder ``data`` of the official repository."""
    splits = qids()
    for folder, languages in VERSIONS.items():
        for language in languages:
            write(
                root / folder / "collections" / f"{language}_collection.tsv",
                [f"{number}\t{passage(language, number, folder)}" for number in range(PASSAGES)],
            )
            for split, numbers in splits.items():
                if folder == "helsinki" and split == "dev.small":
                    continue  # the official folder has none
                part = split.partition(".")[0]
                write(
                    root / folder / "queries" / part / f"{language}_queries.{split}.tsv",
                    [f"{number}\t{query(language, number, folder)}" for number in numbers],
                )
    for split in ("dev", "dev.small"):
        write(root / f"qrels.{split}.tsv", [f"{number}\t0\t{relevant(number)}\t1" for number in splits[split]])
    triples = [f"{n}\t{relevant(n)}\t{(relevant(n) + step) % PASSAGES}" for n in splits["train"] for step in (1, 7)]
    write(root / "triples.train.ids.small.tsv", triples)
    return root


def write_ir_home(home: Path, official: Path) -> Path:
    """The same files where ir_datasets looks for them; MS MARCO's own as the archives that it downloads."""
    names = {"helsinki": home / "mmarco", "google": home / "mmarco" / "v2"}
    for folder, languages in VERSIONS.items():
        for language in languages:
            if language == "english":
                continue
            copy(official / folder / "collections" / f"{language}_collection.tsv", names[folder])
            for split in ("train", "dev"):
                source = official / folder / "queries" / split / f"{language}_queries.{split}.tsv"
                name = source.name if folder == "helsinki" else f"{language}.queries.{split}.tsv"
                if (folder, language, split) in {
                    ("helsinki", "chinese", "dev"),
                    ("helsinki", "portuguese", "dev"),
                    ("helsinki", "portuguese", "train"),
                }:
                    write(names[folder] / name, ["1\tan older translation"])
                    name = f"{language}_queries.{split}.v1.1.tsv"
                copy(source, names[folder], name)
    for name in ("qrels.dev.tsv", "qrels.dev.small.tsv", "triples.train.ids.small.tsv"):
        copy(official / name, home / "mmarco")
    english = home / "msmarco-passage"
    english.mkdir()
    with tarfile.open(english / "collectionandqueries.tar.gz", "w:gz") as archive:
        archive.add(official / "google" / "collections" / "english_collection.tsv", "collection.tsv")
    with tarfile.open(english / "queries.tar.gz", "w:gz") as archive:
        for split in ("train", "dev"):
            archive.add(official / "google/queries" / split / f"english_queries.{split}.tsv", f"queries.{split}.tsv")
    return home


def write(path: Path, lines: list[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def copy(source: Path, folder: Path, name: str | None = None) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(source, folder / (name or source.name))


def built(root: Path | None, **options) -> MMarcoDataModule:
    data = MMarcoDataModule(root=None if root is None else str(root), batch_size=2, **options)
    data.setup()
    return data
