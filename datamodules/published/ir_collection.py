"""``--data ir_datasets --data.id neuclir/1/fa/hc4-filtered``: any judged dataset of `ir_datasets`.

The ids are at https://ir-datasets.com. Whatever has documents, queries and judgments can be tested on; training
pairs come from a file of bitext, or from the judgments of a ``train_id``. Files are taken from the folder of the
environment variable IR_DATASETS_HOME (``~/.ir_datasets``), and downloaded to it where that is possible.

Traps: the judged pairs of a train_id are comparable texts, not translations (see docs/data.md). The default text of
a query or document is what ir_datasets takes for it, which can be the title alone: see query_field.
"""

from __future__ import annotations

from typing import Any

from datamodules.published.ir_texts import IrDocuments, ir_qrels, ir_queries, load_dataset
from datamodules.published.judged import Judged, JudgedDataModule
from foundations.errors import InputError
from retrieval.collection import Collection, Side


class IrDatasetsDataModule(JudgedDataModule):
    """Any judged dataset of ir_datasets, by its id.

    Args:
        id: the dataset to test on.
        dev_id: the dataset to choose the best epoch by; by default a share of the queries of `id`.
        train_id: the dataset whose judged pairs are trained on, where there is no file of bitext.
        english_id: dataset with the English texts of the same queries and documents, by the same ids, for the
            ceiling: the teacher on English.
        query_field: field of a query to read, or several joined by a space (``title description``); by default
            the text that ir_datasets takes.
        document_field: the same for documents.
        query_side: which encoder reads the queries; by default the student unless ir_datasets says that they are
            in English, or does not say it.
        document_side: which encoder reads the documents; by default the student unless they are said to be in
            English.
        **options: those of `JudgedDataModule`.
    """

    training_hint = ", or a dataset with judged pairs with --data.train_id ID"

    def __init__(
        self,
        id: str,
        dev_id: str | None = None,
        train_id: str | None = None,
        english_id: str | None = None,
        query_field: str | None = None,
        document_field: str | None = None,
        query_side: Side | None = None,
        document_side: Side | None = None,
        **options: Any,
    ) -> None:
        # By default the languages of the dataset say who reads what; see `sides`.
        super().__init__(query_side=query_side or "student", document_side=document_side or "student", **options)
        if id in (dev_id, train_id):
            raise ValueError(f"id and {'dev_id' if id == dev_id else 'train_id'} are both {id!r}: they must differ")
        self.id, self.dev_id, self.train_id, self.english_id = id, dev_id, train_id, english_id
        self.query_field, self.document_field = query_field, document_field
        self._chosen_sides = query_side, document_side

    def load_pairs(self) -> Any:
        """Pairs of the bitext, or judged pairs of train_id."""
        self._check_ids()
        self.sides()
        return super().load_pairs()

    def prepare_data(self) -> None:
        """Download what the splits are made of."""
        self._check_ids()
        super().prepare_data()

    def _check_ids(self) -> None:
        """Refuse unknown datasets before anything is downloaded."""
        for identifier in (self.id, self.dev_id, self.train_id):
            if identifier is not None:
                load_dataset(identifier)

    def sides(self) -> tuple[Side, Side]:
        """The sides that were chosen; the teacher reads what is English by default."""
        dataset, (query_side, document_side) = load_dataset(self.id), self._chosen_sides
        query_side = query_side or ("teacher" if dataset.queries_lang() in (None, "en") else "student")
        document_side = document_side or ("teacher" if dataset.docs_lang() == "en" else "student")
        if (query_side, document_side) == ("teacher", "teacher"):
            raise ValueError(
                f"queries and documents of {self.id} are English: set query_side or document_side to 'student'"
            )
        return query_side, document_side

    def test_split(self) -> Judged:
        """The dataset of `id`."""
        return self._split(self.id)

    def dev_split(self) -> Judged | None:
        """The dataset of `dev_id`."""
        return None if self.dev_id is None else self._split(self.dev_id)

    def train_split(self) -> Judged | None:
        """The dataset of `train_id`."""
        return None if self.train_id is None else self._split(self.train_id)

    def english_twin(self, test: Collection) -> Collection | None:
        """The texts of `english_id` for what the student reads of ``test``."""
        if self.english_id is None:
            return None
        student_reads = [
            kind for kind, side in (("queries", test.query_side), ("docs", test.document_side)) if side == "student"
        ]
        dataset = load_dataset(self.english_id, tuple(student_reads))
        queries, documents = test.queries, test.documents
        if "queries" in student_reads:
            english = ir_queries(dataset)
            if lacking := [query for query in queries if query not in english]:
                raise InputError(f"{self.english_id}: no query {lacking[0]!r} ({len(lacking)} of {len(queries)} lack)")
            queries = {query: english[query] for query in queries}
        if "docs" in student_reads:
            documents = IrDocuments(dataset)
            judged = {document for grades in test.qrels.values() for document, grade in grades.items() if grade > 0}
            if lacking := sorted(judged - {document for document in judged if document in documents}):
                raise InputError(f"{self.english_id}: no document {lacking[0]!r} ({len(lacking)} relevant ones lack)")
        return Collection("english", queries, documents, test.qrels, "teacher", "teacher")

    def _split(self, identifier: str) -> Judged:
        dataset = load_dataset(identifier)
        documents = IrDocuments(dataset, self.document_field)
        return Judged(identifier, ir_queries(dataset, self.query_field), documents, ir_qrels(dataset))
