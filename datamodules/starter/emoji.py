"""``--data starter``: emoji search in more than 100 languages, from packages of PyPI and npm alone.

Documents are the English names and keywords of all base emoji; the teacher reads them. A query is a keyword in the
student's language, and relevant is every emoji to which CLDR's translators gave that keyword. The student trains on
phrases: the *names* of emoji and symbols, of languages, places and scripts, the paragraphs of the Universal Declaration
of Human Rights, and English texts as their own translation. So it learns from phrases, and is tested on single words.

Splits: ``keyword`` asks keywords that are no training string. ``family`` keeps a quarter of Unicode's subgroups
of emoji (all mammals, say) out of the pairs, and asks their names and keywords; most of their vocabulary is nowhere
in the pairs, so use it to see how far a student reaches, not to choose between strategies. Emoji are never split at
random: near twins (man, woman and person running) would flatter. A quarter of the queries, by a hash of the text, are
``dev``, the others ``test``. The queries do not depend on the options for training pairs.

Traps: (1) a string is compared without case and in NFC; without that, "Simba" in the pairs gives "simba" away. (2) One
keyword belongs to many emoji, so judgments are many-to-many. (3) Without English pairs (`datamodules.english`) the
student forgets loanwords, which matters most for Filipino.

Sources and licences: see `datamodules.starter.cldr`, `datamodules.starter.udhr` and `datamodules.packages`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, get_args

from datamodules.base import PairsDataModule
from datamodules.fetch import fetch_data
from datamodules.pairs import Pair, make_pairs, without_repeats
from datamodules.starter.cldr import Annotation, find_language, read_annotations, read_families, read_locale_names
from datamodules.starter.udhr import udhr_pairs
from datamodules.text import fold, folded, hash_share
from foundations.checks import check_choice
from retrieval.collection import Collection

_DEV_SHARE = 0.25
_UNSEEN_SHARE = 0.25

Annotations = dict[str, Annotation]
KeywordSplit = Literal["keyword", "family"]


class StarterDataModule(PairsDataModule):
    """Emoji search: keywords in a language X against English names and keywords of emoji.

    Args:
        language: a CLDR locale (sw, so, fil, mr, ...), an alias of one, or the English name of its language.
        split: ``keyword`` asks words that are no training string; ``family`` asks emoji of unseen subgroups.
        derived: train on the names of skin tones, flags and sequences as well ("woman: dark skin tone").
        **options: those of `PairsDataModule`.
    """

    def __init__(
        self,
        language: str = "sw",
        split: KeywordSplit = "keyword",
        derived: bool = True,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        check_choice("split", split, get_args(KeywordSplit))
        self.language, self.split, self.derived = language, split, derived

    def prepare_data(self) -> None:
        """Fetch the packages."""
        fetch_data("starter")

    def load_pairs(self) -> list[Pair]:
        """The training pairs in the chosen language."""
        return make_pairs(self._data.training_texts(self.derived))

    def load_collections(self) -> dict[str, Collection]:
        """``dev`` and ``test`` in the chosen language, and ``english``, which asks in English as ``test`` does."""
        return self._data.collections()

    @cached_property
    def _data(self) -> EmojiSearch:
        return EmojiSearch.read(find_language(self.language), self.split)


@dataclass(frozen=True)
class EmojiSearch:
    """The texts of `StarterDataModule`, of which nothing is chosen yet; pairs are (English, foreign).

    `asked` are the emoji whose terms are queries: all, or those of unseen families. `other_pairs` are locale names and
    paragraphs.
    """

    english: Annotations
    foreign: Annotations
    documents: list[str]
    asked: list[str]
    names: list[tuple[str, str]]
    derived_names: list[tuple[str, str]]
    other_pairs: list[tuple[str, str]]

    @classmethod
    def read(cls, locale: str, split: str) -> EmojiSearch:
        """Read the packages for a CLDR locale and the split ``keyword`` or ``family``."""
        english, foreign = read_annotations("en"), read_annotations(locale)
        families = read_families()
        documents = [emoji for emoji in families if emoji in english and english[emoji].name]
        unseen = {family for family in families.values() if split == "family" and is_unseen(family)}
        derived = (read_annotations("en", derived=True), read_annotations(locale, derived=True))
        return cls(
            english,
            foreign,
            documents,
            asked=[emoji for emoji in documents if not unseen or families[emoji] in unseen],
            names=_names(english, foreign, families, unseen),
            derived_names=_names(*derived, families, unseen),
            other_pairs=locale_name_pairs(locale) + udhr_pairs(locale, (entry.name for entry in foreign.values())),
        )

    def training_texts(self, derived: bool) -> Iterator[tuple[str, str]]:
        """The (source, target) texts to train on, each once; see `StarterDataModule` for the option."""
        return without_repeats(self.names + (self.derived_names if derived else []) + self.other_pairs)

    def collections(self) -> dict[str, Collection]:
        """The collections ``dev``, ``test`` and ``english``."""
        foreign = self._foreign_queries()
        english = self._queries(self.english, folded(source for source, _ in self._all_pairs()))
        return {
            "dev": self._collection("dev", self.foreign, {k: v for k, v in foreign.items() if is_dev(k)}),
            "test": self._collection("test", self.foreign, {k: v for k, v in foreign.items() if not is_dev(k)}),
            "english": self._collection("english", self.english, {k: v for k, v in english.items() if not is_dev(k)}),
        }

    def _all_pairs(self) -> list[tuple[str, str]]:
        return self.names + self.derived_names + self.other_pairs

    def _foreign_queries(self) -> dict[str, str]:
        return self._queries(self.foreign, folded(target for _, target in self._all_pairs()))

    def _queries(self, annotations: Annotations, known: set[str]) -> dict[str, str]:
        """The texts to ask, by their folded form: terms of the asked emoji that are no training string."""
        queries: dict[str, str] = {}
        for emoji in self.asked:
            for term in _terms(annotations.get(emoji)):
                if fold(term) not in known:
                    queries.setdefault(fold(term), term)
        return queries

    def _collection(self, name: str, annotations: Annotations, queries: dict[str, str]) -> Collection:
        ids = {key: key.replace("_", "__").replace(" ", "_") for key in queries}
        qrels: dict[str, dict[str, int]] = {ids[key]: {} for key in queries}
        for emoji in self.documents:
            for key in folded(_terms(annotations.get(emoji))):
                if key in queries:
                    qrels[ids[key]][emoji_id(emoji)] = 1
        return Collection(
            name,
            queries={ids[key]: text for key, text in queries.items()},
            documents={emoji_id(emoji): emoji_document(self.english[emoji]) for emoji in self.documents},
            qrels=qrels,
            query_side="teacher" if name == "english" else "student",
        )


def is_dev(key: str) -> bool:
    """Whether a query belongs to ``dev``: a quarter, by a hash of its folded text."""
    return hash_share(key, "starter dev") < _DEV_SHARE


def is_unseen(family: str) -> bool:
    """Whether a subgroup of emoji is kept out of the pairs by ``split="family"``: a quarter, by a hash."""
    return hash_share(family, "starter family") < _UNSEEN_SHARE


def locale_name_pairs(locale: str) -> list[tuple[str, str]]:
    """(English, foreign) names of languages, places, scripts and the like, where they differ."""
    english, foreign = read_locale_names("en"), read_locale_names(locale)
    pairs = [(english[keys], text) for keys, text in foreign.items() if keys in english]
    return [(source, target) for source, target in pairs if fold(source) != fold(target)]


def _names(
    english: Annotations, foreign: Annotations, families: dict[str, str], unseen: set[str]
) -> list[tuple[str, str]]:
    """(English, foreign) names of all emoji and symbols, but those of unseen families."""
    return [
        (english[emoji].name, entry.name)
        for emoji, entry in foreign.items()
        if emoji in english and english[emoji].name and entry.name and families.get(emoji) not in unseen
    ]


def _terms(annotation: Annotation | None) -> list[str]:
    """Name and keywords."""
    return [] if annotation is None else [text for text in (annotation.name, *annotation.keywords) if text]


def emoji_document(annotation: Annotation) -> str:
    """The text of a document: name and keywords."""
    return f"{annotation.name}: {', '.join(annotation.keywords)}"


def emoji_id(emoji: str) -> str:
    """The id of an emoji as a document: its code points, e.g. ``1F1F9-1F1FF``."""
    return "-".join(f"{ord(character):X}" for character in emoji)
