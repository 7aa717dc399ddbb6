"""``--data miracl --data.root DIR --data.language sw``: queries and Wikipedia passages in one language.

MIRACL (Zhang et al. 2023), 18 languages, judged by native speakers, 0 or 1. The folder holds, as published:

    miracl-v1.0-sw/topics/topics.miracl-v1.0-sw-dev.tsv    id<TAB>query
    miracl-v1.0-sw/qrels/qrels.miracl-v1.0-sw-dev.tsv      TREC qrels
    miracl-corpus-v1.0-sw/docs-0.jsonl.gz, ...             {"docid": ..., "title": ..., "text": ...}

and the same for ``train``: the repositories miracl/miracl and miracl/miracl-corpus at huggingface.co/datasets, merged
or copied into the folder. The judgments of the test sets are not public, so
``test`` is the published dev set, as in the literature. ``dev`` is a share of the train queries (by a hash of their
ids), which are then not trained on; German and Yoruba have no train set, and ``dev`` is a share of the dev queries.

Traps: nothing is English here: student reads queries and passages. Without ``pairs`` the pairs are (query, passage) of
the train set, and the teacher reads the query, so it must understand the language; with an English teacher give
bitext. The passages are unpacked into the cache folder (English: 66 files, 33 million passages).
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any

from datamodules.published.judged import Judged, JudgedDataModule, known, split
from datamodules.published.passages import Folder, judged_files, language_code, open_passages
from retrieval.collection import Side

LANGUAGES = {"ar": "arabic", "bn": "bengali", "de": "german", "en": "english", "es": "spanish", "fa": "persian",
             "fi": "finnish", "fr": "french", "hi": "hindi", "id": "indonesian", "ja": "japanese", "ko": "korean",
             "ru": "russian", "sw": "swahili", "te": "telugu", "th": "thai", "yo": "yoruba",
             "zh": "chinese"}  # fmt: skip
"""Code in the paths of the files -> name."""

WITHOUT_TRAIN = ("de", "yo")
"""Languages that have no train set."""


class MIRACLDataModule(JudgedDataModule):
    """Queries and passages in one language, both for the student.

    Args:
        root: the folder with the published files.
        language: code of `LANGUAGES`, or the name.
        dev_share: share of the train queries (of the test queries for `WITHOUT_TRAIN`) that become ``dev``.
        query_side: which encoder reads the queries.
        document_side: which encoder reads the passages.
        **options: those of `JudgedDataModule`.
    """

    def __init__(
        self,
        root: str,
        language: str = "sw",
        dev_share: float = 0.25,
        query_side: Side = "student",
        document_side: Side = "student",
        **options: Any,
    ) -> None:
        super().__init__(dev_share=dev_share, query_side=query_side, document_side=document_side, **options)
        self.root, self.language = root, language_code(language, LANGUAGES, "MIRACL")

    def test_split(self) -> Judged:
        """The published dev set."""
        return self._split("dev")

    def dev_split(self) -> Judged | None:
        """The held-out share of the train set."""
        return self._train[0]

    def train_split(self) -> Judged | None:
        """The train set without the queries of ``dev``."""
        return self._train[1]

    @cached_property
    def _train(self) -> tuple[Judged | None, Judged | None]:
        """The train queries that become ``dev``, and the others."""
        if self.language in WITHOUT_TRAIN or not self._folder.has(self._names("train")[0]):
            return None, None
        train = known(self._split("train"))
        return split(train, self.dev_share) if self.dev_share else (None, train)

    @cached_property
    def _folder(self) -> Folder:
        return Folder(
            self.root, ("miracl", "miracl-corpus"), "MIRACL (see the head of datamodules/published/miracl.py)"
        )

    @cached_property
    def _documents(self) -> Mapping[str, str]:
        name = f"miracl-corpus-v1.0-{self.language}"
        parts = self._folder.parts(f"{name}/docs-*.jsonl.gz", f"{name}/docs-*.jsonl")
        return open_passages(parts, "docid", ("title", "text"))

    def _names(self, part: str) -> tuple[str, str]:
        base, name = f"miracl-v1.0-{self.language}", f"miracl-v1.0-{self.language}-{part}.tsv"
        return f"{base}/topics/topics.{name}", f"{base}/qrels/qrels.{name}"

    def _split(self, part: str) -> Judged:
        topics, qrels = self._names(part)
        return judged_files(self._folder.file(topics), self._folder.file(qrels), self._documents)
