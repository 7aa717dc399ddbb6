"""An exported student for onnxruntime: from token ids to its vectors, in 32-bit floats and in 8-bit integers."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from foundations.errors import InputError
from lightning_modules.export.folder import FolderEncoder, Written
from lightning_modules.students.base import TextSide
from lightning_modules.teachers.base import Encoder
from strategies.base import Embeddings

TOLERANCE = 1e-4
ONNX, INT8 = "onnx/model.onnx", "onnx/model_int8.onnx"
_TEXTS = ["a", "water is life", "habari ya asubuhi rafiki yangu mkubwa sana"]


def check_onnx(score: str, weights: str) -> None:
    """Look whether a student can become ONNX before anything is written.

    Raises:
        InputError: MaxSim with weights that differ, or a package is missing.
    """
    if score != "pooled" and weights != "uniform":
        raise InputError(f"--token_weights is {weights}, expected uniform with --onnx, one model for both")
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise InputError(f"--onnx needs {error.name}: pip install 'potstill[onnx]'") from None


class OnnxEncoder(Encoder):
    """An ONNX file of an exported student, by onnxruntime.

    Args:
        folder: of the exported student.
        file: of the model in it.
    """

    def __init__(self, folder: Path, file: str = ONNX) -> None:
        import onnxruntime

        self.library = FolderEncoder(folder)
        self.session = onnxruntime.InferenceSession(str(folder / file), providers=["CPUExecutionProvider"])

    @property
    def dim(self) -> int:
        """Width of the vectors."""
        return self.library.dim

    @property
    def sides(self) -> tuple[TextSide, ...]:
        """See `Encoder.sides`."""
        return self.library.sides

    def fingerprint(self, side: TextSide = "queries") -> str:
        """See `Encoder.fingerprint`."""
        return f"onnx-{self.library.fingerprint(side)}"

    def encode(
        self,
        texts: list[str],
        tokens: bool = False,
        device: torch.device | str | None = None,
        side: TextSide = "queries",
    ) -> Embeddings:
        """See `Encoder.encode`; as `FolderEncoder`."""
        ids, attention = _inputs(self.library.model, texts, side)
        given = self.session.run(None, {"input_ids": ids.numpy(), "attention_mask": attention.numpy()})
        vectors = [torch.from_numpy(each).to(device or "cpu") for each in given]
        if not self.library.gives_tokens:
            return Embeddings(vectors[0])
        states, mask = vectors[0], vectors[1].bool()
        pooled = nn.functional.normalize((states * mask[..., None]).sum(1), dim=-1)
        return Embeddings(pooled, states if tokens else None, mask if tokens else None)


class _Graph(nn.Module):
    """What is exported: ids and attention mask (B, T) to vectors (B, D), or to token vectors and their mask."""

    def __init__(self, model: Any, gives_tokens: bool) -> None:
        super().__init__()
        self.first, *rest = list(model)
        self.rest, self.gives_tokens = nn.ModuleList(rest), gives_tokens
        self.is_static = hasattr(self.first, "embedding")
        words = [word for module in rest for word in getattr(module, "skiplist_words", ())]
        self.masked = torch.tensor([model.tokenizer.convert_tokens_to_ids(word) for word in words])

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Any:
        features: dict[str, Tensor] = {"input_ids": input_ids, "attention_mask": attention_mask}
        if self.is_static:
            rows = nn.functional.embedding(input_ids, self.first.embedding.weight) * attention_mask[..., None]
            features["sentence_embedding"] = rows.sum(1) / attention_mask.sum(1, keepdim=True).clamp(min=1)
        else:
            network = self.first.auto_model
            states = network(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
            features["token_embeddings"] = states
        for module in self.rest:
            features = features if hasattr(module, "skiplist_words") else module(features)
        if self.gives_tokens:  # ONNX has no isin, which the library's mask of tokens calls
            ignored = (input_ids[..., None] == self.masked).any(-1)
            return features["token_embeddings"], attention_mask * ~ignored
        return features["sentence_embedding"]


def write_onnx(folder: Path, written: Written) -> str:
    """Write ``onnx/model.onnx``, whose batch and length are free, and compare it with the library's vectors.

    Args:
        folder: of the exported student.
        written: what was exported.

    Returns:
        What the card says about the file.

    Raises:
        InputError: the model cannot be exported, or its vectors differ.
    """
    library = FolderEncoder(folder)
    model = library.model
    if getattr(model[0], "query_expansion", None):
        raise InputError("the student fills queries with mask tokens, which --onnx cannot do")
    network = getattr(model[0], "auto_model", None)
    if network is not None:
        network.set_attn_implementation("eager")
    inputs = _inputs(model, _TEXTS, "queries")
    names = ["token_embeddings", "token_mask"] if library.gives_tokens else ["sentence_embedding"]
    batch, length = torch.export.Dim("batch", min=1), torch.export.Dim("length", min=2, max=written.max_length)
    (folder / ONNX).parent.mkdir()
    try:
        with warnings.catch_warnings(action="ignore"), _quiet():
            torch.onnx.export(
                _Graph(model, library.gives_tokens).eval(),
                inputs,
                str(folder / ONNX),
                input_names=["input_ids", "attention_mask"],
                output_names=names,
                dynamic_shapes=({0: batch, 1: length}, {0: batch, 1: length}),
                dynamo=True,
                external_data=False,
            )
    except Exception as error:  # torch raises whatever the model brings about
        reason = str(error).strip().partition("\n")[0]
        raise InputError(f"the student cannot be exported to ONNX: {type(error).__name__}: {reason}") from error
    difference = _difference(OnnxEncoder(folder), library)
    if difference > TOLERANCE:
        raise InputError(f"the ONNX file's vectors differ by {difference:.2g}, expected at most {TOLERANCE}")
    prompts = f", the prompts put before the texts ({written.prompts})" if written.prompts else ""
    return (
        f"`{ONNX}` takes `input_ids` and `attention_mask` of the tokenizer in `tokenizer.json`"
        f"{' without special tokens' if not network else ''}{prompts}, at most {written.max_length} tokens, "
        f"and gives {' and '.join(f'`{name}`' for name in names)}, equal to {max(difference, 1e-7):.0g}."
    )


def write_int8(folder: Path) -> str:
    """Write ``onnx/model_int8.onnx`` from the ONNX file of an exported student; what the card says about its size."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with _quiet():
        quantize_dynamic(str(folder / ONNX), str(folder / INT8), weight_type=QuantType.QInt8, per_channel=True,
                         op_types_to_quantize=["MatMul", "Gather", "Gemm"])  # fmt: skip
    small, large = ((folder / file).stat().st_size / 2**20 for file in (INT8, ONNX))
    return f"`{INT8}` has weights of 8 bits ({small:.1f} MiB in place of {large:.1f})"


def _inputs(model: Any, texts: list[str], side: TextSide) -> tuple[Tensor, Tensor]:
    """Ids and attention mask (B, T), with the prompts, as the library makes them."""
    task = "query" if side == "queries" else "document"
    features = model.preprocess(texts, prompt=model.prompts.get(task) or None, task=task)
    if "offsets" not in features:
        return features["input_ids"], features["attention_mask"]
    parts = features["input_ids"].tensor_split(features["offsets"][1:])
    ids = nn.utils.rnn.pad_sequence(parts, batch_first=True)
    return ids, (torch.arange(ids.shape[1]) < torch.tensor([len(part) for part in parts])[:, None]).long()


def _difference(one: Encoder, other: FolderEncoder) -> float:
    """The largest difference between the vectors of two encoders, of batches of several sizes and lengths."""
    largest = 0.0
    for texts in (_TEXTS, _TEXTS[1:2], _TEXTS * 3 + ["maji " * 30]):
        pairs = [each.encode(texts, other.gives_tokens, side="documents") for each in (one, other)]
        given = [each.pooled if each.tokens is None else _real(each) for each in pairs]
        largest = max(largest, float((given[0] - given[1]).abs().max()))
    return largest


def _real(embeddings: Embeddings) -> Tensor:
    states, mask = embeddings.require_tokens()
    return states[mask]


@contextlib.contextmanager
def _quiet() -> Any:
    """Neither the exporter's report of its steps nor the log of the quantiser."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.disable(level)
