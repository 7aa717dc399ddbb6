"""The vectors of a collection on disk: blocks of texts that are encoded one by one and mapped into memory.

A folder holds ``manifest.json`` (what the vectors are, and of which texts), the ids (`StoredIds`), and the vectors of
each block in ``pooled-00000.npy``; with token vectors also ``tokens-00000.npy``, those of all its texts end to end,
and ``lengths-00000.npy``. A block appears when it is complete and never changes. The bytes depend on the texts, the
encoder and the manifest only: not on the number of ranks, nor on whether the work was interrupted.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor

from foundations.cache import Array, write_array
from foundations.checks import check_choice, check_number
from foundations.errors import InputError
from foundations.files import new_folder, read_json, remove_unfinished, unfinished, write_json
from foundations.progress import delayed_progress
from retrieval.index.stored_ids import StoredIds, load_mapped
from retrieval.index.tokens import TokenMatrix

ShardDtype = Literal["float32", "float16"]
Encode = Callable[[list[str]], tuple[Tensor, TokenMatrix | None]]
"""Texts -> pooled vectors (B, D), and their token vectors where they are needed."""

_FORMAT = 1
_TEXTS_PER_HASH = 4096
_OTHER = {"model": "of another model", "content": "of other texts", "texts": "of other texts",
          "dim": "of another width", "dtype": "of another type"}  # fmt: skip


@dataclass(frozen=True)
class ShardSettings:
    """What the bytes of the vectors depend on, in addition to the texts.

    Args:
        model: fingerprint of the model.
        dim: width D of the pooled vectors.
        dtype: type of the pooled vectors on disk.
        tokens: whether there are token vectors.
        token_dtype: their type on disk.
        block: texts in a block; the last one may have fewer.
        batch_size: texts that are encoded together.
        about: anything else to write down, plain values; it is not compared.

    Raises:
        ValueError: a setting is out of range.
    """

    model: str
    dim: int
    dtype: ShardDtype = "float32"
    tokens: bool = False
    token_dtype: ShardDtype = "float16"
    block: int = 50_000
    batch_size: int = 256
    about: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        for name in ("dtype", "token_dtype"):
            check_choice(name, getattr(self, name), get_args(ShardDtype))
        for name in ("dim", "block", "batch_size"):
            check_number(name, getattr(self, name), least=1)


def prepare_shards(folder: str | Path, texts: Mapping[str, str], settings: ShardSettings) -> None:
    """Write ids and manifest, or find that the folder has them already; one process does this before any encodes.

    Args:
        folder: it may exist, if it is empty or holds shards of the same texts and settings.
        texts: the collection, id -> text; its order is that of the vectors.
        settings: what the vectors will be.

    Raises:
        InputError: the folder holds something else, or an id cannot be used.
    """
    folder = Path(folder)
    manifest = {"format": _FORMAT, "texts": len(texts), "content": texts_hash(texts), **asdict(settings)}
    if (folder / "manifest.json").is_file():
        _require_same(folder, read_manifest(folder), manifest)
        return
    if folder.exists() and not folder.is_dir():
        raise InputError("this is a file, expected a folder to write vectors into", folder)
    if foreign := sorted(path.name for path in folder.glob("*")):
        raise InputError(f"the folder holds other files ({foreign[0]}): give an empty one", folder)
    remove_unfinished(folder)
    with new_folder(folder) as temporary:
        StoredIds.write(temporary, texts)
        write_json(temporary / "manifest.json", manifest)


def write_shards(
    folder: str | Path, texts: Mapping[str, str], encode: Encode, rank: int = 0, world_size: int = 1
) -> int:
    """Encode the blocks that are missing: rank r of W takes blocks r, r + W, and so on.

    Args:
        folder: where `prepare_shards` wrote the manifest.
        texts: the same collection.
        encode: the encoder; it gets texts of like length together, in batches that depend on the block only.
        rank: this process, from 0.
        world_size: number of processes.

    Returns:
        How many texts were encoded.
    """
    folder = Path(folder)
    manifest, ids = read_manifest(folder), StoredIds(folder)
    count, size = 0, manifest["block"]
    own = range(rank, _blocks(manifest), world_size)
    for name, number in product(("tokens", "lengths", "pooled"), own):
        remove_unfinished(_file(folder, name, number))  # a kill may leave it of a complete block too
    missing = [number for number in own if not _is_complete(folder, number, manifest)]
    total = sum(min(len(ids), (n + 1) * size) - n * size for n in missing)
    with delayed_progress(f"encode into {folder.name}", total) as advance:
        for number in missing:
            names = ids[number * size : (number + 1) * size]
            _write_block(folder, number, manifest, [texts[name] for name in names], encode, advance)
            count += len(names)
    return count


class Shards:
    """The vectors of a collection, mapped into memory.

    Args:
        folder: where `write_shards` wrote all blocks.

    Raises:
        InputError: there is no manifest, or blocks are missing or damaged.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.index_folder = self.folder  # for what is built of the pooled vectors, such as an index of FAISS
        self.manifest = read_manifest(self.folder)
        self.ids = StoredIds(self.folder)
        blocks = range(_blocks(self.manifest))
        missing = [number for number in blocks if not _is_complete(self.folder, number, self.manifest)]
        if missing:
            raise InputError(
                f"{len(missing)} of {len(blocks)} blocks are missing (the first is {missing[0]}): "
                "run the same index command again, and it goes on from here",
                self.folder,
            )
        self.pooled: Sequence[Tensor] = _Blocks(len(blocks), self._pooled)

    @property
    def tokens(self) -> Sequence[TokenMatrix] | None:
        """The token vectors of each block, or None where only pooled vectors were written."""
        return _Blocks(len(self.pooled), self._tokens) if self.manifest["tokens"] else None

    def _pooled(self, number: int) -> Tensor:
        return torch.from_numpy(load_mapped(_file(self.folder, "pooled", number)))

    def _tokens(self, number: int) -> TokenMatrix:
        lengths = np.load(_file(self.folder, "lengths", number))
        offsets = torch.from_numpy(np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]))
        return TokenMatrix(torch.from_numpy(load_mapped(_file(self.folder, "tokens", number))), offsets)


class MappedShards(Shards):
    """Shards whose pooled vectors are taken through a map, block by block as they are read.

    Token vectors are left out: on disk they are unit vectors, so their length, which a map may need, is lost.

    Args:
        folder: as of `Shards`.
        map_pooled: pooled vectors (N, D) -> others (N, D).
        name: of the map: what is kept of the mapped vectors lies in a folder of this name among the shards.
    """

    def __init__(self, folder: str | Path, map_pooled: Callable[[Tensor], Tensor], name: str) -> None:
        super().__init__(folder)
        self.map_pooled, self.index_folder = map_pooled, self.folder / name

    @property
    def tokens(self) -> None:
        """None; see above."""
        return None

    def _pooled(self, number: int) -> Tensor:
        return self.map_pooled(super()._pooled(number))


class _Blocks(Sequence[Any]):
    """Blocks that are opened when they are asked for, so that few files are open at once."""

    def __init__(self, count: int, load: Callable[[int], Any]) -> None:
        self._count, self._load = count, load

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: Any) -> Any:
        if not 0 <= index < self._count:
            raise IndexError(index)
        return self._load(index)


def read_manifest(folder: str | Path) -> dict[str, Any]:
    """The manifest of a folder of shards.

    Raises:
        InputError: there is none, or it is of another format.
    """
    path = Path(folder) / "manifest.json"
    if not path.is_file():
        raise InputError("no manifest.json there, expected a folder that search.py index wrote", folder)
    manifest: dict[str, Any] = read_json(path, "the manifest of an index")
    form = manifest.get("format") if isinstance(manifest, dict) else None
    if form != _FORMAT:
        raise InputError(f"the format of the index is {form}, expected {_FORMAT}: index again", path)
    return manifest


def texts_hash(texts: Mapping[str, str]) -> str:
    """A digest of ids and texts in their order; 32 hexadecimal digits."""
    digest = hashlib.blake2b(digest_size=16)
    parts: list[str] = []
    with delayed_progress("check texts", len(texts)) as advance:
        for name, text in texts.items():
            parts.append(f"{name}\0{text}\0")
            if len(parts) == _TEXTS_PER_HASH:
                digest.update("".join(parts).encode("utf-8", "surrogatepass"))
                advance(len(parts))
                parts.clear()
    digest.update("".join(parts).encode("utf-8", "surrogatepass"))
    return digest.hexdigest()


def _write_block(
    folder: Path,
    number: int,
    manifest: dict[str, Any],
    texts: list[str],
    encode: Encode,
    advance: Callable[[float], None],
) -> None:
    """Encode one block; its pooled vectors are written last, and say that it is complete."""
    pooled = np.empty((len(texts), manifest["dim"]), dtype=manifest["dtype"])
    token_dtype = getattr(torch, manifest["token_dtype"])
    tokens: list[TokenMatrix] = []
    order: list[int] = []
    for rows in _batches(texts, manifest["batch_size"]):
        vectors, states = encode([texts[row] for row in rows])
        if not torch.isfinite(vectors).all():
            raise ValueError(f"the encoder gave vectors that are not finite, in block {number}")
        pooled[rows] = vectors.detach().float().cpu().numpy()
        if manifest["tokens"]:
            if states is None:
                raise ValueError("the encoder gave no token vectors, but the index is to hold them")
            tokens.append(TokenMatrix(states.values.cpu().to(token_dtype), states.offsets.cpu()))
            order += rows
        advance(len(rows))
    if tokens:
        matrix = TokenMatrix.concatenate(tokens).select(torch.tensor(order).argsort())
        _save(_file(folder, "tokens", number), matrix.values.numpy())
        _save(_file(folder, "lengths", number), matrix.lengths.numpy())
    _save(_file(folder, "pooled", number), pooled)


def _save(path: Path, array: Array) -> None:
    with unfinished(path) as temporary:
        write_array(temporary, array)


def _batches(texts: Sequence[str], size: int) -> Iterator[list[int]]:
    """Rows of texts of like length, the longest first."""
    order = sorted(range(len(texts)), key=lambda row: (-len(texts[row]), row))
    return (order[start : start + size] for start in range(0, len(order), size))


def _is_complete(folder: Path, number: int, manifest: dict[str, Any]) -> bool:
    """Whether a block is there, with the shape that it must have."""
    rows = min(manifest["block"], manifest["texts"] - number * manifest["block"])
    try:
        pooled = load_mapped(_file(folder, "pooled", number))
        if pooled.shape != (rows, manifest["dim"]) or pooled.dtype != manifest["dtype"]:
            return False
        if manifest["tokens"]:
            lengths = np.load(_file(folder, "lengths", number))
            tokens = load_mapped(_file(folder, "tokens", number))
            return bool(
                len(lengths) == rows and (len(tokens), tokens.dtype) == (lengths.sum(), manifest["token_dtype"])
            )
    except (OSError, ValueError, EOFError):
        return False
    return True


def _blocks(manifest: dict[str, Any]) -> int:
    return -(-int(manifest["texts"]) // int(manifest["block"]))


def _file(folder: Path, name: str, number: int) -> Path:
    return folder / f"{name}-{number:05}.npy"


def _require_same(folder: Path, present: dict[str, Any], expected: dict[str, Any]) -> None:
    """Raise InputError where the folder holds other vectors than those expected."""
    for name, value in expected.items():
        if name != "about" and present.get(name) != value:
            what = _OTHER.get(name, "with other settings")
            raise InputError(
                f"the folder holds vectors {what} ({name} is {present.get(name)}, expected {value}): "
                "give another folder, or remove it first",
                folder,
            )
