"""AfriCLIRMatrix, CIRAL and MIRACL in the layouts of their repositories; the texts are made up."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

from tests.datamodules.published.hc4_layout import COUPLES, WORDS, lines

ALL = list(WORDS)


def write(path: Path, content: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(content.encode()) if path.suffix == ".gz" else content.encode())
    return path


def topics(words: list[str], swahili: bool = False) -> str:
    return "".join(f"{100 + ALL.index(word)}\t{WORDS[word] if swahili else word}\n" for word in words)


def qrels(words: list[str], separator: str = " ", top: int = 1) -> str:
    """`top` where the word comes first, 1 where it comes second, 0 for one other document."""
    rows = []
    for word in words:
        for number, couple in enumerate(COUPLES):
            if word in couple:
                rows.append((100 + ALL.index(word), "Q0", f"{number}#0", top if couple[0] == word else 1))
    rows.append((100 + ALL.index(words[0]), "Q0", "0#0" if words[0] not in COUPLES[0] else "40#0", 0))
    return "".join(separator.join(map(str, row)) + "\n" for row in rows)


def passages(**fields: str) -> list[dict[str, Any]]:
    """Two words of Swahili each; fields gives the names of id, title and text."""
    names = {"id": "docid", "title": "title", "text": "text"} | fields
    values = [(f"{n}#0", f"Kuhusu {WORDS[a]}", f"{WORDS[a]}\t{WORDS[b]}", "u") for n, (a, b) in enumerate(COUPLES)]
    return [dict(zip((*names.values(), "url"), row, strict=True)) for row in values]


def write_africlirmatrix(root: Path) -> None:
    name = "africlirmatrix-v1.0.en.swa"
    write(root / f"test/queries/topics.{name}.tsv", topics(ALL))
    write(root / f"test/qrels/qrels.{name}.txt", qrels(ALL, top=6))
    records = passages(id="id", text="contents")
    write(root / "africlirmatrix-v1.0-swahili/corpus.jsonl", lines(records))


def write_ciral(root: Path) -> None:
    for split, words in (("dev", ALL[:2]), ("test-a", ALL[2:6]), ("test-b", ALL[6:])):
        for suffix, swahili in (("", False), ("-native", True)):
            name = f"ciral-swahili/topics/topics.ciral-v1.0-sw-{split}{suffix}.tsv"
            write(root / name, topics(words, swahili).rstrip("\n"))
        write(root / f"ciral-swahili/qrels/qrels.ciral-v1.0-sw-{split}.tsv", qrels(words[:1]))
    write(root / "ciral-swahili/qrels/qrels.ciral-v1.0-sw-test-a-pools.tsv", qrels(ALL[2:6]))
    write(root / "passages-v1.0/swahili_passages.jsonl", lines(passages()))


def write_miracl(root: Path, parts: int = 12) -> None:
    base = root / "miracl-v1.0-sw"
    for split, words in (("train", ALL[:6]), ("dev", ALL[6:])):
        write(base / f"topics/topics.miracl-v1.0-sw-{split}.tsv", topics(words, swahili=True))
        write(base / f"qrels/qrels.miracl-v1.0-sw-{split}.tsv", qrels(words, "\t"))
    records = passages()
    size = -(-len(records) // parts)
    for part in range(parts):
        content = lines(records[part * size : (part + 1) * size])
        write(root / f"miracl-corpus-v1.0-sw/docs-{part}.jsonl.gz", content)
