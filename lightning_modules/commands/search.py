"""What search.py does: encode a collection with a run's student or teacher, and query it."""

from __future__ import annotations

import os
from argparse import Namespace
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor

from datamodules.text_files import open_texts
from foundations.errors import InputError, as_input_error
from lightning_modules.commands.evaluate import load_weights, open_run
from lightning_modules.distillation import DistillationModule
from lightning_modules.evaluation.callback import RetrievalEvaluation
from lightning_modules.evaluation.encoding import EncodedTexts, encode, encode_into, encoder_of
from lightning_modules.evaluation.hybrid import MOST_DOCUMENTS, Hybrid, stored_weights
from lightning_modules.evaluation.ranking import search_texts
from lightning_modules.teachers.base import Encoder, Teacher
from retrieval.collection import Side
from retrieval.index.bm25 import BM25
from retrieval.index.faiss_index import FaissOptions, open_index, recall, require_faiss, search_index
from retrieval.index.search import to_run
from retrieval.index.shards import MappedShards, Shards, texts_hash
from retrieval.trec import write_run

_RECALL_QUERIES = 100
_RANK_VARIABLES = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "TORCHELASTIC_RUN_ID", "GROUP_RANK")


def build(options: Namespace) -> None:
    """Encode a collection into a folder of shards; the ranks of torchrun share the work."""
    with _ranks() as rank, as_input_error():
        module, _ = _load(options.run, options.checkpoint, options.device, rank)
        shards = encode_into(
            Path(options.output),
            _encoder(module, options.side),
            open_texts(Path(options.documents)),
            tokens=options.tokens,
            dtype="float16" if options.dtype == "fp16" else "float32",
            block=options.block,
            batch_size=options.batch_size,
            about={"side": options.side, "documents": str(Path(options.documents).resolve()), "space": _space(module)},
        )
        if rank == 0:
            print(f"{options.output}: {len(shards.ids)} documents, {shards.manifest['dim']} dimensions")


def query(options: Namespace) -> None:
    """Search in a folder of shards, and write a TREC run, or print the results for one text."""
    if options.index != "exact":
        require_faiss()
    shards = Shards(options.folder)
    texts: Mapping[str, str] = (
        {"query": options.text} if options.text is not None else open_texts(Path(options.queries))
    )
    module, evaluation = _load(options.run, options.checkpoint, options.device, 0)
    shards = _in_space(shards, module, options)
    about = shards.manifest["about"] or {}
    encoder, tokens = _encoder(module, options.side), options.score != "pooled"
    if encoder.dim != shards.manifest["dim"]:
        raise InputError(f"the queries have {encoder.dim} dimensions, the index {shards.manifest['dim']}")
    if tokens and shards.tokens is None:
        needs = f"the index holds no token vectors, which {options.score} needs: index with --tokens"
        raise InputError(needs, shards.folder)
    with as_input_error():
        hybrid = _hybrid(shards, texts, evaluation) if options.score == "hybrid" else None
        kind = options.token_weights or evaluation.query_weights(options.score)
        queries = encode(encoder, texts, "queries", tokens=tokens, token_weights=kind).of(list(texts))
        scores, indices = _search(shards, queries, options, hybrid)
    run = to_run(scores, indices, queries.ids, shards.ids)
    if options.output:
        write_run(options.output, run)
        print(f"{options.output}: {len(run)} queries, {scores.shape[1]} documents each")
    if options.text is not None:
        documents = about.get("documents")
        found = open_texts(Path(documents)) if documents and Path(documents).is_file() else {}
        for name, score in next(iter(run.values())).items():
            print(f"{score:8.4f}  {name}  {found.get(name, '')}".rstrip())


def _in_space(shards: Shards, module: DistillationModule, options: Namespace) -> Shards:
    """The index in the space of the run: that of a teacher as it is serves runs in a whitened space of it as well."""
    teacher = module.teacher.uncached
    about = shards.manifest["about"] or {}
    if about.get("space") == _space(module):
        return shards
    if module.space is None or (about.get("space"), about.get("side")) != (teacher.fingerprint(), "teacher"):
        raise InputError(f"the index is in the space of another teacher than that of {options.run}", options.folder)
    if options.score != "pooled":
        raise InputError(
            "the index holds tokens of the teacher as it is, at unit length, expected those of the whitened space: "
            f"index again with {options.run}",
            options.folder,
        )
    return MappedShards(options.folder, module.space.pooled, f"whitened-{_space(module)}")


def _hybrid(shards: Shards, texts: Mapping[str, str], evaluation: RetrievalEvaluation) -> Hybrid:
    """What the hybrid score needs beside the vectors: BM25 of the texts that were indexed, and the run's weights."""
    documents = (shards.manifest["about"] or {}).get("documents")
    if len(shards.ids) > MOST_DOCUMENTS:
        raise InputError(
            f"the index has {len(shards.ids):,} documents, but hybrid holds the words of at most {MOST_DOCUMENTS:,} in "
            "memory: expected --score pooled or maxsim",
            shards.folder,
        )
    if not documents or not Path(documents).is_file():
        raise InputError("hybrid reads the documents that were indexed, which are no longer there", documents)
    found = open_texts(Path(documents))
    if texts_hash(found) != shards.manifest["content"]:
        raise InputError("hybrid reads the documents that were indexed, but this file has changed since", documents)
    return Hybrid(BM25(found), texts, stored_weights(evaluation.large.folder)[0])


def _search(shards: Shards, queries: EncodedTexts, options: Namespace, hybrid: Hybrid | None) -> tuple[Tensor, Tensor]:
    """Scores and positions of the first documents of each query."""
    if options.index == "exact":
        return search_texts(queries, shards, options.score, options.k, memory_mb=options.memory_mb, hybrid=hybrid)
    faiss = FaissOptions(options.index, options.nlist, options.nprobe, options.m, ef_search=options.ef_search)
    index = open_index(shards.index_folder, shards.pooled, faiss)
    scores, indices = search_index(index, queries.pooled, options.k, faiss)
    count = len(queries.ids)
    sample = torch.linspace(0, count - 1, min(count, _RECALL_QUERIES)).long()
    sampled = queries.select(sample.tolist())
    _, exact = search_texts(sampled, shards, "pooled", options.k, memory_mb=options.memory_mb)
    print(f"{options.index}: recall@{exact.shape[1]} against exact search is {recall(indices[sample], exact):.4f}")
    return scores, indices


def _load(
    folder: str, checkpoint: str | None, device: str, rank: int
) -> tuple[DistillationModule, RetrievalEvaluation]:
    """The student with its weights and its teacher, and how the run was evaluated."""
    path = Path(checkpoint) if checkpoint else Path(folder) / "checkpoints" / "best.ckpt"
    hidden = {name: os.environ.pop(name) for name in _RANK_VARIABLES if name in os.environ}  # for Lightning this is one
    try:
        cli = open_run(folder, ["--trainer.accelerator=cpu"], path)
    finally:
        os.environ.update(hidden)
    load_weights(cli.model, path)
    if device == "auto":
        device = f"cuda:{int(os.environ.get('LOCAL_RANK', rank))}" if torch.cuda.is_available() else "cpu"
    if device.startswith("cuda"):
        torch.cuda.set_device(torch.device(device))
    return cli.model.eval().to(device), cli.evaluation


def _encoder(module: DistillationModule, side: Side) -> Encoder:
    """The student or the teacher; not the teacher's cache, since an index is one."""
    encoder = encoder_of(module, side)
    return encoder.uncached if isinstance(encoder, Teacher) else encoder


def _space(module: DistillationModule) -> str:
    """The teacher, whose space the vectors of its students are in as well."""
    return _encoder(module, "teacher").fingerprint()


@contextmanager
def _ranks() -> Iterator[int]:
    """The rank of this process, connected with the others where torchrun says that there are some."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield 0
        return
    dist.init_process_group("gloo")
    try:
        yield dist.get_rank()
    finally:
        dist.destroy_process_group()


COMMANDS: dict[str, Callable[[Namespace], None]] = {"index": build, "query": query}
