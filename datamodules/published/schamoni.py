"""``--data schamoni``: German queries and English Wikipedia articles (Schamoni et al. 2014, CC BY-SA 4.0).

A query is the first sentence of a German article without the words of its title; the documents are English articles
of at most 200 words. Grade 3 is the query's own article in English (its *twin*), grade 2 an article that the twin
links to and that links back. The student reads the queries, the teacher the articles. Each split has three files:

    *train*.queries     query<TAB>first sentence          225,294 of them; 10,000 in dev and in test
    *train*.docs        document<TAB>text                 articles of that split: 1.2 M; 114 k in dev, 115 k in test
    *train*.qrels       query<TAB>document<TAB>grade

The same with ``dev`` and ``test``. A file's name (or that of its folder) must say its split, and it must end as above,
or in addition in .gz or .bz2; what comes before, and whether the splits have folders of their own, does not matter.
Compressed files are unpacked into the cache folder.

Splits: the official ones. They are random over queries, so an article of ``test`` may be a training source as well.

Traps: (1) ``dev`` and ``test`` search their own articles, about 114,000 each, not all 1.2 million. (2) There is no
English twin of the queries, so there is no ``english`` row in the results; the undistilled row is the teacher reading
German.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from datamodules.base import PairsDataModule
from datamodules.lines import TextStore, tsv_line
from datamodules.published.judgments import JudgmentFormat, JudgmentTable
from datamodules.sources import ArticlePairs, check_bounds, sampled_documents
from datamodules.text_files import open_texts
from foundations.cache import unpacked
from foundations.checks import check_choice
from foundations.errors import InputError
from foundations.files import PACKED_SUFFIXES
from retrieval.collection import Collection

GRADES = (2, 3)
SALT = "schamoni"
SPLITS = {"train": "train|training", "dev": "dev|devel|development", "test": "test|testing"}
"""Split -> the words for it in file names."""

KINDS = ("queries", "docs", "qrels")


class SchamoniDataModule(PairsDataModule):
    """German queries for the student, English articles for the teacher, with the official splits.

    Args:
        root: the folder with the files; see `datamodules.published.schamoni`.
        min_grade: least grade of a training pair: 3 for twins alone, 2 for linked articles as well.
        dev_queries: search this many of the dev queries; 0 takes all.
        dev_documents: search this many articles for dev: the relevant ones and others by a hash; 0 takes all.
        test_queries: search this many of the test queries; 0 takes all. Always among all articles of ``test``.
        skip_unknown: leave judgments of unknown queries and articles out, with a warning; else the file is refused.
        **options: those of `PairsDataModule`.
    """

    def __init__(
        self,
        root: str,
        min_grade: int = 3,
        dev_queries: int = 1000,
        dev_documents: int = 20_000,
        test_queries: int = 0,
        skip_unknown: bool = True,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        check_choice("min_grade", min_grade, GRADES)
        check_bounds(dev_queries=dev_queries, dev_documents=dev_documents, test_queries=test_queries)
        self.root, self.min_grade, self.skip_unknown = Path(root).expanduser(), min_grade, skip_unknown
        self.dev_queries, self.dev_documents, self.test_queries = dev_queries, dev_documents, test_queries

    def prepare_data(self) -> None:
        """Unpack and check the files."""
        for split in SPLITS:
            self._open(split)

    def load_pairs(self) -> ArticlePairs:
        """The training pairs, which stay on disk: the article is the source, the query the target."""
        queries, documents, judgments = self._open("train")
        return ArticlePairs(judgments, judgments.grades >= self.min_grade, documents, queries, source="documents")

    def load_collections(self) -> dict[str, Collection]:
        """``dev`` and ``test``; there is no English text of the queries, so there is no ``english``."""
        collections = {}
        for name, count in (("dev", self.dev_queries), ("test", self.test_queries)):
            queries, documents, judgments = self._open(name)
            qrels = judgments.qrels(judgments.first_queries(judgments.grades > 0, count))
            texts = sampled_documents(documents, qrels, self.dev_documents) if name == "dev" else documents
            collections[name] = Collection(name, {query: queries[query] for query in qrels}, texts, qrels)
        return collections

    def _open(self, split: str) -> tuple[TextStore, TextStore, JudgmentTable]:
        """Queries, documents and judgments of a split."""
        queries, documents, qrels = (find_file(self.root, split, kind) for kind in KINDS)
        query_texts, document_texts = (open_texts(path, tsv_line(path), "schamoni") for path in (queries, documents))
        form = JudgmentFormat(GRADES, SALT, self.skip_unknown)
        return query_texts, document_texts, JudgmentTable.open(unpacked(qrels), query_texts, document_texts, form)


def find_file(root: Path, split: str, kind: str) -> Path:
    """The file of a split below a folder, plain or compressed; of two that differ only in that, the plain one.

    InputError where there is no such folder, no such file, or several.
    """
    if not root.is_dir():
        raise InputError("no such folder, expected one with the .queries, .docs and .qrels files of the splits", root)
    word = re.compile(f"(?<![a-z])({SPLITS[split]})(?![a-z])")
    files: dict[Path, Path] = {}
    for path in sorted(root.rglob("*")):
        plain = path.with_suffix("") if path.suffix in PACKED_SUFFIXES else path
        if plain.suffix == f".{kind}" and path.is_file() and word.search(str(plain.relative_to(root)).lower()):
            files.setdefault(plain, path)  # the plain name comes first
    if len(files) == 1:
        return next(iter(files.values()))
    if files:
        names = ", ".join(str(path.relative_to(root)) for path in files.values())
        raise InputError(f"several files look like the {kind} of {split}: {names}; keep one of them here", root)
    raise InputError(f"no {kind} of {split}, expected a file such as {split}.{kind} or {split}.{kind}.gz", root)
