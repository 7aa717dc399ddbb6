"""``--data ciral --data.root DIR --data.language swa``: English questions, passages of news in four African languages.

CIRAL (Adeyemi et al. 2024), judged by native speakers, 0 or 1. The folder holds, as published:

    ciral-swahili/topics/topics.ciral-v1.0-sw-test-a.tsv    id<TAB>query
    ciral-swahili/qrels/qrels.ciral-v1.0-sw-test-a.tsv      TREC qrels
    passages-v1.0/swahili_passages.jsonl                    {"docid": ..., "title": ..., "text": ..., "url": ...}

and the same for ``dev`` and ``test-b``, and topics in the language itself (``topics.ciral-v1.0-sw-dev-native.tsv``):
the repositories CIRAL/ciral and CIRAL/ciral-corpus at huggingface.co/datasets, merged or copied into the folder. Any
of them may be compressed.
Test set A is judged twice: few judgments a query, and deep pools (``test-a-pools``, the same queries). ``dev`` has 10
queries only, so the best epoch by it is a matter of luck: look at the intervals. There is no training split: give
bitext with ``pairs``.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any, Literal

from datamodules.published.judged import Judged, JudgedDataModule
from datamodules.published.passages import Folder, judged_files, language_code, open_passages
from foundations.checks import check_choice
from retrieval.collection import Side

LANGUAGES = {"hau": "hausa", "som": "somali", "swa": "swahili", "yor": "yoruba"}
"""Code -> name in the paths of the files."""


class CIRALDataModule(JudgedDataModule):
    """English questions for the teacher, passages of news in an African language for the student.

    Args:
        root: the folder with the published files.
        language: ``hau``, ``som``, ``swa`` or ``yor``; the two letters of the file names and the names do as well.
        test: which set to test on; ``test-a-pools`` are the queries of ``test-a`` with their deep judgments.
        queries: ``english``, or ``native``: the same questions in the language of the passages, for the student.
        query_side: which encoder reads the queries; by default the teacher English ones, the student native ones.
        **options: those of `JudgedDataModule`.
    """

    def __init__(
        self,
        root: str,
        language: str = "swa",
        test: Literal["test-a", "test-a-pools", "test-b"] = "test-a-pools",
        queries: Literal["english", "native"] = "english",
        query_side: Side | None = None,
        **options: Any,
    ) -> None:
        super().__init__(query_side=query_side or ("student" if queries == "native" else "teacher"), **options)
        check_choice("queries", queries, ("english", "native"))
        two_letters = {code[:2]: code for code in LANGUAGES}
        self.language = language_code(two_letters.get(language, language), LANGUAGES, "CIRAL")
        self.root, self.test, self.queries = root, test, queries

    def test_split(self) -> Judged:
        """The chosen test set."""
        return self._split(self.test)

    def dev_split(self) -> Judged:
        """The ten queries of ``dev``."""
        return self._split("dev")

    @cached_property
    def _folder(self) -> Folder:
        return Folder(self.root, ("ciral", "ciral-corpus"), "CIRAL (see the head of datamodules/published/ciral.py)")

    @cached_property
    def _documents(self) -> Mapping[str, str]:
        name = f"{LANGUAGES[self.language]}_passages.jsonl"
        return open_passages([self._folder.file(f"passages-v1.0/{name}", name)], "docid", ("title", "text"))

    def _split(self, split: str) -> Judged:
        base = f"ciral-{LANGUAGES[self.language]}"
        native = "-native" if self.queries == "native" else ""
        topics = f"topics.ciral-v1.0-{self.language[:2]}-{split.removesuffix('-pools')}{native}.tsv"
        qrels = f"qrels.ciral-v1.0-{self.language[:2]}-{split}.tsv"
        return judged_files(
            self._folder.file(f"{base}/topics/{topics}", topics),
            self._folder.file(f"{base}/qrels/{qrels}", qrels),
            self._documents,
        )
