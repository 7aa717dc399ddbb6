"""The base of datamodules whose data are judged collections in public layouts."""

from __future__ import annotations

import warnings
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from datamodules.base import PairsDataModule
from datamodules.judged import GradedPairs, Judged, bounded, known, split
from datamodules.pair_file import PAIR_LINE, PairFile
from datamodules.pairs import Pair, make_pairs
from datamodules.source import PairSource
from datamodules.tsv import read_rows
from retrieval.collection import Collection, Side
from retrieval.errors import InputError
from retrieval.files import require_file

_IN_MEMORY_BYTES = 2**28


def bitext(path: Path) -> list[Pair] | PairSource:
    """The pairs of a file of source<TAB>target; those of a large one stay on disk."""
    if require_file(path).stat().st_size > _IN_MEMORY_BYTES:
        return PairFile(path)
    return make_pairs((source, target) for _, (source, target) in read_rows(path, PAIR_LINE))


class JudgedDataModule(PairsDataModule):
    """Test and dev collections from judged splits; training pairs from bitext or from a judged split.

    A dataset is a subclass with `test_split` and, where it has them, `dev_split`, `train_split` and `english`.

    Args:
        pairs: file of bitext, lines of source<TAB>target: what the teacher reads, and the same for the student;
            ``{language}`` in its name stands for the language, for a mixture of several. None trains on judged
            (query, document) pairs, where the dataset has a split for training.
        min_grade: least grade of a judged pair to train on.
        dev_share: share of the test queries, by a hash of their ids, that become ``dev`` where the dataset has no
            dev split. 0 tests on all queries, as published figures do; ``dev`` is then a part of ``test``.
        dev_queries: at most so many queries in ``dev``; 0 for all.
        dev_documents: at most so many documents in ``dev``: the judged ones and others at random; 0 for all.
        query_side: which encoder reads the queries.
        document_side: which encoder reads the documents.
        **options: those of `PairsDataModule`.
    """

    language: str = ""
    """Code of the language, where the dataset has several."""
    training_hint: ClassVar[str] = ""
    """What else than bitext the user can give, for the error message."""

    def __init__(
        self,
        pairs: str | None = None,
        min_grade: int = 1,
        dev_share: float = 0.25,
        dev_queries: int = 500,
        dev_documents: int = 20_000,
        query_side: Side = "teacher",
        document_side: Side = "student",
        **options: Any,
    ) -> None:
        super().__init__(**options)
        if not 0 <= dev_share < 1:
            raise ValueError(f"dev_share is {dev_share}, expected a number from 0 and below 1, such as 0.25")
        for name, value in (("dev_queries", dev_queries), ("dev_documents", dev_documents)):
            if value < 0:
                raise ValueError(f"{name} is {value}, expected 0 (all) or more")
        if (query_side, document_side) == ("teacher", "teacher"):
            raise ValueError("query_side and document_side are both 'teacher': set one of them to 'student'")
        self.pairs_file = None if pairs is None else Path(pairs).expanduser()
        self.min_grade, self.dev_share = min_grade, dev_share
        self.dev_queries, self.dev_documents = dev_queries, dev_documents
        self.query_side, self.document_side = query_side, document_side

    def test_split(self) -> Judged:
        """Hook: what to test on."""
        raise NotImplementedError

    def dev_split(self) -> Judged | None:
        """Hook: what to choose the best epoch by; None takes a share of the test queries."""
        return None

    def train_split(self) -> Judged | None:
        """Hook: judgments to train on; None where the dataset has none, so that `pairs` must be given."""
        return None

    def english(self, test: Collection) -> Collection | None:  # noqa: ARG002
        """Hook: the English twin of ``test``, where there is one."""
        return None

    def load_pairs(self) -> list[Pair] | PairSource:
        """Pairs of the bitext, or judged pairs."""
        if self.pairs_file is not None:
            return bitext(Path(str(self.pairs_file).replace("{language}", self.language)))
        train = self.train_split()
        if train is None:
            raise InputError(
                "nothing to train on: give a file of bitext with --data.pairs FILE (lines of source<TAB>target: what "
                f"the teacher reads, and the same for the student){self.training_hint}"
            )
        document_first = (self.query_side, self.document_side) == ("student", "teacher")
        return GradedPairs(train, self.min_grade, document_first).loaded()

    def load_collections(self) -> dict[str, Collection]:
        """``dev``, ``test`` and, where there is one, ``english``."""
        dev, test = self.dev_split(), self._test
        if dev is not None:
            dev = known(dev)
            if both := sum(test.queries.get(query) == text for query, text in dev.queries.items()):
                warnings.warn(f"{both} of the {len(dev.queries)} dev queries are test queries as well", stacklevel=2)
        elif self.dev_share:
            dev, test = split(test, self.dev_share)
        else:
            warnings.warn(
                "dev_share is 0, so dev is a part of test: the best epoch is chosen by queries that are tested",
                stacklevel=2,
            )
            dev = test
        collections = {
            "dev": self._collection("dev", bounded(dev, self.dev_queries, self.dev_documents, self.seed)),
            "test": self._collection("test", test),
        }
        english = self.english(collections["test"])
        return collections | ({} if english is None else {"english": english})

    @cached_property
    def _test(self) -> Judged:
        return known(self.test_split())

    def _collection(self, name: str, judged: Judged) -> Collection:
        return Collection(name, judged.queries, judged.documents, judged.qrels, self.query_side, self.document_side)
