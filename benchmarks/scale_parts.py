"""The parts of benchmarks.scale, each run in a process of its own: python -m benchmarks.scale_parts PART SETTINGS."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from retrieval.index.shards import Shards, ShardSettings, prepare_shards, write_shards

_MIB = 2**20
_CENTRES = 50
_WORDS = [a + b + c + d for a in "bklmn" for b in "aeiou" for c in "t" for d in "ou"]


class NumberedTexts(Mapping[str, str]):
    """A number of short texts that are made when they are asked for."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __getitem__(self, key: str) -> str:
        number = int(key[1:])
        return " ".join(_WORDS[(number // 50**i + i * number) % len(_WORDS)] for i in range(20)) + f" {number}"

    def __iter__(self) -> Iterator[str]:
        return (f"d{number:08}" for number in range(self.count))

    def __len__(self) -> int:
        return self.count


def vectors_of(texts: list[str], width: int) -> Tensor:
    """Unit vectors in clusters, as real ones are; they depend on the texts only."""
    numbers = torch.tensor([int(text.rsplit(" ", 1)[1]) for text in texts])
    centres = torch.randn(_CENTRES, width, generator=torch.Generator().manual_seed(0))
    noise = torch.randn(len(texts), width, generator=torch.Generator().manual_seed(int(numbers.min())))
    return torch.nn.functional.normalize(centres[numbers * 7919 % _CENTRES] + 0.7 * noise, dim=1)


def make_queries(settings: Mapping[str, Any]) -> Tensor:
    """(Q, D)."""
    return vectors_of([f"query {i * 31 + 10**8}" for i in range(settings["queries"])], settings["width"])


def make_collection(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Write the shards that are searched."""
    folder, texts, width = (
        Path(settings["folder"]) / "collection",
        NumberedTexts(settings["documents"]),
        settings["width"],
    )
    prepare_shards(folder, texts, ShardSettings("synthetic", width, batch_size=4096))
    write_shards(folder, texts, lambda batch: (vectors_of(batch, width), None))
    return {}


def make_pairs(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Write the file of pairs."""
    rng = np.random.default_rng(0)
    lines = [" ".join(rng.choice(_WORDS, 45)) + "\t" + " ".join(rng.choice(_WORDS, 45)) + "\n" for _ in range(2000)]
    block = "".join(lines).encode()
    with (Path(settings["folder"]) / "pairs.tsv").open("wb") as file:
        for _ in range(-(-settings["pair_bytes"] // len(block))):
            file.write(block)
    return {}


def training_input(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Index the pairs, then iterate batches as training does."""
    from datamodules.loading import stream_loader
    from datamodules.sources import PairFile

    path = Path(settings["folder"]) / "pairs.tsv"
    start = time.perf_counter()
    source = PairFile(path)
    indexed = time.perf_counter() - start
    start = time.perf_counter()
    pairs = size = 0
    for batch in islice(stream_loader(source, 256), settings["batches"]):
        pairs += len(batch)
        size += sum(map(len, batch.source)) + sum(map(len, batch.target))
    elapsed = time.perf_counter() - start
    return {
        "peak_mb": _status("VmHWM"),
        "pairs": len(source),
        "index_mb_per_s": path.stat().st_size / 1e6 / indexed,
        "pairs_per_s": pairs / elapsed,
        "mb_per_s": size / 1e6 / elapsed,
    }


def search_memory(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Search in blocks, and see how much memory it takes; pages of mapped files are not counted."""
    from retrieval.index.search import search

    shards, queries = Shards(Path(settings["folder"]) / "collection"), make_queries(settings)
    torch.set_num_threads(settings["threads"])
    few = Shards(Path(settings["folder"]) / "collection").pooled[0][:5000].clone()
    search(queries[:50], few, 10, [str(i) for i in range(len(few))])  # libraries take their own memory
    del few
    with PeakMemory() as memory:
        scores, indices = search(queries, shards.pooled, settings["k"], shards.ids, memory_mb=settings["memory_mb"])
    torch.save((scores, indices), Path(settings["folder"]) / "found.pt")
    return {"growth_mb": memory.growth}


def brute_force(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Compare some queries with all scores in double precision, sorted."""
    folder, few = Path(settings["folder"]), settings["checked"]
    shards, queries = Shards(folder / "collection"), make_queries(settings)[:few].numpy()
    scores = np.concatenate([_exact(queries, part.numpy()) for part in shards.pooled], axis=1)
    found_scores, found = torch.load(folder / "found.pt")
    ids = np.array(list(shards.ids))
    wrong = 0
    for row in range(few):
        near = np.flatnonzero(scores[row] >= np.partition(scores[row], -settings["k"])[-settings["k"]])
        best = sorted(near.tolist(), key=lambda i: (scores[row, i], ids[i]), reverse=True)[: settings["k"]]
        same = found[row].tolist() == best and np.array_equal(found_scores[row].numpy(), scores[row, best])
        wrong += not same
    return {"wrong": wrong}


def against_faiss(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Search with FAISS and with ours, in turn."""
    import faiss

    from retrieval.index.search import search

    shards, queries = Shards(Path(settings["folder"]) / "collection"), make_queries(settings)
    torch.set_num_threads(settings["threads"])
    faiss.omp_set_num_threads(settings["threads"])
    index = faiss.IndexFlatIP(settings["width"])
    for part in shards.pooled:
        index.add(part.numpy())
    times: dict[str, list[float]] = {"ours": [], "faiss": []}
    for _ in range(settings["repeats"]):
        times["faiss"].append(_timed(lambda: index.search(queries.numpy(), settings["k"])))
        times["ours"].append(
            _timed(lambda: search(queries, shards.pooled, settings["k"], shards.ids, memory_mb=settings["memory_mb"]))
        )
    return times


def approximate(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Recall and speed of the FAISS indices on a part of the collection."""
    import faiss

    from retrieval.index.faiss_index import FaissOptions, build_index, recall, search_index
    from retrieval.index.search import search

    torch.set_num_threads(settings["threads"])
    faiss.omp_set_num_threads(settings["threads"])
    queries = make_queries(settings)
    documents = torch.cat(list(islice(Shards(Path(settings["folder"]) / "collection").pooled, 2)))[: settings["some"]]
    ids = [f"{i:08}" for i in range(len(documents))]
    _, exact = search(queries, documents, 100, ids)
    seconds = _timed(lambda: search(queries, documents, 100, ids))
    result: dict[str, Any] = {"documents": len(documents), "exact": seconds}
    for kind in ("ivf", "hnsw"):
        options = FaissOptions(kind)
        start = time.perf_counter()
        index = build_index([documents], options)
        built = time.perf_counter() - start
        _, found = search_index(index, queries, 100, options)
        taken = _timed(lambda: search_index(index, queries, 100, options))  # noqa: B023
        result[kind] = {"recall": recall(found, exact), "seconds": taken, "build": built}
    return result


def encode(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Encode texts with a static student into a folder of shards."""
    from lightning_modules.students.static import StaticEncoder

    torch.set_num_threads(settings["threads"])
    model = StaticEncoder(_model(Path(settings["folder"]) / "model", settings["width"]), max_length=64).eval()
    folder, texts = Path(settings["into"]), NumberedTexts(settings["encoded"])
    prepare_shards(folder, texts, ShardSettings("static", settings["width"], block=settings["block"]))
    start = time.perf_counter()
    with torch.no_grad():
        count = write_shards(folder, texts, lambda batch: (model(model.tokenize(batch)).pooled, None))
    return {"texts": count, "per_s": count / (time.perf_counter() - start)}


def encoder_rates(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Passages a second of readers of three shapes; weights are random, which changes no rate."""
    from lightning_modules.students.base import TextEncoder
    from lightning_modules.students.static import StaticEncoder
    from lightning_modules.students.transformer import TransformerEncoder

    torch.set_num_threads(settings["threads"])
    folder, texts = Path(settings["folder"]), NumberedTexts(10**6)
    model = str(_model(folder / "shape-12", 384, layers=12, heads=12, inner=1536))
    readers: dict[str, tuple[TextEncoder, int]] = {
        "static": (StaticEncoder(model, max_length=128), 64),
        "12 layers of 384 (e5-small)": (TransformerEncoder(model, max_length=128), 1),
        "6 layers of 384 (MiniLM)": (TransformerEncoder(model, max_length=128, layers=6), 2),
    }
    found: dict[str, Any] = {}
    for name, (reader, factor) in readers.items():
        passages = [" ".join(texts[f"d{3 * i + j}"] for j in range(3)) for i in range(factor * settings["rated"])]
        reader.eval()
        with torch.no_grad():
            inputs = reader.tokenize(passages[:64])
            reader(inputs)  # the first call allocates
            start = time.perf_counter()
            for first in range(0, len(passages), 64):
                reader(reader.tokenize(passages[first : first + 64]))
        found[name] = len(passages) / (time.perf_counter() - start)
    return {"rates": found, "tokens": float(inputs["attention_mask"].sum(1).float().mean())}


class PeakMemory:
    """The most anonymous memory that the process took, above what it had at the start, in MiB."""

    def __enter__(self) -> PeakMemory:
        self.before = self.peak = _status("RssAnon")
        self.done = threading.Event()
        self.thread = threading.Thread(target=self._watch)
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.done.set()
        self.thread.join()

    @property
    def growth(self) -> float:
        """Peak minus start."""
        return self.peak - self.before

    def _watch(self) -> None:
        while not self.done.wait(0.005):
            self.peak = max(self.peak, _status("RssAnon"))


def _model(folder: Path, width: int, layers: int = 1, heads: int = 4, inner: int | None = None) -> str:
    """A BERT with random weights and few pieces."""
    if (folder / "config.json").is_file():
        return str(folder)
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import BertConfig, BertModel

    from lightning_modules.models.files import write_tokenizer

    special = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    pieces = [*special.values(), *"0123456789", *(f"##{digit}" for digit in "0123456789"), *_WORDS]
    tokenizer = Tokenizer(models.WordPiece({piece: i for i, piece in enumerate(pieces)}, unk_token="[UNK]"))
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    tokenizer.add_special_tokens(list(special.values()))
    ends = [("[CLS]", 2), ("[SEP]", 3)]
    tokenizer.post_processor = processors.TemplateProcessing("[CLS] $A [SEP]", special_tokens=ends)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(pieces), hidden_size=width, num_hidden_layers=layers, num_attention_heads=heads,
        intermediate_size=inner or width,
    )  # fmt: skip
    BertModel(config).save_pretrained(folder)
    write_tokenizer(folder, tokenizer, special, 512)
    return str(folder)


def _exact(queries: Any, documents: Any) -> Any:
    """Cosines of vectors that are rounded to multiples of 2**-26, in single precision; (Q, n)."""
    left, right = (
        np.round(x / np.linalg.norm(x, axis=1, keepdims=True) * 2.0**26) / 2.0**26
        for x in (queries.astype(np.float64), documents.astype(np.float64))
    )
    return (left @ right.T).astype(np.float32)


def _timed(work: Callable[[], Any]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def _status(name: str) -> float:
    """A line of /proc/self/status, in MiB."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:")) / 1024


PARTS = {
    part.__name__: part
    for part in (
        make_collection, make_pairs, training_input, search_memory, brute_force, against_faiss, approximate, encode,
        encoder_rates,
    )
}  # fmt: skip

if __name__ == "__main__":
    print(json.dumps(PARTS[sys.argv[1]](json.loads(sys.argv[2]))))
