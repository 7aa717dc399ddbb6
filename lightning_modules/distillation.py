"""The training loop: encode both sides, ask the strategy, sum, log, step."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor, nn
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR

from datamodules.base import PairsDataModule
from datamodules.pairs import PairBatch
from foundations.checks import check_choice, check_number
from foundations.errors import InputError
from lightning_modules.lightning_private import data_of
from lightning_modules.listed import candidate_texts, takes_candidates, with_candidates
from lightning_modules.models.files import misfit
from lightning_modules.models.trust import classes_of
from lightning_modules.names import LOSS
from lightning_modules.step_values import FiniteValues, RunningMeans, gradient_norm, health_of, sound
from lightning_modules.students.base import TextEncoder, TextSide
from lightning_modules.teachers.base import Teacher
from lightning_modules.teachers.whitened import WhitenedTeacher, Whitening
from lightning_modules.vectors import in_chunks, projected, to_device
from retrieval.collection import Collection, Side
from strategies.base import INFO_PREFIX, DistillationStrategy, Embeddings
from strategies.distributed import gathered

Scoring = Literal["pooled", "maxsim", "both", "hybrid"]
Projection = Literal["auto", "linear"]
Space = Literal["plain", "whitened"]
Schedule = Literal["linear", "cosine", "constant"]


class DistillationModule(LightningModule):
    """Teaches a student to put the target side of pairs where a frozen teacher puts the source side.

    The teacher is a plain object: it is in no checkpoint, and neither DDP nor FSDP wraps it.

    Args:
        student: the encoder to train.
        teacher: gives the vectors to reach.
        strategy: the distillation loss.
        lr: peak learning rate of all weights but the token tables.
        embedding_lr: peak learning rate of the student's token tables; None means lr, and 0 freezes them, which saves
            their gradient: worth it for a large vocabulary that is kept whole.
        weight_decay: decoupled weight decay of matrices (not of tables, biases, norms and the strategy).
        warmup_steps: optimiser steps over which the learning rates rise from 0.
        schedule: what the learning rates do after that: fall to 0 (``linear``, ``cosine``) or stay (``constant``).
        projection: ``auto`` puts a linear layer after the student where its width is not the teacher's;
            ``linear`` always does.
        score: how evaluation compares texts: ``pooled`` is the cosine of pooled vectors, ``maxsim`` is late
            interaction over tokens, ``both`` reports both, ``hybrid`` is a weighted sum of the two and BM25.
        siamese: the student reads the source side too, with gradient, in place of the teacher: one tower for both
            sides, as a bi-encoder or a late-interaction model (ColBERT) is trained. The student then reads both
            sides of the dev and test collections as well; the teacher is only a row to compare with.
        target_side: what the target side of pairs is read as, ``queries`` or ``documents``; it matters only to encoders
            with prefixes or query augmentation.
        source_side: the same for the source side; None is target_side, or the other one if siamese.
        space: where the student meets the teacher's vectors: ``plain`` as they are, ``whitened`` after a linear map
            that is fitted before the first step and kept in checkpoints; see `Whitening`. A siamese student has none.
        shrinkage: of the whitened space; see `Whitening`.
        chunk_size: texts whose activations are in memory at once; 0 is the whole batch. See `in_chunks`.

    Raises:
        ValueError: an option is out of range.
    """

    def __init__(
        self,
        student: TextEncoder,
        teacher: Teacher,
        strategy: DistillationStrategy,
        lr: float = 1e-3,
        embedding_lr: float | None = None,
        weight_decay: float = 0.0,
        warmup_steps: int = 50,
        schedule: Schedule = "linear",
        projection: Projection = "auto",
        score: Scoring = "pooled",
        siamese: bool = False,
        target_side: TextSide = "queries",
        source_side: TextSide | None = None,
        space: Space = "plain",
        shrinkage: float = 1.0,
        chunk_size: int = 0,
    ) -> None:
        super().__init__()
        # Hyper-parameters are plain values, so that a checkpoint loads with weights_only=True. On the command line
        # they are the whole configuration, and load_from_checkpoint builds student, teacher and strategy from it.
        self.save_hyperparameters(ignore=("student", "teacher", "strategy"))
        if "_instantiator" in self.hparams:  # Lightning's mark for them
            self.save_hyperparameters(logger=False)  # the run folder gives loggers the whole configuration
        check_choice("score", score, get_args(Scoring))
        check_choice("schedule", schedule, get_args(Schedule))
        check_choice("projection", projection, get_args(Projection))
        for name, side in (("target_side", target_side), ("source_side", source_side or target_side)):
            check_choice(name, side, get_args(TextSide))
        check_choice("space", space, get_args(Space))
        check_number("lr", lr, above=0)
        least_0 = {"embedding_lr": embedding_lr or 0, "weight_decay": weight_decay, "warmup_steps": warmup_steps}
        for name, value in (least_0 | {"chunk_size": chunk_size}).items():
            check_number(name, value, least=0)
        self.student, self.teacher, self.distillation = student, teacher, strategy
        self.lr, self.embedding_lr = lr, lr if embedding_lr is None else embedding_lr
        self.weight_decay, self.warmup_steps, self.schedule = weight_decay, warmup_steps, schedule
        self.score: Scoring = score
        self.siamese, self.target_side, self.chunk_size = siamese, target_side, chunk_size
        self.lists = False  # whether the strategy is given candidates: `setup` looks at the data
        opposite: TextSide = "documents" if target_side == "queries" else "queries"
        self.source_side: TextSide = source_side or (opposite if siamese else target_side)
        needs_projection = projection == "linear" or (not siamese and student.dim != teacher.dim)
        self.matrices: set[int] = set()
        self.since_log, self.since_validation = RunningMeans(), RunningMeans()
        self.finite, self.warned = FiniteValues(), set[str]()
        self.projection: nn.Module = nn.Linear(student.dim, teacher.dim) if needs_projection else nn.Identity()
        self.space = Whitening(shrinkage) if space == "whitened" and not siamese else None

    @property
    def teacher_in_space(self) -> Teacher:
        """What the student learns to reach: the teacher, in the whitened space if that was chosen."""
        return self.teacher if self.space is None else WhitenedTeacher(self.teacher, self.space)

    def setup(self, stage: str) -> None:
        """Adapt the student's vocabulary to the data, and let the teacher encode what is not in its cache."""
        data = data_of(self.trainer)
        fits = stage == "fit"
        if not self.siamese:
            data.check_teacher(self.teacher)
        sample = data.sample_pairs() if fits else []
        self.lists = fits and takes_candidates(self.distillation, sample)
        if fits:
            warn_of_lengths(self.distillation, self.score)
            texts = [pair.target for pair in sample] + ([pair.source for pair in sample] if self.siamese else [])
            self.student.adapt_vocabulary(texts + (candidate_texts(sample, self.siamese) if self.lists else []))
            for table in self.student.token_tables():
                table.requires_grad_(self.embedding_lr > 0)
            self.matrices = ids_of_matrices(self)
        self.trainer.strategy.barrier("student")
        self.teacher.stores_new = data.caches_pairs
        trainer: Any = self.trainer
        if trainer.is_global_zero:
            callbacks = [each for each in trainer.callbacks if hasattr(each, "teacher_sides")]
            self.prepare_teacher(data, fits, chain(*(each.teacher_sides(data.collections) for each in callbacks)))
        self.trainer.strategy.barrier("teacher")
        if fits:
            self.student.fit_idf([pair.target for pair in sample], self.target_side)
        evaluated = any(getattr(each, "token_weights", None) == "idf" for each in trainer.callbacks)
        if (fits and self.distillation.needs_weights) or (evaluated and len(self.teacher.uncached.idf) == 0):
            self.teacher.fit_idf([pair.source for pair in sample or data.sample_pairs()], self.source_side)

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        """Add the teacher's IDF, if something needed it, for those who search with the checkpoint."""
        super()._save_to_state_dict(destination, prefix, keep_vars)
        if len(idf := self.teacher.uncached.idf):
            destination[f"{prefix}teacher_idf"] = torch.from_numpy(idf)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        """Give the teacher its IDF, if there is one."""
        if (idf := state_dict.pop(f"{prefix}teacher_idf", None)) is not None:
            self.teacher.uncached.idf = idf.cpu().numpy()
        super()._load_from_state_dict(state_dict, prefix, *args)

    def on_fit_start(self) -> None:
        """Fit the whitened space, on the first rank for all, unless a checkpoint has brought it."""
        if self.space is None or self.space.is_fitted:
            return
        if self.trainer.is_global_zero:
            sources = (pair.source for pair in data_of(self.trainer).sample_pairs())
            with torch.random.fork_rng(devices=[]):  # as in `prepare_teacher`
                self.space.fit(self.teacher, sources, self.source_side)
        self.space.set_extra_state(self.trainer.strategy.broadcast(self.space.get_extra_state()))

    def prepare_teacher(
        self, data: PairsDataModule, fits: bool, collections: Iterable[tuple[TextSide, Mapping[str, str]]]
    ) -> None:
        """Let the teacher encode all that it will be asked for and that is not in its cache.

        Args:
            data: the datamodule, after its setup.
            fits: whether there will be training.
            collections: texts that evaluation will ask for, and what they are read as.
        """
        if self.siamese:
            return
        needs_tokens = (fits and self.distillation.needs_tokens) or self.score != "pooled"
        evaluated, sides = list(collections), self.teacher.sides
        for side in sides:
            texts = teacher_texts(data, evaluated, self.lists, self.source_side, side if len(sides) > 1 else None)
            with torch.random.fork_rng(devices=[]):  # a run repeats whether or not the cache had to load the model
                self.teacher.prepare(texts, tokens=needs_tokens, side=side)

    def reader_of(self, collection: Collection, side: TextSide) -> Side:
        """Who reads one side of a collection: a siamese student both sides of all but the English twins."""
        return "student" if self.siamese and collection.split != "english" else collection.reader(side)

    def forward(self, texts: Sequence[str], tokens: bool = False, side: TextSide = "queries") -> Embeddings:
        """Encode texts into the teacher's space.

        Args:
            texts: B texts.
            tokens: whether to give token states as well.
            side: what the texts are read as.

        Returns:
            Pooled unit vectors (B, D) in the teacher's width D; with ``tokens`` also token states (B, T, D).
        """
        return in_chunks(
            lambda some: {name: to_device(ids, self.device) for name, ids in self.student.tokenize(some, side).items()},
            lambda inputs: projected(self.student(inputs, tokens=tokens), self.projection),
            texts,
            self.chunk_size,
        )

    def training_step(self, batch: PairBatch, batch_idx: int) -> Tensor:  # noqa: ARG002
        """The sum of the strategy's terms for one batch of pairs."""
        tokens = self.distillation.needs_tokens
        student = replace(self(batch.target, tokens, self.target_side), ids=batch.ids, noisy=batch.noisy)
        self.finite.check(student.pooled, "student's output", batch, self.global_step)
        health = health_of(student.pooled, self.student.truncated)
        teacher = replace(self._read_source(batch.source, self.source_side), ids=batch.ids)
        if self.lists:
            student, teacher = with_candidates(
                student,
                teacher,
                batch.candidates,
                read_source=lambda texts: self._read_source(texts, "documents"),
                read_target=lambda texts: self(texts, tokens, "documents"),
            )
        terms: dict[str, Tensor] = self.distillation(student, teacher) | health
        loss = torch.stack([term for name, term in terms.items() if not name.startswith(INFO_PREFIX)]).sum()
        self.finite.check(loss, "loss", batch, self.global_step)
        values = {f"train/{name}": term.detach() for name, term in terms.items()} | {LOSS: loss.detach()}
        for means in (self.since_log, self.since_validation):
            means.add(values)
        # Not for Lightning's bar, which would wait for the device in every step.
        self.log_dict(self.since_log.means(), batch_size=len(batch.target))
        return loss

    def _read_source(self, texts: list[str], side: TextSide) -> Embeddings:
        """Texts as the teacher reads them, or the student, if siamese."""
        tokens = self.distillation.needs_tokens
        teacher = self.teacher_in_space
        return self(texts, tokens, side) if self.siamese else teacher.encode(texts, tokens, self.device, side)

    def on_train_start(self) -> None:
        """Take rates and weight decay from the options: a checkpoint has brought those of the run before."""
        schedule: Any = self.lr_schedulers()
        for number, (group, (rate, decay)) in enumerate(zip(schedule.optimizer.param_groups, self.rates, strict=True)):
            schedule.base_lrs[number] = group["initial_lr"] = rate
            group["lr"] = rate * schedule.lr_lambdas[number](schedule.last_epoch)
            group["weight_decay"] = decay

    def on_train_batch_start(self, batch: PairBatch, batch_idx: int) -> None:  # noqa: ARG002
        """Start the means of the logs again where the last batch was a point of theirs."""
        every: int = self.trainer.log_every_n_steps  # type: ignore[attr-defined]
        self.since_log.start_at(self.global_step // max(1, every))

    def on_before_optimizer_step(self, optimizer: Any) -> None:  # noqa: ARG002
        """Look at the gradients of one step for each point of the logs: reading them is a tenth of a step."""
        if self.global_step % max(1, self.trainer.log_every_n_steps) == 0:  # type: ignore[attr-defined]
            for means in (self.since_log, self.since_validation):
                means.add({"train/info/gradient_norm": gradient_norm(self)})

    def on_validation_epoch_end(self) -> None:
        """Give the means of all steps since the last validation to the history, the progress line and callbacks."""
        if self.trainer.state.fn == "fit" and not self.trainer.sanity_checking:
            self.finite.settle()
            means = sound(self.since_validation.means(), self.warned)
            self.log_dict(means, logger=False, sync_dist=True)
            self.since_validation.start_at(self.global_step)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the means, so that a resumed run goes on with them; the steps up to here were finite."""
        self.finite.settle()
        checkpoint["train_means"] = gathered([self.since_log.state(), self.since_validation.state()])

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Go on with the means; checkpoints of older versions have none."""
        if states := checkpoint.get("train_means"):
            for means, state in zip((self.since_log, self.since_validation), states[self.global_rank], strict=True):
                means.load(state)

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        """Nothing: a callback encodes the collections; one empty batch makes Lightning call it."""

    def test_step(self, batch: Any, batch_idx: int) -> None:
        """As `validation_step`."""

    def load_state_dict(self, *args: Any, **options: Any) -> Any:
        """As torch's; weights that do not fit are an InputError."""
        try:
            return super().load_state_dict(*args, **options)
        except RuntimeError as error:
            raise InputError(f"does not fit the model of the run's config.yaml: {misfit(error)}") from error

    @classmethod
    def load_from_checkpoint(cls, checkpoint_path: Any, *args: Any, **options: Any) -> Any:
        """As Lightning's, with today's class paths; an InputError if it names code from elsewhere (`trusting`)."""
        if isinstance(checkpoint_path, str | Path):
            state = torch.load(checkpoint_path, "cpu", weights_only=options.get("weights_only"), mmap=True)
            options = classes_of(state.get(cls.CHECKPOINT_HYPER_PARAMS_KEY, {}), checkpoint_path) | options
        return super().load_from_checkpoint(checkpoint_path, *args, **options)

    def configure_optimizers(self) -> Any:
        """AdamW with a learning rate of its own for the token tables, and a schedule by steps."""
        built = build_optimiser(self, int(self.trainer.estimated_stepping_batches))
        self.rates = [(group["initial_lr"], group["weight_decay"]) for group in built["optimizer"].param_groups]
        return built


def warn_of_lengths(strategy: DistillationStrategy, score: Scoring) -> None:
    """Say so where the loss sees tokens by their cosines alone, and evaluation pools them."""
    if score != "maxsim" and not strategy.sees_pooled:
        rank_zero_warn(
            f"{type(strategy).__name__} does not look at pooled vectors here, but model.score is {score}: the cosine "
            "of a token does not see its length, so the most frequent tokens grow longest and outweigh the others in "
            "the mean of a text (docs/strategies.md); give it a term on pooled vectors, by a pooled_weight above 0 or "
            "by mse in a weighted_sum, or search with --model.score maxsim"
        )


def teacher_texts(
    data: PairsDataModule,
    collections: Iterable[tuple[TextSide, Mapping[str, str]]],
    lists: bool = False,
    source_side: TextSide = "queries",
    side: TextSide | None = None,
) -> Iterable[str]:
    """Every text that the teacher is to encode before training, in an order that does not change.

    Args:
        data: gives the pairs, whose sources are among the texts unless ``cache_pairs`` says no.
        collections: texts to evaluate with, and what they are read as.
        lists: whether the sources of the pairs' candidates, which are documents, are among the texts.
        source_side: what the sources of the pairs are read as.
        side: only the texts that are read as this; None is both.

    Returns:
        A list with each text once; where texts stay on disk, an iterable that reads them, repeats included.
    """
    pairs = data.pairs if data.caches_pairs else ()
    sources = (pair.source for pair in (pairs if side in (None, source_side) else ()))
    listing = pairs if lists and side in (None, "documents") else ()
    candidates = (candidate.source for pair in listing for candidate in pair.candidates)
    evaluated = [texts for name, texts in collections if side in (None, name)]
    texts = chain(sources, candidates, chain.from_iterable(texts.values() for texts in evaluated))
    in_memory = isinstance(data.pairs, list) and all(isinstance(texts, dict) for texts in evaluated)
    return list(dict.fromkeys(texts)) if in_memory else texts


def build_optimiser(module: Any, total_steps: int) -> dict[str, Any]:
    """AdamW for the parameters of a `DistillationModule`, and its schedule, which Lightning steps with it."""
    tables = {id(weight) for table in module.student.token_tables() for weight in table.parameters()}
    matrices = (module.matrices or ids_of_matrices(module)) - {
        id(weight) for weight in module.distillation.parameters()
    }
    groups: dict[str, dict[str, Any]] = {
        "tables": {"params": [], "lr": module.embedding_lr, "weight_decay": 0.0},
        "matrices": {"params": [], "lr": module.lr, "weight_decay": module.weight_decay},
        "vectors": {"params": [], "lr": module.lr, "weight_decay": 0.0},
    }
    for weight in module.parameters():
        if weight.requires_grad:
            kind = "tables" if id(weight) in tables else "matrices" if id(weight) in matrices else "vectors"
            groups[kind]["params"].append(weight)
    # A fused optimiser unscales gradients itself, and Lightning cannot clip them then.
    fused = module.trainer.precision != "16-mixed"
    optimiser = AdamW([group for group in groups.values() if group["params"]], fused=fused)
    factor = LambdaLR(
        optimiser, lambda step: learning_rate_factor(step, total_steps, module.warmup_steps, module.schedule)
    )
    return {"optimizer": optimiser, "lr_scheduler": {"scheduler": factor, "interval": "step"}}


def ids_of_matrices(module: nn.Module) -> set[int]:
    """The identities of parameters with two dimensions or more; ask before FSDP makes flat shards of them."""
    return {id(weight) for weight in module.parameters() if weight.ndim >= 2}


def learning_rate_factor(step: int, total_steps: int, warmup_steps: int, schedule: Schedule) -> float:
    """The learning rate after some optimiser steps, as a share of its peak.

    >>> [round(learning_rate_factor(step, 10, 2, "linear"), 2) for step in (0, 1, 2, 6, 10)]
    [0.5, 1.0, 1.0, 0.5, 0.0]
    """
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    done = min(1.0, (step - warmup_steps) / max(1, total_steps - warmup_steps))
    if schedule == "linear":
        return 1.0 - done
    return 0.5 * (1.0 + math.cos(math.pi * done)) if schedule == "cosine" else 1.0
