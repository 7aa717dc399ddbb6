"""The folder of an exported student: written, opened, and compared with the run that it comes from."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, get_args

import numpy as np
import torch
from torch import Tensor, nn

from foundations.errors import InputError
from foundations.files import read_json
from lightning_modules.export.modules import Parts, pooled_parts, space_map, token_parts
from lightning_modules.models.files import folder_hash, write_tokenizer
from lightning_modules.models.pretrained import quiet_transformers
from lightning_modules.students.base import TextEncoder, TextSide
from lightning_modules.teachers.base import Encoder
from lightning_modules.teachers.run import RunTeacher
from strategies.base import Embeddings
from strategies.functional import Marginals, token_weights

CONFIG = "config_sentence_transformers.json"
SPACE = "teacher_map"
"""The folder of the map that the teacher's vectors need, where the student lives in a whitened space."""
TOLERANCE = 1e-5
_TEXTS = 24


@dataclass(frozen=True)
class Written:
    """What `write_folder` did.

    Args:
        score: ``pooled`` or ``maxsim``: how the vectors are compared.
        dim: width of the vectors.
        max_length: longest text in tokens.
        prompts: put before queries and documents.
        difference: largest difference from the run's vectors.
    """

    score: str
    dim: int
    max_length: int
    prompts: dict[str, str]
    difference: float


class FolderEncoder(Encoder):
    """An exported student, or another model of sentence-transformers, as an `Encoder`; on the CPU.

    Args:
        folder: a folder with ``modules.json``.

    Raises:
        InputError: there is no such folder, or the library cannot load it.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        if not (self.folder / "modules.json").is_file():
            raise InputError("no modules.json there, expected a run or an exported student", folder)
        about = read_json(self.folder / CONFIG) if (self.folder / CONFIG).is_file() else {}
        self.gives_tokens = about.get("model_type") == "MultiVectorEncoder"
        self.both_sides = len(set((about.get("prompts") or {"": ""}).values())) > 1

    @cached_property
    def model(self) -> Any:
        """The ``SentenceTransformer`` or ``MultiVectorEncoder``."""
        from sentence_transformers import MultiVectorEncoder, SentenceTransformer

        kind = MultiVectorEncoder if self.gives_tokens else SentenceTransformer
        try:
            with quiet_transformers():
                return kind(str(self.folder), device="cpu", local_files_only=True)
        except Exception as error:  # the library raises whatever it comes upon
            reason = f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
            raise InputError(f"sentence-transformers cannot load it: {reason}", self.folder) from error

    @property
    def dim(self) -> int:
        """Width of the vectors."""
        return int(self.encode(["a"], self.gives_tokens).pooled.shape[1])

    @property
    def sides(self) -> tuple[TextSide, ...]:
        """See `Encoder.sides`."""
        return ("queries", "documents") if self.both_sides or self.gives_tokens else ("queries",)

    def fingerprint(self, side: TextSide = "queries") -> str:
        """See `Encoder.fingerprint`."""
        return folder_hash(self.folder, modules=True) + (side if len(self.sides) > 1 else "")

    def encode(
        self,
        texts: list[str],
        tokens: bool = False,
        device: torch.device | str | None = None,
        side: TextSide = "queries",
    ) -> Embeddings:
        """See `Encoder.encode`; with tokens, the pooled vector is the mean of their unit vectors.

        Raises:
            InputError: tokens of a model that gives one vector a text, or the other way round.
        """
        if tokens != self.gives_tokens:
            kinds = "one vector a text", "one a token"
            given, score = kinds[self.gives_tokens], ("pooled", "maxsim")[tokens]
            raise InputError(f"it gives {given}, expected a student exported with --score {score}", self.folder)
        encode = self.model.encode_query if side == "queries" else self.model.encode_document
        given = encode(texts, show_progress_bar=False, convert_to_numpy=False)
        if not self.gives_tokens:
            return Embeddings(torch.stack(list(given)).float().to(device or "cpu"))
        padded = nn.utils.rnn.pad_sequence(given, batch_first=True).float().to(device or "cpu")
        lengths = torch.tensor([len(each) for each in given], device=padded.device)
        mask = torch.arange(padded.shape[1], device=padded.device) < lengths[:, None]
        pooled = nn.functional.normalize(nn.functional.normalize(padded, dim=-1).sum(1), dim=-1)
        return Embeddings(pooled, padded, mask)


def write_folder(folder: Path, run: RunTeacher, score: str, weights: Marginals = "uniform") -> Written:
    """Write a run's student, and compare what the library makes of it with the run's vectors.

    Args:
        folder: an empty folder.
        run: the run, on the CPU. Its student is used up: with prefixes and MaxSim it gets further tokens.
        score: ``pooled`` for one vector a text, ``maxsim`` for one a token.
        weights: how much each token of a query counts in MaxSim.

    Raises:
        InputError: the student cannot be written so, or what was written gives other vectors.
    """
    student, tokens = run.encoder, score == "maxsim"
    dim, texts = run.dim, sample_texts(run)
    run.idf = student.idf.numpy() if weights == "idf" else run.idf
    expected = {side: run.encode(texts, tokens, side=side) for side in get_args(TextSide)}
    parts = save_student(folder, student, run.projection, score, weights)
    if run.space:
        (folder / SPACE).mkdir()
        space_map(run.space, tokens).save(str(folder / SPACE))
    prompts = {name: text for name, text in parts.prompts.items() if text}
    return Written(score, dim, parts.max_length, prompts, _compared(folder, texts, expected, weights))


def save_student(
    folder: Path, student: TextEncoder, projection: nn.Module, score: str = "pooled", weights: Marginals = "uniform"
) -> Parts:
    """Write a student, in eval mode and on the CPU, into a folder for sentence-transformers.

    Args:
        folder: where nothing is, or an empty folder.
        student: see `token_parts`.
        projection: the layer into the teacher's width, or ``nn.Identity``.
        score: ``pooled`` or ``maxsim``.
        weights: how much each token of a query counts in MaxSim.

    Raises:
        InputError: as `pooled_parts` and `token_parts`.
    """
    from sentence_transformers import MultiVectorEncoder, SentenceTransformer

    tokens = score == "maxsim"
    with quiet_transformers(), torch.no_grad(), TemporaryDirectory() as scratch:
        if tokens:
            parts = token_parts(student, projection, weights, Path(scratch))
        else:
            parts = pooled_parts(student, projection, Path(scratch))
        first = None if tokens or not any(parts.prompts.values()) else "query"
        options: dict[str, Any] = {"modules": parts.modules, "prompts": parts.prompts, "device": "cpu"}
        model = (MultiVectorEncoder if tokens else SentenceTransformer)(**options, default_prompt_name=first)
        model.save(str(folder), create_model_card=False)
    if (folder / "tokenizer_config.json").is_file():  # as it is: the library may write a class that others lack
        write_tokenizer(folder, parts.tokenizer, parts.special_tokens, parts.max_length)
    return parts


def sample_texts(run: RunTeacher) -> list[str]:
    """Texts made of pieces of the student's vocabulary, some longer than it reads; the same for the same run.

    Left out are texts whose first word is cut behind its mark of a beginning where there is a prefix. The run counts
    the mark to the prefix there, which matters where tokens of a prefix do not count; outside it is one of the text.
    """
    tokenizer = run.encoder.tokenization().tokenizer
    generator = np.random.default_rng(0)
    longest = min(run.encoder.max_length, 512)
    lengths = [1, 2, 3, *generator.integers(4, 24, _TEXTS - 5), longest, 2 * longest]
    size = tokenizer.get_vocab_size()
    texts = [tokenizer.decode(generator.integers(0, size, length).tolist()).strip() for length in lengths]
    prefixes = {prefix for prefix in run.prefixes.values() if prefix}
    return [
        text
        for text in texts
        if any(character.isalnum() for character in text)
        and not any(_parted(tokenizer.encode(prefix + text), len(prefix)) for prefix in prefixes)
    ] or ["a"]


def _parted(encoding: Any, length: int) -> bool:
    """Whether a token of white space alone ends where the prefix does."""
    pairs = zip(encoding.tokens, encoding.offsets, strict=True)
    return any(end == length and token in ("▁", "Ġ") for token, (_, end) in pairs)


def _compared(folder: Path, texts: list[str], expected: Mapping[TextSide, Embeddings], weights: Marginals) -> float:
    """The largest difference between the vectors that the folder gives and those expected.

    Raises:
        InputError: it is larger than `TOLERANCE`.
    """
    encoder, largest = FolderEncoder(folder), 0.0
    for side, theirs in expected.items():
        ours = encoder.encode(texts, theirs.tokens is not None, side=side)
        pairs: Iterable[tuple[Tensor, Tensor]] = [(ours.pooled, theirs.pooled)]
        if theirs.tokens is not None:
            pairs = _of_tokens(ours, theirs, weights if side == "queries" else "uniform")
        for one, other in pairs:
            if one.shape != other.shape:
                raise InputError(
                    f"the exported student makes {len(one)} vectors of a text and the run {len(other)}: its tokenizer "
                    "reads texts in another way there"
                )
            largest = max(largest, float((one - other).abs().max()))
    if largest > TOLERANCE:
        raise InputError(f"the exported student's vectors differ by {largest:.2g} from the run's, expected {TOLERANCE}")
    return largest


def _of_tokens(ours: Embeddings, theirs: Embeddings, weights: Marginals) -> Iterator[tuple[Tensor, Tensor]]:
    """The token vectors of each text at unit length, times what each counts."""
    counts, unit = token_weights(theirs, weights), nn.functional.normalize
    (states, mask), (expected, real) = ours.require_tokens(), theirs.require_tokens()
    for row, count in enumerate(counts):
        one, other = states[row][mask[row]], expected[row][real[row]]
        yield unit(one, dim=-1), unit(other, dim=-1)
        if len(one) == len(other):
            yield one.norm(dim=-1) / one.norm(dim=-1).sum(), count[real[row]]
