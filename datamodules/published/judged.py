"""Judged collections as data: test and dev collections, and training pairs from bitext or from judgments."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, ClassVar

import numpy as np

from datamodules.base import PairsDataModule
from datamodules.bitext.reading import located, open_pairs
from datamodules.lines import items_at
from datamodules.pairs import Pair
from datamodules.sources import Pairs, RowsSource, check_bounds
from datamodules.text import hash_share, text_id
from foundations.checks import check_number
from foundations.errors import InputError
from foundations.progress import delayed_progress
from retrieval.collection import Collection, Qrels, Side

_IN_MEMORY = 100_000


@dataclass(frozen=True)
class Judged:
    """Queries, documents and judgments of one split.

    Args:
        name: the file or id that it comes from, for messages.
        queries: query id -> text; more than the judged ones are allowed.
        documents: document id -> text; texts may stay on disk.
        qrels: query id -> document id -> grade.
    """

    name: str
    queries: Mapping[str, str] = field(repr=False)
    documents: Mapping[str, str] = field(repr=False)
    qrels: Qrels = field(repr=False)

    def only(self, queries: Sequence[str]) -> Judged:
        """The same documents with some of the judged queries."""
        return replace(
            self,
            queries={query: self.queries[query] for query in queries},
            qrels={query: self.qrels[query] for query in queries},
        )


def known(judged: Judged) -> Judged:
    """The split without queries that have no judgments, or no text, with a warning that counts the latter.

    Judgments of documents that are not in the collection are kept, as trec_eval does (no system can find them), with
    a warning as well.

    Raises:
        InputError: no judged query has a text, or no relevant document is in the collection.
    """
    queries = [query for query in judged.qrels if query in judged.queries]
    if not queries:
        raise InputError(f"{judged.name}: none of the {len(judged.qrels)} judged queries is among the queries")
    if without_text := [query for query in judged.qrels if query not in judged.queries]:
        lost = [grade for query in without_text for grade in judged.qrels[query].values()]
        warnings.warn(
            f"{judged.name}: {len(without_text)} judged queries, such as {without_text[0]!r}, have no text and are left"
            f" out ({len(lost)} judgments, {sum(grade > 0 for grade in lost)} of them relevant)",
            stacklevel=2,
        )
    judged = judged.only(queries)
    known_documents, unknown_documents = 0, dict[str, bool]()
    with delayed_progress(f"look up judged documents of {judged.name}", len(judged.qrels)) as advance:
        for grades in judged.qrels.values():
            for document, grade in grades.items():
                is_known = document in judged.documents
                known_documents += is_known and grade > 0
                if not is_known:
                    unknown_documents[document] = grade > 0 or unknown_documents.get(document, False)
            advance(1)
    if not known_documents:
        raise InputError(f"{judged.name}: none of the relevant documents is in the collection")
    if unknown_documents:
        relevant = sum(unknown_documents.values())
        warnings.warn(
            f"{judged.name}: {len(unknown_documents)} judged documents, {relevant} of them relevant, such as "
            f"{next(iter(unknown_documents))!r}, are not in the collection; no system can find them",
            stacklevel=2,
        )
    return judged


def split(judged: Judged, share: float) -> tuple[Judged, Judged]:
    """A share, in (0, 1), of the queries by a hash of their ids, and the others; InputError where a part is empty.

    Adding or removing queries moves no other query, and the order makes no difference.
    """
    first = [query for query in judged.qrels if hash_share(query, "judged dev") < share]
    second = [query for query in judged.qrels if hash_share(query, "judged dev") >= share]
    if not first or not second:
        count = len(judged.qrels)
        raise InputError(f"{judged.name}: {count} judged queries are too few to take {share:.0%} of them for dev")
    return judged.only(first), judged.only(second)


def bounded(judged: Judged, queries: int, documents: int, seed: int = 0) -> Judged:
    """A part of a split that is quick to search: at most `queries` random queries, and `documents`; 0 takes all.

    The documents are all that are judged for these queries (even if they are more), and random others. Scores on it are
    higher than on the whole collection: compare them with each other only.
    """
    if queries and len(judged.qrels) > queries:
        ranked = sorted(judged.qrels, key=lambda query: hash_share(query, f"dev queries {seed}"))
        chosen = set(ranked[:queries])
        judged = judged.only([query for query in judged.qrels if query in chosen])
    if not documents or len(judged.documents) <= documents:
        return judged
    of_queries = {document: None for grades in judged.qrels.values() for document in grades}
    texts = {document: judged.documents[document] for document in of_queries if document in judged.documents}
    texts |= _sample(judged.documents, max(0, documents - len(texts)), texts.keys(), seed)
    return replace(judged, documents=texts)


def _sample(documents: Mapping[str, str], size: int, without: Any, seed: int) -> dict[str, str]:
    """Documents chosen at random, none of which is in `without`."""
    count = len(documents)
    order = np.random.default_rng(seed).choice(count, size=min(count, size + len(without)), replace=False).tolist()
    chosen: dict[str, str] = {}
    with delayed_progress("choose documents for dev", size) as advance:
        for document, text in items_at(documents, order):
            if len(chosen) >= size:
                break
            if document not in without:
                chosen[document] = text
                advance(1)
    return chosen


class GradedPairs(RowsSource):
    """The (query, document) pairs of a split with a grade of `min_grade` or more; texts stay where the split has them.

    A judged document answers the query but does not say the same: these pairs are comparable, not parallel. With
    `document_first` the document is the source, which the teacher reads. Judgments of documents that the split lacks
    are left out; InputError where no judgment is left.
    """

    def __init__(self, judged: Judged, min_grade: int, document_first: bool = False, chunk_rows: int = 1024) -> None:
        self.judged, self.document_first = judged, document_first
        rows: list[tuple[str, str]] = []
        with delayed_progress(f"look up training pairs of {judged.name}", len(judged.qrels)) as advance:
            for query, grades in judged.qrels.items():
                graded = [document for document, grade in grades.items() if grade >= min_grade]
                rows += [(query, document) for document in graded if document in judged.documents]
                advance(1)
        if not rows:
            known_grades = sorted({grade for grades in judged.qrels.values() for grade in grades.values()})
            raise InputError(
                f"{judged.name}: no judgment of a known document has grade {min_grade} or more; "
                f"the grades are {', '.join(map(str, known_grades))}"
            )
        super().__init__(rows, chunk_rows)

    def parse(self, row: tuple[str, str]) -> Pair:
        """The texts of a judgment; sources that differ only in case and white space share an id."""
        texts = self.judged.queries[row[0]], self.judged.documents[row[1]]
        source, target = texts[self.document_first], texts[not self.document_first]
        return Pair(source, target, text_id(source))

    def loaded(self) -> Pairs:
        """All pairs in memory where they are few, else the source."""
        return list(self) if len(self) <= _IN_MEMORY else self


class JudgedDataModule(PairsDataModule):
    """Test and dev collections from judged splits; training pairs from bitext or from a judged split.

    A dataset is a subclass with `test_split` and, where it has them, `dev_split`, `train_split` and `english_twin`.

    Args:
        pairs: bitext, in any of the formats of `datamodules.bitext.reading`: what the teacher reads, and the same for
            the student; ``{language}`` in its name stands for the language, for a mixture of several. None trains on
            judged (query, document) pairs, where the dataset has a split for training.
        min_grade: least grade of a judged pair to train on.
        dev_share: share of the test queries, by a hash of their ids, that become ``dev`` where the dataset has no
            dev split. 0 tests on all queries, as published figures do; ``dev`` is then a part of ``test``.
        dev_queries: most queries in ``dev``; 0 for all.
        dev_documents: most documents in ``dev``: the judged ones and others at random; 0 for all.
        query_side: which encoder reads the queries.
        document_side: which encoder reads the documents.
        pair_languages: codes of source and target, such as ``en,sw``, where pairs are TMX or JSON with more than the
            English text and one other.
        min_score: of pairs with scores, leave out those that score lower.
        **options: those of `PairsDataModule`.
    """

    language: str = ""
    """Code of the language, where the dataset has several."""
    training_hint: ClassVar[str] = ""
    """What the user can give instead of bitext, for the error message."""

    def __init__(
        self,
        pairs: str | None = None,
        min_grade: int = 1,
        dev_share: float = 0.25,
        dev_queries: int = 500,
        dev_documents: int = 20_000,
        query_side: Side = "teacher",
        document_side: Side = "student",
        pair_languages: str | None = None,
        min_score: float | None = None,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        check_number("dev_share", dev_share, least=0, below=1)
        check_bounds(dev_queries=dev_queries, dev_documents=dev_documents)
        if (query_side, document_side) == ("teacher", "teacher"):
            raise ValueError("query_side and document_side are both 'teacher': set one of them to 'student'")
        self.pairs_spec, self.pair_languages, self.min_score = pairs, pair_languages, min_score
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

    def english_twin(self, test: Collection) -> Collection | None:  # noqa: ARG002
        """Hook: the English twin of ``test``, where there is one."""
        return None

    def prepare_data(self) -> None:
        """Download and unpack what the splits are made of."""
        if not self._is_loaded:
            self.test_split(), self.dev_split(), self.train_split()

    def sides(self) -> tuple[Side, Side]:
        """Which encoder reads the queries, and which the documents."""
        return self.query_side, self.document_side

    def load_pairs(self) -> Pairs:
        """Pairs of the bitext, or judged pairs."""
        if self.pairs_spec is not None:
            spec = located(self.pairs_spec.replace("{language}", self.language))
            return open_pairs(spec, None, self.pair_languages, self.min_score)
        train = self.train_split()
        if train is None:
            raise InputError(
                "nothing to train on: give a file of bitext with --data.pairs FILE (lines of source<TAB>target: what "
                f"the teacher reads, and the same for the student){self.training_hint}"
            )
        document_first = self.sides() == ("student", "teacher")
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
        english = self.english_twin(collections["test"])
        return collections | ({} if english is None else {"english": english})

    @cached_property
    def _test(self) -> Judged:
        return known(self.test_split())

    def _collection(self, name: str, judged: Judged) -> Collection:
        return Collection(name, judged.queries, judged.documents, judged.qrels, *self.sides())
