"""A student as modules of sentence-transformers: its own classes alone, so that nothing has to be trusted."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from foundations.errors import InputError
from lightning_modules.models.files import write_tokenizer
from lightning_modules.students.base import TextEncoder, TextSide
from lightning_modules.students.static import StaticEncoder
from lightning_modules.students.transformer import TransformerEncoder
from strategies.functional import Marginals

_TOKENS = "token_embeddings"
_MOST_POSITIONS = 8192
"""Tokens of a text that token vectors of a static student are made for; one without a limit has a million."""


@dataclass(frozen=True)
class Parts:
    """What a folder is made of.

    Args:
        modules: of sentence-transformers, in their order.
        prompts: put before queries and documents.
        tokenizer: of the ``tokenizers`` library; it brings texts to NFC, as students do.
        special_tokens: for example ``{"pad_token": "[PAD]"}``.
        max_length: longest text in tokens.
    """

    modules: list[Any]
    prompts: dict[str, str]
    tokenizer: Any
    special_tokens: dict[str, str]
    max_length: int


def pooled_parts(student: TextEncoder, projection: nn.Module, scratch: Path) -> Parts:
    """A student that gives one vector a text, for ``SentenceTransformer``.

    Args:
        student: in eval mode, on the CPU.
        projection: the layer into the teacher's width, or ``nn.Identity``.
        scratch: an empty folder for temporary files.

    Raises:
        InputError: a student of a class that this does not know, or an encoder that cannot be saved.
    """
    from sentence_transformers.sentence_transformer.modules import Pooling, StaticEmbedding

    if isinstance(student, StaticEncoder):
        tokenizer, length = _static_tokenizer(student)
        length -= len(_added_tokens(tokenizer))  # the library puts none around a text
        tokenizer.enable_truncation(length)
        weights = 1 if student.token_weights is None else student.token_weights.weight.detach().exp()
        rows = weights * _linear(student.linear, student.embedding.weight.detach())
        chain = [StaticEmbedding(tokenizer, rows), *_normalised(projection)]
        return Parts(chain, {}, tokenizer, dict(student.special_tokens), length)
    student = _transformer(student)
    tokenizer = _tokenizer(student)
    first = _saved(student.model, tokenizer, student, scratch)
    width = int(student.model.config.hidden_size)
    chain = [Pooling(width, student.pooling)] if student.behind is None else list(student.behind.chain)
    chain += [] if student.projection is None else [_dense(student.projection)]
    chain += _normalised(projection)
    prompts = {"query": student.prefixes["queries"], "document": student.prefixes["documents"]}
    return Parts([first, *chain], prompts, tokenizer, dict(student.special_tokens), student.max_length)


def token_parts(student: TextEncoder, projection: nn.Module, weights: Marginals, scratch: Path) -> Parts:
    """A student that gives a vector for each token, for ``MultiVectorEncoder``.

    What MaxSim leaves out (special tokens, and those of a prefix) is masked on both sides. Documents are unit vectors.
    Queries are too where all their tokens count the same; else the length of a vector is what its token counts, so
    that a plain MaxSim is the weighted one times a factor of the query. The tokens of a prefix are also ordinary
    words, so they get rows of their own in the vocabulary, copies of those that they have.

    Args:
        student: as for `pooled_parts`; its table grows by the tokens of its prefixes.
        projection: as for `pooled_parts`.
        weights: how much each token of a query counts.
        scratch: an empty folder for temporary files.

    Raises:
        InputError: as `pooled_parts`; the student has no IDF; or its layers are for pooled vectors only.
    """
    prompts: dict[str, str] = {}
    chain: list[Any] = []
    if isinstance(student, StaticEncoder):
        tokenizer, length = _static_tokenizer(student)
        length = min(length, _MOST_POSITIONS)
        rows = _linear(projection, _linear(student.linear, student.embedding.weight.detach()))
        first = _saved(_bare_table(rows, length), tokenizer, student, scratch, length)
        masked = _added_tokens(tokenizer)
    else:
        student = _transformer(student)
        tokenizer, length = _tokenizer(student), student.max_length
        masked = _added_tokens(tokenizer)
        prompts, copies = _prefix_tokens(student, tokenizer)
        _copy_rows(student.model, copies)
        masked += [tokenizer.id_to_token(new) for new in copies]
        first = _saved(student.model, tokenizer, student, scratch)
        chain = [] if student.behind is None else _for_tokens(student)
        chain += [_dense(layer, _TOKENS) for layer in (student.projection, projection) if isinstance(layer, nn.Linear)]
    if student.query_augmentation:
        first.query_expansion = {"strategy": "min", "attend": False, "length": student.query_augmentation}
    chain += _weighted(masked, weights, student.idf, tokenizer)
    return Parts([first, *chain], prompts, tokenizer, dict(student.special_tokens), length)


def space_map(space: Mapping[str, Tensor], tokens: bool) -> Any:
    """The map of `Whitening` as a ``Dense`` module: of unit vectors of the teacher, or of its token states.

    Normalise what it gives.
    """
    matrix, shift = space["matrix"], -space["mean"] @ space["matrix"]
    layer = nn.Linear(*matrix.shape)
    layer.load_state_dict({"weight": (matrix / space["scale"] if tokens else matrix).T.contiguous(), "bias": shift})
    return _dense(layer, _TOKENS if tokens else "sentence_embedding")


def _transformer(student: TextEncoder) -> TransformerEncoder:
    if not isinstance(student, TransformerEncoder):
        raise InputError(f"the student is a {type(student).__name__}, expected a transformer or static student")
    if student.model.config.is_encoder_decoder:
        raise InputError(f"{type(student.model).__name__} cannot be saved without its decoder")
    return student


def _linear(layer: nn.Module | None, rows: Tensor) -> Tensor:
    """The rows of a table after a linear layer."""
    with torch.no_grad():
        given: Tensor = rows if layer is None else layer(rows)
        return given.contiguous()


def _dense(layer: nn.Linear, key: str = "sentence_embedding") -> Any:
    from sentence_transformers.base.modules import Dense

    dense = Dense(layer.in_features, layer.out_features, layer.bias is not None, nn.Identity(), module_input_name=key)
    dense.linear.load_state_dict(layer.state_dict())
    return dense


def _normalised(projection: nn.Module) -> list[Any]:
    """Unit vectors, after the layer into the teacher's width where there is one; it takes unit vectors."""
    from sentence_transformers.base.modules import Normalize

    return [Normalize(), *([_dense(projection), Normalize()] if isinstance(projection, nn.Linear) else [])]


def _tokenizer(student: TextEncoder) -> Any:
    """The tokenizer without truncation and padding, with NFC before what it does."""
    spec = json.loads(student.tokenizer_json())
    steps = [{"type": "NFC"}, *([spec["normalizer"]] if spec["normalizer"] else [])]
    spec["normalizer"] = {"type": "Sequence", "normalizers": steps}
    spec["truncation"] = spec["padding"] = None
    return type(student.tokenizer).from_str(json.dumps(spec, ensure_ascii=False))


def _static_tokenizer(student: StaticEncoder) -> tuple[Any, int]:
    """The tokenizer, and how many tokens are read: a prefix is left out, since tokens do not see each other."""
    tokenizer = _tokenizer(student)
    return tokenizer, student.max_length - len(_own_ids(tokenizer, student.prefixes["queries"].rstrip()))


def _saved(model: Any, tokenizer: Any, student: TextEncoder, scratch: Path, length: int | None = None) -> Any:
    """A model of ``transformers`` as the first module."""
    from sentence_transformers.base.modules import Transformer

    from lightning_modules.models.pretrained import quiet_transformers

    length = length or student.max_length
    model.config.name_or_path = ""
    student.special_tokens.setdefault("pad_token", tokenizer.id_to_token(student.pad_id))
    with quiet_transformers():
        model.save_pretrained(scratch)
        write_tokenizer(scratch, tokenizer, student.special_tokens, length)
        return Transformer(str(scratch), max_seq_length=length)


def _bare_table(rows: Tensor, length: int) -> Any:
    """A transformer without layers, positions and norms, which is a table of vectors: GPT's has all of that."""
    from transformers import OpenAIGPTConfig, OpenAIGPTModel

    config = OpenAIGPTConfig(
        vocab_size=len(rows), n_embd=rows.shape[1], n_layer=0, n_head=1, n_positions=length, embd_pdrop=0.0
    )
    model = OpenAIGPTModel(config)
    positions = torch.zeros(length, rows.shape[1])
    model.load_state_dict({"tokens_embed.weight": rows, "positions_embed.weight": positions})
    return model


def _added_tokens(tokenizer: Any) -> list[str]:
    """The tokens that the tokenizer puts around a text."""
    encoding = tokenizer.encode("")
    pairs = zip(encoding.tokens, encoding.special_tokens_mask, strict=True)
    return list(dict.fromkeys(token for token, special in pairs if special))


def _own_ids(tokenizer: Any, text: str) -> list[int]:
    """The ids of a text without those that are put around it."""
    ids: list[int] = tokenizer.encode(text, add_special_tokens=False).ids
    return ids


def _prefix_tokens(student: TransformerEncoder, tokenizer: Any) -> tuple[dict[str, str], dict[int, int]]:
    """Prompts of added tokens, and for the id of each of them that of the token that it stands for."""
    prompts, copies = {}, dict[int, int]()
    sides: dict[str, TextSide] = {"query": "queries", "document": "documents"}
    for name, side in sides.items():
        prefix = student.prefixes[side]
        ids = _own_ids(tokenizer, prefix.rstrip())
        names = [f"<|{name}-{number}|>" for number, _ in enumerate(ids)]
        tokenizer.add_special_tokens(names)
        copies |= {tokenizer.token_to_id(token): id_ for token, id_ in zip(names, ids, strict=True)}
        prompts[name] = "".join(names) + prefix[len(prefix.rstrip()) :]
    return prompts, copies


def _copy_rows(model: Any, copies: Mapping[int, int]) -> None:
    """Give a model's table further rows, copies of others."""
    if not copies:
        return
    table = model.resize_token_embeddings(max(*copies, len(model.get_input_embeddings().weight) - 1) + 1)
    with torch.no_grad():
        for new, old in copies.items():
            table.weight[new] = table.weight[old]


def _for_tokens(student: TransformerEncoder) -> list[Any]:
    """The modules behind a transformer, without pooling and normalisation, for token states."""
    behind = student.behind
    assert behind is not None
    behind.in_pooled_space(torch.zeros(1, 1, int(student.model.config.hidden_size)))  # refuses what has none
    modules = list(behind.chain[: behind.position])
    for module in behind.chain[behind.position + 1 :]:
        kind = type(module).__name__
        if kind in ("Normalize", "Dropout"):
            continue
        if kind != "Dense":
            raise InputError(f"the student has a {kind} behind its pooling, which token vectors cannot pass outside")
        moved: Any = copy.deepcopy(module)
        moved.module_input_name = moved.module_output_name = _TOKENS
        modules.append(moved)
    return modules


def _weighted(masked: Sequence[str], weights: Marginals, idf: Tensor, tokenizer: Any) -> list[Any]:
    """The modules that choose tokens and give them their lengths."""
    from sentence_transformers.base.modules import Normalize, Router
    from sentence_transformers.multi_vector_encoder.modules import MultiVectorMask
    from sentence_transformers.sentence_transformer.modules import WordWeights

    mask = MultiVectorMask(list(masked), skiplist_tasks=["query", "document"])
    unit = Normalize(_TOKENS)
    if weights == "uniform":
        return [mask, unit]
    queries: list[Any] = [MultiVectorMask()]  # a route must not be empty; this one leaves all as it is
    if weights == "idf":
        if not len(idf):
            raise InputError("token_weights is idf, but the checkpoint holds no IDF: expected norm or uniform")
        names = [tokenizer.id_to_token(id_) or f"<|{id_}|>" for id_ in range(tokenizer.get_vocab_size())]
        queries = [unit, WordWeights(names, dict(zip(names, idf.tolist(), strict=False)))]
    return [mask, Router.for_query_document(queries, [unit])]
