"""HC4 and NeuCLIR in the files that ir_datasets reads: Persian news, with English topics; the texts are made up."""

from __future__ import annotations

import gzip
import itertools
import json
from pathlib import Path
from typing import Any

WORDS = {"cat": "paka", "mat": "mkeka", "morning": "asubuhi", "friend": "rafiki", "sun": "jua", "water": "maji",
         "life": "uhai", "big": "kubwa", "red": "jekundu", "small": "mdogo"}  # fmt: skip
SPLITS = {"train": list(WORDS)[:6], "dev": list(WORDS)[6:8], "test": list(WORDS)[8:]}
COUPLES = list(itertools.permutations(WORDS, 2))
FILTERED = {f"{a}-{b}" for a, b in COUPLES if "mat" not in (a, b)}


def topic(word: str, languages: tuple[str, ...] = ("fas", "rus")) -> dict[str, Any]:
    texts = {"original": ("eng", word), "human translation": ("fas", WORDS[word]), "google": ("fas", f"{WORDS[word]}?")}
    return {
        "topic_id": f"t-{word}",
        "languages_with_qrels": list(languages),
        "topics": [
            {"lang": lang, "source": source, "topic_title": text, "topic_description": f"About {text}"}
            for source, (lang, text) in texts.items()
        ],
        "narratives": {"fas": {"very_valuable": "..."}},
        "report": {"url": "u", "date": "d", "text": "..."},
    }


def documents() -> list[dict[str, str]]:
    return [
        {"id": f"{a}-{b}", "title": f"{WORDS[a]} ", "text": f" {WORDS[a]}\n{WORDS[b]}", "url": "u", "time": "t",
         "cc_file": "c"}
        for a, b in COUPLES
    ]  # fmt: skip


def lines(records: list[Any]) -> str:
    return "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)


def qrels(words: list[str]) -> str:
    """Grade 3 where the word comes first, 1 where it comes second, and one judgment of 0."""
    judged = [(word, a, b) for word in words for a, b in COUPLES if word in (a, b)]
    rows = [f"t-{word} 0 {a}-{b} {3 if word == a else 1}\n" for word, a, b in judged]
    return "".join(rows) + f"t-{words[0]} 0 {'sun-water' if words[0] not in ('sun', 'water') else 'cat-mat'} 0\n"


def write_hc4(home: Path) -> None:
    for folder in ("hc4/fas", "neuclir/1/fas"):
        (home / folder).mkdir(parents=True)
    content = lines(documents()).encode()
    (home / "hc4/fas/hc4_docs.jsonl").write_bytes(content)
    (home / "neuclir/1/fas/docs.jsonl.gz").write_bytes(gzip.compress(content))
    ids = lines([{"id": identifier, "md5": "0"} for identifier in sorted(FILTERED)])
    (home / "hc4/fas/ids.jsonl.gz").write_bytes(gzip.compress(ids.encode()))
    for split, words in SPLITS.items():
        (home / f"hc4/{split}.topics.v1-0.jsonl").write_text(lines([topic(word) for word in words]), encoding="utf-8")
        (home / f"hc4/fas/{split}.qrels.v1-0.txt").write_text(qrels(words), encoding="utf-8")
