"""Loggers by name: W&B (offline when not logged in), CSV, TensorBoard."""

from __future__ import annotations

import contextlib
import netrc
import os
import re
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import urlopen

from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger, WandbLogger
from lightning.pytorch.utilities import rank_zero_only, rank_zero_warn

from foundations.checks import check_choice
from lightning_modules.lightning_private import drop_anonymous
from lightning_modules.names import LOGGERS
from retrieval.results import AVERAGE, LABELS, averages

_PATIENCE = 25.0
"""Seconds that a run waits for a logger."""

_CHOSEN_DATA_DIR = os.environ.get("WANDB_DATA_DIR")


def parse_names(names: str) -> list[str]:
    """The loggers in ``wandb,csv``, without W&B if WANDB_MODE is ``disabled``; a ValueError for an unknown one."""
    parsed = dict.fromkeys(name.strip() for name in names.split(",") if name.strip())
    for name in parsed:
        check_choice("logger", name, LOGGERS)
    off = ("none", "wandb") if os.environ.get("WANDB_MODE") == "disabled" else ("none",)
    return [name for name in parsed if name not in off]


def make_loggers(names: str, folder: Path) -> list[Logger]:
    """Build loggers, named as in ``wandb,csv``, that write into a run folder."""
    makers: dict[str, Callable[[Path], Logger]] = {
        # A version for each part of a run: in the folder of an earlier part Lightning would delete its lines.
        "csv": lambda folder: CSVLogger(folder, name="csv"),
        "tensorboard": lambda folder: TensorBoardLogger(folder, name="tensorboard", version=""),
        "wandb": _wandb,
    }
    return [_forgiving(makers[name](folder), name) for name in parse_names(names)]


def _forgiving(logger: Logger, name: str) -> Logger:
    """The logger, which ends with a warning when it fails, or does not answer in time, and lets the run go on."""

    def guarded(method: Callable[..., Any]) -> Callable[..., None]:
        def call(*arguments: Any, **options: Any) -> None:
            if not getattr(logger, "has_failed", False) and (why := _within(lambda: method(*arguments, **options))):
                logger.has_failed = True  # type: ignore[attr-defined]
                rank_zero_warn(f"the logger {name} ends here, the run goes on: {why}")

        return call

    for each in ("log_metrics", "log_hyperparams", "save", "finalize"):
        setattr(logger, each, guarded(getattr(logger, each)))
    return logger


def _within(call: Callable[[], Any]) -> str:
    """Make a call in a thread; what went wrong, which may be that it took too long."""
    problem: list[str] = []

    def caught() -> None:
        try:
            call()
        except Exception as error:
            problem.append(f"{type(error).__name__}: {error}")

    thread = threading.Thread(target=caught, daemon=True)
    thread.start()
    thread.join(_PATIENCE)
    return f"no answer within {_PATIENCE:.0f} s" if thread.is_alive() else "".join(problem)


def _wandb(folder: Path, failed: bool = False) -> Logger:
    os.environ.setdefault("WANDB_SILENT", "true")
    if _CHOSEN_DATA_DIR is None:
        os.environ["WANDB_DATA_DIR"] = str(folder / "wandb")  # there is not always a home folder to write to
    offline = failed or is_offline()
    is_first = rank_zero_only.rank == 0  # type: ignore[attr-defined]
    if is_first and not offline and (why := _unreachable()):
        rank_zero_warn(f"W&B is offline in this run, its server does not answer: {why}")
        offline = True
    if is_first:
        (folder / "wandb").mkdir(parents=True, exist_ok=True)  # without it W&B writes to the temporary folder
    logger = WandbLogger(
        project=os.environ.get("WANDB_PROJECT", "potstill"),
        name=os.environ.get("WANDB_NAME") or folder.name,
        id=run_id(folder) if is_first and not failed else None,  # the other ranks write nothing
        save_dir=folder,
        offline=offline,
        resume=None if offline else os.environ.get("WANDB_RESUME") or "allow",
        settings={"init_timeout": _PATIENCE, "finish_timeout": _PATIENCE},
        mode="offline" if offline else None,
    )
    drop_anonymous(logger)
    if is_first and not offline and (why := _within(lambda: logger.experiment)):
        rank_zero_warn(f"W&B is offline in this run, it did not begin: {why}")
        return _wandb(folder, failed=True)
    return logger


def _unreachable() -> str:
    """Why W&B's server does not answer, at all; empty where it does."""
    import wandb

    try:
        urlopen(wandb.setup().settings.base_url, timeout=10).close()
    except HTTPError:  # an answer
        return ""
    except (OSError, ValueError) as error:
        return str(error)
    return ""


def run_id(folder: Path) -> str:
    """One id for all parts of a run, kept in its folder; the SLURM job's is in it, by the name of the folder.

    ``WANDB_RUN_ID`` takes its place, and is not kept.
    """
    if chosen := os.environ.get("WANDB_RUN_ID"):
        return chosen
    file = folder / "wandb_id"
    if not file.is_file():
        import uuid

        name = f"{re.sub(r'[^A-Za-z0-9_-]', '-', folder.name)}-{uuid.uuid4().hex[:8]}"
        folder.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileExistsError), file.open("x", encoding="utf-8") as stream:
            stream.write(name)
    return file.read_text(encoding="utf-8").strip()


def is_offline() -> bool:
    """Whether W&B is not to use the network: WANDB_MODE says so, or nobody is logged in. It must never prompt."""
    mode = os.environ.get("WANDB_MODE")
    if mode is not None:
        return mode != "online"
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return False
    host = urlsplit(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).hostname or ""
    try:
        # `wandb login` keeps the key in this file.
        return netrc.netrc(os.environ.get("NETRC")).authenticators(host) is None
    except (OSError, netrc.NetrcParseError):
        return True


def log_values(loggers: list[Logger], values: dict[str, float], plots: list[Path]) -> None:
    """Log values that do not change during training, and plots (PNG files), where a logger can show them."""
    for logger in loggers:
        if isinstance(logger, WandbLogger):
            _to_wandb(logger, {}, plots, values)
        elif isinstance(logger, TensorBoardLogger):
            logger.log_metrics(values, 0)


def log_results(loggers: list[Logger], means: dict[str, dict[str, dict[str, float]]], plots: list[Path]) -> None:
    """Log the final table and the plots (PNG files) to the W&B run, and end it; see `by_language` for the means."""
    for logger in loggers:
        if isinstance(logger, WandbLogger):
            import wandb

            columns, data = result_table(means)
            table = {"results": wandb.Table(columns=columns, data=data)}
            _to_wandb(logger, table, plots, finish=True)


def _to_wandb(
    logger: WandbLogger, values: dict[str, Any], plots: list[Path], summary: Any = None, finish: bool = False
) -> None:
    """Send values, plots and a summary, and perhaps end the run: a later one in this process would go on with it."""
    if getattr(logger, "has_failed", False):
        return
    import wandb

    def call() -> None:
        logger.experiment.summary.update(summary or {})
        logger.experiment.log(values | {f"plots/{plot.stem}": wandb.Image(str(plot)) for plot in plots})
        if finish:
            logger.experiment.finish()

    if why := _within(call):
        logger.has_failed = True  # type: ignore[attr-defined]
        rank_zero_warn(f"the logger wandb ends here, the run goes on: {why}")


def result_table(means: dict[str, dict[str, dict[str, float]]]) -> tuple[list[str | int], list[list[Any]]]:
    """Columns and lines of the final table; with several languages, a line for each and for the average."""
    has_languages = list(means) != [""]
    lines = means | ({AVERAGE: averages(means)} if has_languages else {})
    metrics = list(dict.fromkeys(metric for rows in means.values() for row in rows.values() for metric in row))
    data = [
        [row, *([language] if has_languages else []), *(rows[row].get(metric) for metric in metrics)]
        for row in LABELS
        for language, rows in lines.items()
        if row in rows
    ]
    return ["system", *(["language"] if has_languages else []), *metrics], data
