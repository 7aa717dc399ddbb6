"""Search with FAISS: an option for speed, where approximate results are good enough."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from foundations.checks import check_number
from foundations.errors import InputError
from foundations.files import unfinished
from foundations.progress import delayed_progress
from retrieval.index.exact import spans

IndexKind = Literal["flat", "ivf", "hnsw"]
_ROWS = 16384
_TRAIN_PER_LIST = 64


@dataclass(frozen=True)
class FaissOptions:
    """Settings of a FAISS index; None is a value that suits the size of the collection.

    Args:
        kind: ``flat`` compares with every document in single precision; ``ivf`` with those of the nearest clusters;
            ``hnsw`` walks a graph.
        nlist: clusters (ivf); by default 4 sqrt(N), at most N / 39.
        nprobe: clusters to search (ivf); by default a sixteenth of them, at least 8.
        m: links of a document (hnsw).
        ef_construction: candidates while the graph is built (hnsw).
        ef_search: candidates in a search (hnsw); by default 2 k, at least 128.

    Raises:
        ValueError: a number is below 1.
    """

    kind: IndexKind = "flat"
    nlist: int | None = None
    nprobe: int | None = None
    m: int = 32
    ef_construction: int = 80
    ef_search: int | None = None

    def __post_init__(self) -> None:
        for name in ("nlist", "nprobe", "m", "ef_construction", "ef_search"):
            if getattr(self, name) is not None:
                check_number(name, getattr(self, name), least=1)

    def clusters(self, documents: int) -> int:
        """Number of clusters for a number of documents."""
        return self.nlist or max(1, min(round(4 * math.sqrt(documents)), documents // 39))

    def file_name(self, documents: int) -> str:
        """Name of the index on disk, with what building it depends on."""
        if self.kind == "ivf":
            return f"ivf-{self.clusters(documents)}.faiss"
        return f"hnsw-{self.m}-{self.ef_construction}.faiss"


def require_faiss() -> Any:
    """The faiss module.

    Raises:
        InputError: it is not installed; says how to install it.
    """
    try:
        import faiss
    except ImportError:
        raise InputError("FAISS is not installed: pip install 'potstill[faiss]'") from None
    return faiss


def build_index(parts: Sequence[Tensor], options: FaissOptions, seed: int = 0) -> Any:
    """A FAISS index for cosine of documents in parts, (n, D) each; the seed draws those that the clusters are made of.

    It holds all vectors in memory, 4 D bytes each, and more for the graph.
    """
    faiss = require_faiss()
    total, width = sum(map(len, parts)), parts[0].shape[1]
    if options.kind == "flat":
        index = faiss.IndexFlatIP(width)
    elif options.kind == "hnsw":
        index = faiss.IndexHNSWFlat(width, options.m, faiss.METRIC_INNER_PRODUCT)
        index.hnsw.efConstruction = options.ef_construction
    else:
        clusters = options.clusters(total)
        if clusters > total:
            raise ValueError(f"nlist is {clusters}, expected at most the number of documents, {total}")
        index = faiss.IndexIVFFlat(faiss.IndexFlatIP(width), width, clusters, faiss.METRIC_INNER_PRODUCT)
        index.train(_sample(parts, _TRAIN_PER_LIST * clusters, seed))
    with delayed_progress(f"build {options.kind}", total) as advance:
        for part in parts:
            for rows in spans(len(part), _ROWS):
                index.add(_unit(part[rows]))
                advance(rows.stop - rows.start)
    return index


def open_index(folder: str | Path, parts: Sequence[Tensor], options: FaissOptions) -> Any:
    """The index of the vectors of the parts in a folder of shards; one that takes long to build is kept there.

    Raises:
        InputError: the file is damaged.
    """
    total = sum(map(len, parts))
    if options.kind == "flat":
        return build_index(parts, options)
    faiss, path = require_faiss(), Path(folder) / options.file_name(total)
    if not path.is_file():
        with unfinished(path) as temporary:
            faiss.write_index(build_index(parts, options), str(temporary))
    try:
        index = faiss.read_index(str(path))
    except RuntimeError as error:
        raise InputError("cannot be read as a FAISS index: remove it, and it is built again", path) from error
    if index.ntotal != total:
        raise InputError(f"holds {index.ntotal} vectors, expected {total}: remove it", path)
    return index


def search_index(index: Any, queries: Tensor, k: int, options: FaissOptions) -> tuple[Tensor, Tensor]:
    """The k documents that FAISS finds for each query.

    Args:
        index: what `build_index` gave.
        queries: (Q, D).
        k: number of documents to find.
        options: as for `build_index`.

    Returns:
        Scores (Q, K), float32, descending, and document indices (Q, K), int64; -1 where fewer than K were found.
    """
    k = min(k, index.ntotal)
    if options.kind == "ivf":
        index.nprobe = min(index.nlist, options.nprobe or max(8, index.nlist // 16))
    elif options.kind == "hnsw":
        index.hnsw.efSearch = max(k, options.ef_search or max(128, 2 * k))
    scores, indices = index.search(_unit(queries), k)
    return torch.from_numpy(scores), torch.from_numpy(indices)


def recall(found: Tensor, exact: Tensor) -> float:
    """Share of the exact results that were found, mean over the queries; document indices, (Q, K) each."""
    hits = sum(len(set(a) & set(b)) for a, b in zip(found.tolist(), exact.tolist(), strict=True))
    return hits / exact.numel()


def _unit(vectors: Tensor) -> Any:
    return torch.nn.functional.normalize(vectors.detach().float().cpu(), dim=1).numpy()


def _sample(parts: Sequence[Tensor], count: int, seed: int) -> Any:
    """Random documents, unit length; (at most ``count``, D)."""
    sizes = torch.tensor([len(part) for part in parts])
    total = int(sizes.sum())
    sample = torch.randperm(total, generator=torch.Generator().manual_seed(seed))[:count].sort().values
    ends = sizes.cumsum(0)
    rows = [
        part[sample[(sample >= end - len(part)) & (sample < end)] - (end - len(part))]
        for part, end in zip(parts, ends.tolist(), strict=True)
    ]
    return _unit(torch.cat(rows))
