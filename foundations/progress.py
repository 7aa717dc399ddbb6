"""A progress bar that shows itself only when the work takes long."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import Progress


@contextmanager
def delayed_progress(description: str, total: float, delay: float = 2.0) -> Iterator[Callable[[float], None]]:
    """A bar on stderr that appears `delay` seconds after the start, and goes when the work is done.

    Where stderr is not a terminal, nothing is shown.

    Args:
        description: the words next to the bar.
        total: the amount of work, in any unit.
        delay: seconds to wait before the bar is shown; quick work shows nothing. Infinite: no bar.

    Yields:
        A function to call with the amount of work done since the last call.
    """
    start, done = time.monotonic(), 0.0
    progress: Progress | None = None
    task = None

    def advance(amount: float) -> None:
        nonlocal done, progress, task
        done += amount
        if progress is None and time.monotonic() - start > delay:
            console = Console(stderr=True)
            progress = Progress(console=console, transient=True, disable=not console.is_terminal)
            progress.start()
            task = progress.add_task(description, total=total)
        if progress is not None and task is not None:
            progress.update(task, completed=done)

    try:
        yield advance
    finally:
        if progress is not None:
            progress.stop()
