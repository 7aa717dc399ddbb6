"""``--data wikiclir``: English queries and Wikipedia articles in 25 languages (Sasaki et al. 2018).

A query is an English article: its title, or its first sentence without the words of the title. The documents are the
articles of one language, about 200 words of each, tokenised and lower-cased. Grade 2 is the query's article in that
language (its *twin*), grade 1 an article that the twin links to and that links back. The teacher reads the queries,
the student the articles; texts of a pair are about the same thing, and are no translations of each other.

The files come from ir_datasets (``wikiclir/<code>``; one archive of 7.0 GB for all languages) or, with `root`, from
the folder that the archive unpacks to:

    wiki-clir/english/wiki_en.queries           query<TAB>title<TAB>first sentence
    wiki-clir/swahili/wiki_sw.documents         document<TAB>title<TAB>text
    wiki-clir/swahili/en2sw.rel                 query document grade

Splits: the collection has none, so this one is ours, and fixed for ever. By a hash of the query's id, 5 % of the
queries are ``test``, 5 % ``dev`` and the others ``train``, the same in all languages. A training pair is a training
query and an article that is linked to it with at least `min_grade`, *unless that article is relevant, with any grade,
to a dev or test query*. So no article that has to be found in ``dev`` or ``test`` was ever a training target, neither
as a twin nor as a linked article. ``dev`` and ``test`` share no query, but may share linked articles. The order of the
files and the options have no influence on the split. All articles stay in the collection that ``test`` searches,
those of training pairs as well.

Traps: (1) links join nearly everything, so in dense languages the rule above costs many pairs, and most of all
articles that everything links to, such as countries. (2) There is no English text of the articles, so there is no
``english`` row in the results; the undistilled row is the teacher reading the foreign articles. (3) The tokenisation
shows ("( 1923 - 1987 )"), and en-simple is English.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from lightning.pytorch.utilities import rank_zero_info

from datamodules.base import PairsDataModule
from datamodules.lines import TextStore
from datamodules.published.ir_texts import official_file
from datamodules.published.judgments import BoolArray, JudgmentFormat, JudgmentTable, below
from datamodules.published.passages import language_code
from datamodules.sources import ArticlePairs, check_bounds, sampled_documents
from datamodules.text import normalise
from datamodules.text_files import check_id
from foundations.checks import check_choice
from foundations.errors import InputError
from foundations.files import columns
from retrieval.collection import Collection

LANGUAGES = {"ar": "arabic", "ca": "catalan", "cs": "czech", "de": "german", "en-simple": "simple_english",
             "es": "spanish", "fi": "finnish", "fr": "french", "it": "italian", "ja": "japanese", "ko": "korean",
             "nl": "dutch", "nn": "norwegian_(nynorsk)", "no": "norwegian_(bokmal)", "pl": "polish",
             "pt": "portuguese", "ro": "romanian", "ru": "russian", "sv": "swedish", "sw": "swahili", "tl": "tagalog",
             "tr": "turkish", "uk": "ukrainian", "vi": "vietnamese", "zh": "chinese"}  # fmt: skip
"""Code -> folder."""

GRADES = (1, 2)
TEST_SHARE, DEV_SHARE = 0.05, 0.05
SALT = "wikiclir"

QueryField = Literal["title", "first_sent", "both"]
DocumentField = Literal["title", "text", "both"]


class WikiCLIRDataModule(PairsDataModule):
    """WikiCLIR in one language: English queries for the teacher, foreign articles for the student.

    Args:
        language: a code of `LANGUAGES`, or the English name of its language.
        root: the unpacked folder, or the one that holds it; None takes the files from ir_datasets.
        query_field: text of a query: its ``title``, its ``first_sent`` (the title where that is empty), or ``both``.
        document_field: text of an article: its ``title``, its ``text`` (the title where that is empty), or ``both``.
        min_grade: least grade of a training pair: 2 for twins alone, 1 for linked articles as well.
        dev_queries: search this many of the dev queries; 0 takes all.
        dev_documents: search this many articles for dev: the relevant ones and others by a hash; 0 takes all.
        test_queries: search this many of the test queries; 0 takes all. Always among all articles.
        skip_unknown: leave judgments of unknown queries and articles out, with a warning; else the file is refused.
        **options: those of `PairsDataModule`.
    """

    def __init__(
        self,
        language: str = "sw",
        root: str | None = None,
        query_field: QueryField = "title",
        document_field: DocumentField = "both",
        min_grade: int = 2,
        dev_queries: int = 1000,
        dev_documents: int = 20_000,
        test_queries: int = 10_000,
        skip_unknown: bool = True,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.language = language_code(language, LANGUAGES, "WikiCLIR")
        check_choice("query_field", query_field, get_args(QueryField))
        check_choice("document_field", document_field, get_args(DocumentField))
        check_choice("min_grade", min_grade, GRADES)
        check_bounds(dev_queries=dev_queries, dev_documents=dev_documents, test_queries=test_queries)
        self.root, self.query_field, self.document_field, self.min_grade = root, query_field, document_field, min_grade
        self.dev_queries, self.dev_documents, self.test_queries = dev_queries, dev_documents, test_queries
        self.skip_unknown = skip_unknown

    def prepare_data(self) -> None:
        """Download and check the files."""
        self._open()

    def load_pairs(self) -> ArticlePairs:
        """The training pairs, which stay on disk."""
        queries, documents, judgments = self._open()
        held_out, linked = held_out_documents(judgments), judgments.grades >= self.min_grade
        chosen = linked & ~held_out & is_train(judgments)
        lost = int((linked & held_out & is_train(judgments)).sum())
        rank_zero_info(
            f"wikiclir/{self.language}: {chosen.sum():,} training pairs; {lost:,} more are left out because their "
            "articles are relevant to dev or test queries"
        )
        return ArticlePairs(judgments, chosen, queries, documents)

    def load_collections(self) -> dict[str, Collection]:
        """``dev`` and ``test``; there is no English text of the articles, so there is no ``english``."""
        queries, documents, judgments = self._open()
        collections = {}
        for name, chosen, count in (
            ("dev", is_dev(judgments), self.dev_queries),
            ("test", is_test(judgments), self.test_queries),
        ):
            qrels = judgments.qrels(judgments.first_queries(chosen, count))
            texts = sampled_documents(documents, qrels, self.dev_documents) if name == "dev" else documents
            asked = {query: queries[query] for query in qrels}
            collections[name] = Collection(name, asked, texts, qrels, query_side="teacher", document_side="student")
        return collections

    def _open(self) -> tuple[TextStore, TextStore, JudgmentTable]:
        """Queries, documents and judgments of the language."""
        folder, name = self._folder(), self.language.removeprefix("en-")
        queries = self._texts(folder / "english" / "wiki_en.queries", "query", self.query_field)
        folder /= LANGUAGES[self.language]
        documents = self._texts(folder / f"wiki_{name}.documents", "document", self.document_field)
        form = JudgmentFormat(GRADES, SALT, self.skip_unknown)
        return queries, documents, JudgmentTable.open(folder / f"en2{name}.rel", queries, documents, form)

    @staticmethod
    def _texts(path: Path, kind: str, field: str) -> TextStore:
        return TextStore.open(path, partial(_parse, path, kind, field), f"wikiclir {field}")

    def _folder(self) -> Path:
        """The folder with the languages' folders."""
        if self.root is None:
            try:
                return official_file(f"wikiclir/{self.language}", "docs").parents[1]
            except InputError as error:
                raise InputError(f"{error}; or unpack it and name its folder with --data.root") from error
        root = Path(self.root).expanduser()
        for folder in (root, root / "wiki-clir"):
            if (folder / "english").is_dir():
                if not (folder / LANGUAGES[self.language]).is_dir():
                    raise InputError(f"no folder {LANGUAGES[self.language]!r} for language {self.language!r}", folder)
                return folder
        raise InputError("expected the unpacked folder wiki-clir, which has a folder 'english'", root)


def is_test(judgments: JudgmentTable) -> BoolArray:
    """Which judgments are those of test queries; (J,)."""
    return below(judgments.queries, TEST_SHARE)


def is_dev(judgments: JudgmentTable) -> BoolArray:
    """Which judgments are those of dev queries; (J,)."""
    return below(judgments.queries, TEST_SHARE + DEV_SHARE) & ~is_test(judgments)


def is_train(judgments: JudgmentTable) -> BoolArray:
    """Which judgments are those of training queries; (J,)."""
    return ~below(judgments.queries, TEST_SHARE + DEV_SHARE)


def held_out_documents(judgments: JudgmentTable) -> BoolArray:
    """Which judgments are of a document that is relevant to a dev or test query; (J,)."""
    held_out: BoolArray = np.isin(judgments.documents, np.unique(judgments.documents[~is_train(judgments)]))
    return held_out


def _parse(path: Path, kind: str, field: str, line: bytes, number: int) -> tuple[str, str]:
    """Id and text of a line ``id<TAB>title<TAB>text``; InputError for a malformed one, an unusable id, or no text."""
    expected = f"{kind}<TAB>title<TAB>{'first sentence' if kind == 'query' else 'text'}"
    identifier, *texts = columns(line, 3, expected, path, number)
    identifier = identifier.strip()
    check_id(identifier, expected, path, number)
    title, body = map(normalise, texts)
    text = f"{title} {body}".strip() if field == "both" else title if field == "title" else body or title
    if not text:
        raise InputError(f"the {kind} {identifier!r} has no text (its {field}), expected {expected}", path, number)
    return identifier, text
