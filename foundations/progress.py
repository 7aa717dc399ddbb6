"""A progress bar that shows itself only when the work takes long, or lines of a log where nobody sees bars."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

LOG_SECONDS = 30.0
"""Seconds between the lines of a log."""

_live: list[str] = []  # the description of the work that has a bar or lines now


@contextmanager
def delayed_progress(description: str, total: float, delay: float = 2.0) -> Iterator[Callable[[float], None]]:
    """A bar on stderr that appears `delay` seconds after the start, and goes when the work is done.

    Where stderr is not a terminal, a line every half minute takes its place. Of work within other work
    only the one that takes long first is shown.

    Args:
        description: the words next to the bar.
        total: the amount of work, in any unit.
        delay: seconds to wait before the bar is shown; quick work shows nothing. Infinite: neither bar nor lines.

    Yields:
        A function to call with the amount of work done since the last call.
    """
    start = logged = time.monotonic()
    done, mine = 0.0, False
    console: Console | None = None
    progress: Progress | None = None
    task = None

    def advance(amount: float) -> None:
        nonlocal console, done, mine, progress, task, logged
        done += amount
        now = time.monotonic()
        if now - start <= delay or (_live and not mine):
            return
        if not mine:
            mine = True
            _live.append(description)
        from rich.console import Console  # quick work need not wait for it
        from rich.progress import Progress

        console = console or Console(stderr=True)
        if not console.is_terminal:
            if now - logged >= LOG_SECONDS:
                logged = now
                print(_line(description, done / max(total, done), now - start), file=sys.stderr, flush=True)
            return
        if progress is None:
            progress = Progress(console=console, transient=True)
            progress.start()
            task = progress.add_task(description, total=total)
        if task is not None:
            progress.update(task, completed=done)

    try:
        yield advance
    finally:
        if progress is not None:
            progress.stop()
        if mine:
            _live.remove(description)


def _line(description: str, share: float, seconds: float) -> str:
    """E.g. ``teacher: encode texts: 25 %, 60 s so far, about 180 s to go``."""
    left = f", about {seconds * (1 - share) / share:.0f} s to go" if 0 < share < 1 else ""
    return f"{description}: {share:.0%}, {seconds:.0f} s so far{left}"
