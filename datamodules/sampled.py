"""A small collection out of a large one, for a quick look at the dev queries."""

from __future__ import annotations

import heapq
from collections.abc import Iterator

import numpy as np

from datamodules.derived import IntArray, derived_array, scan_lines
from datamodules.text import hash_share
from datamodules.text_store import TextStore
from retrieval.collection import Qrels


def check_bounds(**bounds: int) -> None:
    """Raise ValueError for a number of queries or documents below 0."""
    for name, value in bounds.items():
        if value < 0:
            raise ValueError(f"{name} is {value}, expected a number from 1, or 0 for all")


def sampled_documents(documents: TextStore, qrels: Qrels, count: int) -> TextStore | dict[str, str]:
    """The judged documents and, up to a number of documents, some others: always the same ones for a file.

    The others are those whose id has the smallest hash, so a larger number adds documents and replaces none, and the
    order of the file has no influence.

    Args:
        documents: the documents of a file whose lines begin with the id and a tab.
        qrels: the judgments.
        count: documents to take, if the judged ones are not more; 0 takes all.

    Returns:
        Text by id.
    """
    if count == 0 or count >= len(documents):
        return documents
    chosen = dict.fromkeys(document for grades in qrels.values() for document in grades)
    form = f"sample 1 {count}"
    offsets = derived_array(documents.path, form, lambda: _least_hashes(documents, count))
    for identifier in _ids_at(documents, offsets):
        if len(chosen) >= count:
            break
        chosen[identifier] = None
    return {identifier: documents[identifier] for identifier in chosen}


def _least_hashes(documents: TextStore, count: int) -> IntArray:
    """Offsets of the lines whose ids have the smallest hashes, the smallest first."""
    hashes = ((hash_share(_id_of(line), "sample"), offset) for _, offset, line in scan_lines(documents.path))
    return np.array([offset for _, offset in heapq.nsmallest(count, hashes)], dtype=np.int64)


def _ids_at(documents: TextStore, offsets: IntArray) -> Iterator[str]:
    with documents.path.open("rb") as file:
        for offset in offsets.tolist():
            file.seek(offset)
            yield _id_of(file.readline().removeprefix(b"\xef\xbb\xbf" if offset == 0 else b""))


def _id_of(line: bytes) -> str:
    return line.split(b"\t", 1)[0].decode("utf-8").strip()
