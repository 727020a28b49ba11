"""Signals that end a job: SIGTERM of a scheduler whose time is up, or that was told to cancel; SIGINT of a keyboard."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


def end_in_order() -> None:
    """Let SIGTERM end this process as an error would: what is begun is left in order, and its helpers are ended.

    The exit code is 128 + 15, by which Snakemake sees a job that failed, and starts it again if it may.
    """
    signal.signal(signal.SIGTERM, _exit)


def _exit(number: int, frame: FrameType | None) -> None:
    print(
        f"ssdenoise: ended by {signal.Signals(number).name}, as when time is up or a job is cancelled", file=sys.stderr
    )
    sys.exit(128 + number)


@contextmanager
def postponed() -> Iterator[Callable[[], bool]]:
    """Let signals wait until the block ends; yields whether one came, on which the block should end soon.

    Outside the main thread, which alone gets signals, none ever comes.
    """
    came: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    # what is started in the background may have been told to ignore the keyboard's
    kinds = [kind for kind in (signal.SIGTERM, signal.SIGINT) if signal.getsignal(kind) != signal.SIG_IGN]
    before = {kind: signal.signal(kind, lambda number, _: came.append(number)) for kind in kinds}
    try:
        yield lambda: bool(came)
    finally:
        for kind, handler in before.items():
            signal.signal(kind, handler)
    if came:
        signal.raise_signal(came[0])
