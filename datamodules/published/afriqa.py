"""``--data afriqa --data.root DIR --data.language swa``: questions in African languages, English Wikipedia passages.

AfriQA (Ogundepo et al. 2023): questions that speakers asked, their translations by people, and for many of them the
passage that holds the answer. The folder holds, as in github.com/masakhane-io/afriqa, JSON lines:

    data/queries/swa/queries.afriqa.swa.en.{train,dev,test}.json                  question, translated_question
    data/gold_passages/swa/gold_span_passages.afriqa.swa.en.{train,dev,test}.json id, question_lang,
                                                                  question_translated, title, context

Documents are the passages of all languages and splits in the folder, each once; the teacher reads them. Queries are the
questions of a language; relevant is the passage of the question. ``english`` asks the translations of ``test``.

Splits: ``test`` is the published one. ``dev`` is the published one where it has passages, else half of the train
questions that have some, else ``dev_share`` of the test questions, by hashes of their ids. Pairs are the translation
and the question of all train and dev questions but those that ``dev`` or ``test`` asks.

Traps: (1) the published README says that the translations are English or French; only files of ``en`` are read.
(2) Titles may be null. So may contexts: such a question is bitext, but no query. (3) A question has one passage; others
may answer it, and count as wrong.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from datamodules.bitext.published import bitext_pairs
from datamodules.bitext.reading import located, open_pairs
from datamodules.lines import unique
from datamodules.pairs import Pair, make_pairs, without_repeats
from datamodules.published.judged import Judged, JudgedDataModule, split
from datamodules.published.passages import Folder
from datamodules.text import fold, match_language, normalise
from foundations.errors import InputError
from foundations.files import json_line, scan_lines
from retrieval.collection import Collection, Side

Part = Literal["train", "dev", "test"]

_DEV_SHARE = 0.5
"""Share of the train questions that become ``dev`` where the published one has no passages."""

_QUESTIONS = "data/queries/{0}/queries.afriqa.{0}.en.{1}.json"
_PASSAGES = "data/gold_passages/{0}/gold_span_passages.afriqa.{0}.en.{1}.json"


class AfriQADataModule(JudgedDataModule):
    """Questions in an African language for the student, English passages for the teacher.

    Args:
        root: the folder with the published files.
        language: ISO 639 code, of two or three letters.
        bitext: further training pairs, ``ntrex:FOLDER,tico19:FOLDER``; see `datamodules.bitext.published`. Those of
            `pairs` are added as well.
        query_side: which encoder reads the questions.
        document_side: which encoder reads the passages.
        **options: those of `JudgedDataModule`.
    """

    def __init__(
        self,
        root: str,
        language: str = "swa",
        bitext: str | None = None,
        query_side: Side = "student",
        document_side: Side = "teacher",
        **options: Any,
    ) -> None:
        super().__init__(query_side=query_side, document_side=document_side, **options)
        self.root, self.language, self.bitext = root, language, bitext

    def load_pairs(self) -> list[Pair]:
        """The train and dev questions that are not asked, and the bitext."""
        asked = {fold(text) for each in (self.dev_split(), self.test_split()) if each for text in each.queries.values()}
        questions = [texts for part in ("train", "dev") for texts in self._questions(part)]
        texts = [(english, question) for english, question in questions if fold(question) not in asked]
        texts += bitext_pairs(self.bitext, self._language) if self.bitext else []
        if self.pairs_spec is not None:
            spec = located(self.pairs_spec.replace("{language}", self.language))
            more = open_pairs(spec, False, self.pair_languages, self.min_score)
            texts += [(pair.source, pair.target) for pair in more]
        return make_pairs(without_repeats(texts))

    def test_split(self) -> Judged:
        """The test questions that have a passage."""
        return self._judged("test")

    def dev_split(self) -> Judged | None:
        """The dev questions that have a passage, or half of such train questions; None where there are none."""
        if (dev := self._judged("dev")).queries:
            return dev
        return split(train, _DEV_SHARE)[0] if (train := self._judged("train")).queries else None

    def english_twin(self, test: Collection) -> Collection:
        """The translations of the test questions."""
        translated = {
            query: self._records[self._language, "test"][query]["question_translated"] for query in test.queries
        }
        return Collection("english", translated, test.documents, test.qrels, "teacher", "teacher")

    @cached_property
    def _folder(self) -> Folder:
        return Folder(self.root, ("afriqa",), "AfriQA (see the head of datamodules/published/afriqa.py)")

    @cached_property
    def _language(self) -> str:
        """The language as the files name it."""
        known = [path.name.split(".")[2] for path in self._folder.parts(_PASSAGES.format("*", "test"))]
        if (code := match_language(self.language, known)) is None:
            raise InputError(f"data.language is {self.language!r}, expected one of {', '.join(known)}", self.root)
        return code

    def _questions(self, part: str) -> Iterator[tuple[str, str]]:
        """(English, question) of a split."""
        path = self._folder.file(_QUESTIONS.format(self._language, part))
        for record in _read(path, ("translated_question", "question")).values():
            if all(record.values()):
                yield record["translated_question"], record["question"]

    @cached_property
    def _records(self) -> dict[tuple[str, str], dict[str, dict[str, str]]]:
        """The questions with a passage, by language and split, then by id."""
        records: dict[tuple[str, str], dict[str, dict[str, str]]] = {}
        for path in self._folder.parts(_PASSAGES.format("*", "*")):
            language, part = path.name.split(".")[2], path.name.split(".")[4]
            found = _read(path, ("question_lang", "question_translated", "context", "title"))
            complete = {key: record for key, record in found.items() if record["context"] and record["question_lang"]}
            records[language, part] = {f"{part}-{key}": record for key, record in complete.items()}
        return records

    @cached_property
    def _documents(self) -> tuple[dict[str, str], dict[str, str]]:
        """The passages by id, each once, and the id of each text."""
        ids: dict[str, str] = {}
        for (language, _), records in self._records.items():
            for key, record in records.items():
                ids.setdefault(_passage(record), f"{language}-{key}")
        return {identifier: text for text, identifier in ids.items()}, ids

    def _judged(self, part: Part) -> Judged:
        """The questions of a split that have a passage."""
        documents, ids = self._documents
        records = self._records.get((self._language, part), {})
        return Judged(
            f"AfriQA {self._language} {part}",
            {key: record["question_lang"] for key, record in records.items()},
            documents,
            {key: {ids[_passage(record)]: 1} for key, record in records.items()},
        )


def _passage(record: dict[str, str]) -> str:
    return normalise(f"{record['title']} {record['context']}")


def _read(path: Path, names: tuple[str, ...]) -> dict[str, dict[str, str]]:
    """Some fields of each line of a JSON file, normalised, by ``id``; null is read as an empty text."""
    expected = f"a JSON object with id, {', '.join(names)}"

    def rows() -> Iterator[tuple[int, str, dict[str, str]]]:
        for number, _, line in scan_lines(path, expected):
            content = json_line(line, expected, path, number)
            try:
                texts = {name: normalise(content[name] or "") for name in names}
                yield number, str(content["id"]), texts
            except (KeyError, TypeError):
                raise InputError(f"a field is missing or no string, expected {expected}", path, number) from None

    return dict(unique(rows(), path))
