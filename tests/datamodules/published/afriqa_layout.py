"""AfriQA, NTREX-128 and TICO-19 in the layouts of their repositories; the texts are made up."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

PASSAGES = {"hau": ("train", "dev", "test"), "swa": ("test",), "yor": ("train", "test")}
COUNT = 24


def write_lines(path: Path, records: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records), encoding="utf-8")


def question(language: str, part: str, number: int) -> str:
    return f"{language} swali {part} {number}?"


def english(language: str, part: str, number: int) -> str:
    return f"{language} question {part} {number}?"


def write_afriqa(root: Path) -> Path:
    """Three languages, 24 questions a split, of which every second has a passage, where the split has some.

    The passage of question 2 is that of question 0; 4 has no title, 6 no context.
    """
    for language, parts in PASSAGES.items():
        for part in ("train", "dev", "test"):
            records: list[dict[str, Any]] = [
                {"id": n, "question": question(language, part, n), "translated_question": english(language, part, n)}
                for n in range(COUNT)
            ]
            write_lines(root / f"data/queries/{language}/queries.afriqa.{language}.en.{part}.json", records)
            if part not in parts:
                continue
            gold = [
                {
                    "id": str(n),
                    "question_lang": question(language, part, n),
                    "question_translated": english(language, part, n),
                    "title": None if n == 4 else f"Title {language}",
                    "context": None if n == 6 else f"passage  {part} {0 if n == 2 else n}",
                }
                for n in range(0, COUNT, 2)
            ]
            write_lines(
                root / f"data/gold_passages/{language}/gold_span_passages.afriqa.{language}.en.{part}.json", gold
            )
    return root


def write_ntrex(root: Path, language: str = "swa") -> Path:
    folder = root / "NTREX-128"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "newstest2019-src.eng.txt").write_text("news one\n\nnews three\n", encoding="utf-8")
    (folder / f"newstest2019-ref.{language}.txt").write_text("habari 1\nhabari 2\nhabari 3\n", encoding="utf-8")
    return root


def write_tico19(root: Path, language: str = "sw") -> Path:
    root.mkdir(parents=True, exist_ok=True)
    unit = f'<tu><tuv xml:lang="en"><seg>fever</seg></tuv><tuv xml:lang="{language}"><seg>homa</seg></tuv></tu>'
    with zipfile.ZipFile(root / f"all.en-{language}.tmx.zip", "w") as archive:
        archive.writestr(f"all.en-{language}.tmx", f'<tmx version="1.4"><body>{unit}</body></tmx>')
    return root
