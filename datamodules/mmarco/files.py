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

from itertools import product
from pathlib import Path
from typing import Literal

from datamodules.published.passages import language_code
from foundations.errors import InputError

QuerySplit = Literal["train", "dev", "dev.small"]

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


def translated_language(language: str, version: int) -> str:
    """The code of a language that MS MARCO was translated into, from its code or English name, in any case.

    Dutch may be ``nl`` or ``dt``. ValueError where the version (1 or 2) does not exist, or does not have the language.
    """
    if version not in LANGUAGES:
        raise ValueError(f"mMARCO has no version {version}, expected 1 (Helsinki-NLP) or 2 (Google)")
    code = {"dt": "nl"}.get(language.lower(), language)
    hint = " (version 2 has it)" if code.lower() in set(LANGUAGES[2]) - set(LANGUAGES[version]) else ""
    names = {code: NAMES[code] for code in LANGUAGES[version]}
    return language_code(code, names, f"mMARCO version {version}", hint)


class LocalFiles:
    """The official files of one version, in a folder with their layout; a path is asked for when the file is needed.

    The root is the folder with ``google`` or ``helsinki`` in it, or the one above, if its name is ``data``. Languages
    are codes; ``en`` is MS MARCO itself. Every method raises InputError where there is no such file.
    """

    def __init__(self, root: str | Path, version: int) -> None:
        root = Path(root).expanduser()
        folders = [folder for folder in (root, root / "data") if (folder / FOLDERS[version]).is_dir()]
        if not folders:
            what = "no folder" if root.is_dir() else "no such folder, expected one with a folder"
            raise InputError(f"{what} {FOLDERS[version]!r} in it (mMARCO version {version}; see docs/data.md)", root)
        self.root, self.version = folders[0], version

    def collection(self, language: str) -> Path:
        """Passages, ``pid<TAB>passage``."""
        return self._first(language, f"collections/{NAMES[language]}_collection.tsv")

    def queries(self, language: str, split: QuerySplit) -> Path:
        """Queries, ``qid<TAB>query``: at least those of the split; ``dev.small`` is a part of ``dev``."""
        folder, _, is_small = split.partition(".")
        names = [f"{split}.tsv", *(["dev.tsv"] if is_small else [])]
        return self._first(language, *(f"queries/{folder}/{NAMES[language]}_queries.{name}" for name in names))

    def qrels(self, split: QuerySplit) -> Path:
        """Judgments in the TREC form, of ``dev`` or ``dev.small``."""
        return _existing([self.root / f"qrels.{split}.tsv"])

    def triples(self) -> Path:
        """Training triples, ``qid<TAB>relevant pid<TAB>other pid``."""
        return _existing([self.root / "triples.train.ids.small.tsv"])

    def _first(self, language: str, *names: str) -> Path:
        """The first file that is there; English is the same in both versions, so it is taken from either."""
        versions = [self.version, *(set(FOLDERS) - {self.version} if language == "en" else ())]
        return _existing([self.root / FOLDERS[version] / name for version, name in product(versions, names)])


class IrFiles:
    """The files of ``ir_datasets``, downloaded where they are missing; methods as those of `LocalFiles`."""

    def __init__(self, version: int) -> None:
        self.version = version

    def collection(self, language: str) -> Path:
        """Passages."""
        return self._official(language, "", "docs")

    def queries(self, language: str, split: QuerySplit) -> Path:
        """Queries: those of ``dev`` for ``dev.small``."""
        part = split.partition(".")[0]
        revised = "/v1.1" if self.version == 1 and (language, part) in _REVISED else ""
        return self._official(language, f"/{part}{revised}", "queries")

    def qrels(self, split: QuerySplit) -> Path:
        """Judgments."""
        return self._official("de", f"/{split.replace('.', '/')}", "qrels")

    def triples(self) -> Path:
        """Training triples."""
        return self._official("de", "/train", "docpairs")

    def _official(self, language: str, part: str, kind: str) -> Path:
        from datamodules.published.ir_texts import official_file

        name = f"mmarco/{'v2/' if self.version == 2 else ''}{'dt' if language == 'nl' else language}"
        return official_file(f"{'msmarco-passage' if language == 'en' else name}{part}", kind)


MMarcoFiles = LocalFiles | IrFiles


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
