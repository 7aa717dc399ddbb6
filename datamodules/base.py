"""The base of all datamodules: pairs to train on, collections to search."""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from itertools import chain, islice
from typing import TYPE_CHECKING, Any, Self, get_args

from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader

from datamodules.english import EnglishPairs, EnglishReport, default_english, with_english
from datamodules.images import ImageReference, is_image
from datamodules.leaks import Leaks, check_leaks
from datamodules.loading import PairLoader, PairSampler, Position, StreamSampler, stream_loader
from datamodules.noise.options import EvaluationNoise, TrainingNoise
from datamodules.pairs import Pair, PairBatch, pair_length
from datamodules.sources import Pairs, PairSource, SampledSource, limited
from foundations.checks import check_choice, check_number
from foundations.errors import InputError
from foundations.progress import delayed_progress
from retrieval.collection import Collection
from retrieval.views import check_views

if TYPE_CHECKING:
    from datamodules.noise.transform import NoiseReport

Collections = dict[str, Collection]
Step = Callable[[Pairs, Collections], tuple[Pairs, Collections, Any]]
"""What `PairsDataModule.setup` does with the data: gives them back, changed or not, and a report or None."""


class PairsDataModule(LightningDataModule):
    """Training pairs and evaluation collections of one dataset.

    A dataset is a subclass with two hooks, `load_pairs` and `load_collections`. They depend on the options alone: each
    can be called without the other, any number of times, and changes nothing. Downloading and unpacking belong into
    `prepare_data` as well, which Lightning calls once on each machine. `setup` loads the data and takes them through
    `steps`. Use a trainer with ``use_distributed_sampler=False``: pairs are shared out over the ranks here.

    A checkpoint holds the position in the training data; a run resumed from it goes on with exactly the batch that
    would have come next, with any number of workers. (The loader alone could not: Lightning drops a loader's
    state where `configure_optimizers` asks for the number of steps.)

    Args:
        batch_size: pairs in a training batch of one device.
        eval_batch_size: texts that are encoded together in an evaluation.
        num_workers: worker processes of the dataloader; 0 reads in the main process, which is enough for texts.
        seed: gives the order of the pairs, and the subset for limit_pairs.
        limit_pairs: train on a random subset of this many pairs, which of streamed pairs come from a random subset of
            the file's parts; on all of them by default.
        bucket: batch pairs of similar length together, which saves most of the padding; see `PairSampler`.
        shuffle_buffer: streamed pairs are shuffled within this many, and the parts of the file as a whole; each worker
            process holds this many in memory.
        cache_pairs: let the teacher encode the source side of all pairs before training, and keep the vectors;
            by default, unless the pairs are streamed. Otherwise it encodes each batch as it comes.
        vocabulary_sample: of streamed pairs, this many at random give the student's vocabulary and token frequencies.
        temperature: of several languages: 1 samples them by size, more evens them out; see `datamodules.mixture`.
        remove_leaks: leave out training pairs that hold a query of ``dev`` or ``test``; see `datamodules.leaks`.
        english: English texts that the student reads as pairs with themselves: ``none``, the ``sources`` of the pairs,
            or also the ``documents``; by default these where the teacher reads them. See `datamodules.english`.
        english_sample: most documents that are read so; of streamed pairs also the most sources.
        noise: put noise into the training pairs that are left by limit_pairs and remove_leaks; see `TrainingNoise`.
        test_noise: put noise into what the student reads of ``test``, and into images; see `EvaluationNoise`.
    """

    leaks: Leaks | None = None
    """Evaluation queries among the training pairs, after `setup`; None where they were not looked for."""
    noise_report: NoiseReport | None = None
    """What noise did to the training pairs, after `setup`; None where none was asked for."""
    english_report: EnglishReport | None = None
    """What the student reads in English, after `setup`; None where it reads nothing."""
    pairs: Pairs
    """The training pairs, after `setup`; a `PairSource` if they are streamed."""
    collections: dict[str, Collection]
    """``dev``, ``test`` and, where there is one, ``english`` (the English twin of ``test``), after `setup`; of several
    languages ``dev/sw``, ``test/sw``, ``dev/so`` and so on."""

    def __init__(
        self,
        batch_size: int = 64,
        eval_batch_size: int = 256,
        num_workers: int = 0,
        seed: int = 0,
        limit_pairs: int | None = None,
        bucket: bool = True,
        shuffle_buffer: int = 131072,
        cache_pairs: bool | None = None,
        vocabulary_sample: int = 200_000,
        temperature: float = 1.0,
        remove_leaks: bool = True,
        english: EnglishPairs | None = None,
        english_sample: int = 20_000,
        noise: TrainingNoise | None = None,
        test_noise: EvaluationNoise | None = None,
    ) -> None:
        super().__init__()
        self.batch_size, self.eval_batch_size = batch_size, eval_batch_size
        self.num_workers, self.seed, self.limit_pairs = num_workers, seed, limit_pairs
        self.bucket, self.temperature = bucket, temperature
        self.shuffle_buffer, self.cache_pairs = shuffle_buffer, cache_pairs
        self.vocabulary_sample, self.remove_leaks = vocabulary_sample, remove_leaks
        self.english, self.english_sample = english, english_sample
        if english is not None:
            check_choice("english", english, get_args(EnglishPairs))
        self.noise, self.test_noise = noise, test_noise
        check_number("limit_pairs", 1 if limit_pairs is None else limit_pairs, least=1)
        for name in ("batch_size", "eval_batch_size", "shuffle_buffer", "vocabulary_sample", "english_sample"):
            check_number(name, getattr(self, name), least=1)
        check_number("num_workers", num_workers, least=0)
        check_number("temperature", min(temperature, sys.float_info.max), above=0)  # it may be infinite
        self._resumed = Position()
        self._is_loaded = False

    def load_pairs(self) -> Pairs:
        """Hook: read the training pairs, or open them."""
        raise NotImplementedError

    def load_collections(self) -> Collections:
        """Hook: read the collections ``dev`` and ``test``, and ``english`` where there is one."""
        raise NotImplementedError

    def prepare_data(self) -> None:
        """Hook: download and unpack what the data are made of, into the cache.

        Lightning calls it once on each machine; a script without a trainer may, but need not: loading does the same.
        """

    def load(self) -> tuple[Pairs, Collections]:
        """The pairs and the collections as they are in the dataset.

        Raises:
            InputError: there is no pair, or a collection without queries, documents or relevant documents.
        """
        pairs = self.load_pairs()
        if not pairs:
            raise InputError("found no training pair, expected at least one")
        collections = self.load_collections()
        for collection in collections.values():
            _check_collection(collection)
        return pairs, collections

    def steps(self, stage: str | None) -> dict[str, Step]:
        """What is done to the loaded data, in this order: functions of pairs and collections, by name."""
        leaks = {} if stage == "test" else {"leaks": self.check_leaks}
        english = {} if stage == "test" else {"english": self.add_english}
        return {"limit": self.limit, **leaks, "noise": self.add_noise, **english, "test_noise": self.add_test_noise}

    def setup(self, stage: str | None = None) -> None:
        """Load pairs and collections and take them through `steps`, the first time."""
        self._resumed = Position()
        if self._is_loaded:
            return
        pairs, collections = self.load()
        reports = {}
        for name, step in self.steps(stage).items():
            pairs, collections, reports[name] = step(pairs, collections)
        self.pairs, self.collections = pairs, collections
        self.leaks, self.noise_report = reports.get("leaks"), reports["noise"]
        self.english_report = reports.get("english")
        self._is_loaded = True

    def limit(self, pairs: Pairs, collections: Collections) -> tuple[Pairs, Collections, None]:
        """Step: a random choice of ``limit_pairs`` pairs."""
        return limited(pairs, self.limit_pairs, self.seed), collections, None

    def check_leaks(self, pairs: Pairs, collections: Collections) -> tuple[Pairs, Collections, Leaks | None]:
        """Step: look for evaluation queries among the pairs, and drop those where ``remove_leaks`` says so.

        A published index file of noise counts all pairs, so there they stay.
        """
        counted = self.noise is not None and self.noise.index_file is not None
        pairs, leaks = check_leaks(pairs, collections, self.remove_leaks and not counted)
        return pairs, collections, leaks

    def add_noise(self, pairs: Pairs, collections: Collections) -> tuple[Pairs, Collections, NoiseReport | None]:
        """Step: put noise into the pairs, where it was asked for; see `datamodules.noise.transform.noisy_pairs`."""
        from datamodules.noise.transform import noisy_pairs

        if self.noise is None:
            return pairs, collections, None
        noise = self.noise if self.noise.seed is not None else replace(self.noise, seed=self.seed)
        noisy, report = noisy_pairs(pairs, noise)
        return noisy, collections, report

    def add_english(self, pairs: Pairs, collections: Collections) -> tuple[Pairs, Collections, EnglishReport | None]:
        """Step: add English texts as pairs with themselves; see `datamodules.english`."""
        english = default_english(pairs, collections) if self.english is None else self.english
        added, report = with_english(pairs, collections, english, self.english_sample, self.seed)
        return added, collections, report

    def add_test_noise(self, pairs: Pairs, collections: Collections) -> tuple[Pairs, Collections, None]:
        """Step: put noise into ``test``, where it was asked for; see `noisy_collections`."""
        from datamodules.noise.transform import noisy_collections

        noisy = collections if self.test_noise is None else noisy_collections(collections, self.test_noise)
        return pairs, noisy, None

    def with_attributes(self, **attributes: Any) -> Self:
        """A copy with other options or data, such as ``seed=1``; what is loaded is shared."""
        changed = copy.copy(self)
        vars(changed).update(attributes)
        return changed

    @property
    def caches_pairs(self) -> bool:
        """Whether the teacher encodes the pairs' sources before training; see the option ``cache_pairs``."""
        return not isinstance(self.pairs, PairSource) if self.cache_pairs is None else self.cache_pairs

    def check_teacher(self, teacher: Any) -> None:
        """Refuse a teacher that cannot teach these data; after `setup`, and before anything is written.

        Raises:
            InputError: it reads texts only, but is to read an image.
        """
        if not getattr(teacher, "reads_images", True) and (image := self.first_image()) is not None:
            raise InputError(
                "the teacher reads texts only, but is to read this image: take a teacher of images, such as "
                "--teacher open_clip:ARCHITECTURE/WEIGHTS",
                ImageReference.parse(image).path,
            )

    def first_image(self) -> str | None:
        """The first image that the teacher reads, if any; of streamed pairs and collections the first text counts."""
        pairs = self.pairs if isinstance(self.pairs, list) else islice(iter(self.pairs), 1)
        texts = (
            islice(texts.values(), 1)
            for each in self.collections.values()
            for side, texts in ((each.query_side, each.queries), (each.document_side, each.documents))
            if side == "teacher"
        )
        everything = chain((pair.source for pair in pairs), chain.from_iterable(texts))
        return next((text for text in everything if is_image(text)), None)

    def sample_pairs(self) -> list[Pair]:
        """All pairs, or of streamed ones a random sample of ``vocabulary_sample``, the same for a seed."""
        if not isinstance(self.pairs, PairSource):
            return self.pairs
        rows = min(self.vocabulary_sample, len(self.pairs))
        pairs = SampledSource(self.pairs, rows, self.seed)
        with delayed_progress("sample pairs", rows) as advance:
            return [pair for pair in pairs if advance(1) is None]

    def train_dataloader(self) -> DataLoader[PairBatch]:
        """Batches of training pairs, from the position of the run."""
        if isinstance(self.pairs, PairSource):
            return stream_loader(
                self.pairs, self.batch_size, self.seed, *self._rank(), self.shuffle_buffer, self.bucket,
                self.num_workers, self._position,
            )  # fmt: skip
        return PairLoader(self.pairs, self._sampler(self.bucket), self.num_workers, self._position)

    def _sampler(self, bucket: bool) -> PairSampler:
        if isinstance(self.pairs, PairSource):
            return StreamSampler(self.pairs, self.batch_size, self.seed, *self._rank())
        lengths = [pair_length(pair) for pair in self.pairs] if bucket else None
        return PairSampler(len(self.pairs), self.batch_size, self.seed, *self._rank(), lengths=lengths)

    def val_dataloader(self) -> Sequence[int]:
        """One empty batch, so that there is a validation: its callback encodes the collections ``dev``, whole."""
        return self._empty_batches("dev")

    def test_dataloader(self) -> Sequence[int]:
        """One empty batch for a test, as for a validation."""
        return self._empty_batches("test")

    def _empty_batches(self, split: str) -> Sequence[int]:
        return range(int(any(collection.split == split for collection in self.collections.values())))

    def _rank(self) -> tuple[int, int]:
        """This process, and how many there are."""
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer is not None else (0, 1)

    def _position(self) -> Position:
        """Where the run is: what was loaded until the trainer is set up, then what the trainer has counted."""
        batches_in_epoch = self.trainer.num_training_batches if self.trainer is not None else float("inf")
        if self.trainer is None or batches_in_epoch == float("inf"):
            return self._resumed
        done: int = self.trainer.fit_loop.epoch_loop.batch_progress.total.processed  # type: ignore[attr-defined]
        return Position(*divmod(done, int(batches_in_epoch)))

    def state_dict(self) -> dict[str, Any]:
        """The position in the training data, for a checkpoint."""
        if self.trainer is None or self.trainer.num_training_batches in (0, float("inf")):
            return {}
        position = self._position()
        return asdict(position) | {"batches_in_epoch": len(self._sampler(bucket=False))}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from the position in a checkpoint.

        Raises:
            InputError: the checkpoint was written in mid-epoch with other pairs, batch size or number of devices.
        """
        if not state_dict:
            return
        now, then = len(self._sampler(bucket=False)), state_dict["batches_in_epoch"]
        if state_dict["batches"] and now != then:
            raise InputError(
                f"cannot resume in mid-epoch: an epoch had {then} batches when the checkpoint was written, and has "
                f"{now} now; use the same data, batch_size and number of devices"
            )
        self._resumed = Position(state_dict["epoch"], state_dict["batches"])


def _check_collection(collection: Collection) -> None:
    """Raise InputError for a collection without queries, documents or relevant documents."""
    is_relevant = any(grade > 0 for grades in collection.qrels.values() for grade in grades.values())
    kinds = {"query": collection.queries, "document": collection.documents, "relevant document": is_relevant}
    for what, content in kinds.items():
        if not content:
            raise InputError(f"the collection {collection.name!r} has no {what}, expected at least one")
    check_views(collection)
    if {collection.query_side, collection.document_side} == {"teacher"} and collection.split != "english":
        raise ValueError(
            f"collection {collection.name!r}: the teacher reads queries and documents, so nothing is left for the "
            "student; set query_side or document_side to 'student'"
        )
