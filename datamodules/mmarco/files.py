"""Where the official files of mMARCO are: in a folder of the user's, or where ``ir_datasets`` puts them.

The folder has the layout of the collection's own repository (its folder ``data``):

    google/collections/<language>_collection.tsv          pid<TAB>passage       version 2
    google/queries/train/<language>_queries.train.tsv     qid<TAB>query
    google/queries/dev/<language>_queries.dev.tsv
    google/queries/dev/<language>_queries.dev.small.tsv   where it is not there, it is taken out of dev.tsv
    helsinki/...                                          version 1, likewise
    qrels.dev.tsv, qrels.dev.small.tsv                    qid 0 pid 1
    triples.train.ids.small.tsv                           qid<TAB>relevant pid<TAB>other pid

Languages are written out in English, in lower case, and ``english`` is one of them.

Traps: ir_datasets calls Dutch ``dt``; for Chinese and Portuguese it has older queries in version 1 than the folder has,
so its ``v1.1`` is taken, which is the folder's; and its English passages are MS MARCO's with the broken encoding of
some characters mended, which the folder's are not.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Literal

from foundations.errors import InputError

Split = Literal["train", "dev", "dev.small"]

NAMES = {"ar": "arabic", "de": "german", "en": "english", "es": "spanish", "fr": "french", "hi": "hindi",
         "id": "indonesian", "it": "italian", "ja": "japanese", "nl": "dutch", "pt": "portuguese", "ru": "russian",
         "vi": "vietnamese", "zh": "chinese"}  # fmt: skip
"""Language code -> its name in the official files."""

LANGUAGES = {1: ("de", "es", "fr", "id", "it", "pt", "ru", "zh"), 2: tuple(code for code in NAMES if code != "en")}
"""Version -> codes of the languages that MS MARCO was translated into."""

FOLDERS = {1: "helsinki", 2: "google"}
"""Version -> folder, named after the translator."""

_REVISED = {("zh", "dev"), ("pt", "dev"), ("pt", "train")}
"""Queries of version 1 that ir_datasets keeps in two forms."""

_POINTER = b"version https://git-lfs.github.com/spec/"


def language_code(language: str, version: int) -> str:
    """The code of a language of mMARCO.

    Args:
        language: a code, in any case; Dutch may be ``nl`` or ``dt``.
        version: 1 or 2.

    Raises:
        ValueError: the version does not exist, or does not have the language.
    """
    if version not in LANGUAGES:
        raise ValueError(f"mMARCO has no version {version}: choose 1 (Helsinki-NLP) or 2 (Google)")
    code = {"dt": "nl"}.get(language.lower(), language.lower())
    if code in LANGUAGES[version]:
        return code
    hint = "; version 2 has it" if code in LANGUAGES[2] else ""
    raise ValueError(
        f"mMARCO version {version} has no language {language!r}{hint}: choose from {', '.join(LANGUAGES[version])}"
    )


class MMarcoFiles(ABC):
    """The official files of one version; a path is asked for when the file is needed.

    Every method raises InputError where there is no such file.
    """

    @abstractmethod
    def collection(self, language: str) -> Path:
        """Passages, ``pid<TAB>passage``.

        Args:
            language: a code; ``en`` is MS MARCO itself.
        """

    @abstractmethod
    def queries(self, language: str, split: Split) -> Path:
        """Queries, ``qid<TAB>query``: at least those of the split.

        Args:
            language: as in `collection`.
            split: ``dev.small`` is a part of ``dev``.
        """

    @abstractmethod
    def qrels(self, split: Split) -> Path:
        """Judgments in the TREC form, of ``dev`` or ``dev.small``."""

    @abstractmethod
    def triples(self) -> Path:
        """Training triples, ``qid<TAB>relevant pid<TAB>other pid``."""


class LocalFiles(MMarcoFiles):
    """The files of a folder in the official layout.

    Args:
        root: the folder with ``google`` or ``helsinki`` in it, or the one above, where its name is ``data``.
        version: 1 or 2.

    Raises:
        InputError: no such folder.
    """

    def __init__(self, root: str | Path, version: int) -> None:
        root = Path(root).expanduser()
        folders = [folder for folder in (root, root / "data") if (folder / FOLDERS[version]).is_dir()]
        if not folders:
            what = "no folder" if root.is_dir() else "no such folder, expected one with a folder"
            raise InputError(f"{what} {FOLDERS[version]!r} in it (mMARCO version {version}; see docs/data.md)", root)
        self.root, self.version = folders[0], version

    def collection(self, language: str) -> Path:
        """See `MMarcoFiles`."""
        return self._first(language, f"collections/{NAMES[language]}_collection.tsv")

    def queries(self, language: str, split: Split) -> Path:
        """See `MMarcoFiles`."""
        if split == "dev.small":
            stem = f"queries/dev/{NAMES[language]}_queries.dev"
            return self._first(language, f"{stem}.small.tsv", f"{stem}.tsv")
        return self._first(language, f"queries/{split}/{NAMES[language]}_queries.{split}.tsv")

    def qrels(self, split: Split) -> Path:
        """See `MMarcoFiles`."""
        return _existing([self.root / f"qrels.{split}.tsv"])

    def triples(self) -> Path:
        """See `MMarcoFiles`."""
        return _existing([self.root / "triples.train.ids.small.tsv"])

    def _first(self, language: str, *names: str) -> Path:
        """The first file that is there; English is the same in both versions, so it is taken from either."""
        versions = [self.version, *(set(FOLDERS) - {self.version} if language == "en" else ())]
        return _existing([self.root / FOLDERS[version] / name for version in versions for name in names])


class IrFiles(MMarcoFiles):
    """The files of ``ir_datasets``, downloaded where they are missing.

    Args:
        version: 1 or 2.
    """

    def __init__(self, version: int) -> None:
        self.version = version

    def collection(self, language: str) -> Path:
        """See `MMarcoFiles`."""
        return self._official(self._identifier(language), "docs")

    def queries(self, language: str, split: Split) -> Path:
        """See `MMarcoFiles`."""
        part = "train" if split == "train" else "dev"
        if self.version == 1 and (language, part) in _REVISED:
            part = f"{part}/v1.1"
        return self._official(f"{self._identifier(language)}/{part}", "queries")

    def qrels(self, split: Split) -> Path:
        """See `MMarcoFiles`."""
        return self._official(f"{self._identifier('de')}/{split.replace('.', '/')}", "qrels")

    def triples(self) -> Path:
        """See `MMarcoFiles`."""
        return self._official(f"{self._identifier('de')}/train", "docpairs")

    def _identifier(self, language: str) -> str:
        if language == "en":
            return "msmarco-passage"
        return f"mmarco/{'v2/' if self.version == 2 else ''}{'dt' if language == 'nl' else language}"

    @staticmethod
    def _official(identifier: str, kind: str) -> Path:
        from datamodules.published.ir_texts import official_file

        return official_file(identifier, kind)


def _existing(paths: list[Path]) -> Path:
    """The first path that is a file."""
    for path in paths:
        if path.is_file():
            with path.open("rb") as file:
                if file.read(len(_POINTER)) == _POINTER:
                    raise InputError("this is a pointer of Git LFS, not the file itself: run 'git lfs pull'", path)
            return path
    others = f" (nor {', '.join(path.name for path in paths[1:])})" if paths[1:] else ""
    raise InputError(f"no such file{others}", paths[0])
