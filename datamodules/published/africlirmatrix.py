"""``--data africlirmatrix --data.root DIR --data.language swa``: English queries, articles in 15 African languages.

AfriCLIRMatrix (Ogundepo et al. 2022) is mined from Wikipedia, with grades from 1 to 6. The folder holds, as published:

    test/queries/topics.africlirmatrix-v1.0.en.swa.tsv    id<TAB>query
    test/qrels/qrels.africlirmatrix-v1.0.en.swa.txt       TREC qrels
    africlirmatrix-v1.0-swahili/corpus.jsonl              {"id": ..., "contents": ...}

The first two are at github.com/castorini/africlirmatrix, the corpus at huggingface.co/datasets under the same name; a
copy of the former in the folder ``africlirmatrix`` will do as well. Any of them may be compressed. There is no
training split: give bitext with ``pairs``. There is no dev split either: by default a quarter of the queries, by a
hash of their ids, is ``dev``. Published figures are on all queries: use ``dev_share`` 0 to compare with them.
"""

from __future__ import annotations

from typing import Any

from datamodules.published.judged import Judged, JudgedDataModule
from datamodules.published.passages import Folder, judged_files, language_code, open_passages

LANGUAGES = {"afr": "afrikaans", "amh": "amharic", "ary": "moroccan_arabic", "arz": "egyptian_arabic", "hau": "hausa",
             "ibo": "igbo", "nso": "northern_sotho", "sna": "shona", "som": "somali", "swa": "swahili",
             "tir": "tigrinya", "twi": "twi", "wol": "wolof", "yor": "yoruba", "zul": "zulu"}  # fmt: skip
"""Code in the names of topics and qrels -> name in that of the corpus."""


class AfriCLIRMatrixDataModule(JudgedDataModule):
    """English queries for the teacher, articles in an African language for the student.

    Args:
        root: the folder with the published files.
        language: code of `LANGUAGES`, or the name.
        **options: those of `JudgedDataModule`.
    """

    def __init__(self, root: str, language: str = "swa", **options: Any) -> None:
        super().__init__(**options)
        self.root, self.language = root, language_code(language, LANGUAGES, "AfriCLIRMatrix")

    def test_split(self) -> Judged:
        """All queries of the language."""
        source = "AfriCLIRMatrix (see the head of datamodules/published/africlirmatrix.py)"
        folder = Folder(self.root, ("africlirmatrix",), source)
        name = f"africlirmatrix-v1.0.en.{self.language}"
        topics, qrels = f"topics.{name}.tsv", f"qrels.{name}.txt"
        corpus = folder.file(f"africlirmatrix-v1.0-{LANGUAGES[self.language]}/corpus.jsonl")
        return judged_files(
            folder.file(f"test/queries/{topics}", topics),
            folder.file(f"test/qrels/{qrels}", qrels),
            open_passages([corpus], "id", ("contents",)),
        )
