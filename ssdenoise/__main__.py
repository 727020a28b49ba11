"""Command line: what every verb starts and ends with."""

from __future__ import annotations

import importlib
import logging
import os
import resource
import stat
import sys

from ssdenoise.errors import SsdenoiseError
from ssdenoise.interrupt import end_in_order
from ssdenoise.run import DONE, Worker
from ssdenoise.verbs import STAGES, app, told

for verbs in ("data", "train", "denoise", "evaluate", "report", "tools"):  # in the order of `--help`
    importlib.import_module(f"ssdenoise.verbs.{verbs}")

#: Large arrays of a network are handed back to the system and faulted in again at each call by glibc's default
#: settings; these keep them, which made training 1.3 and inference up to 1.9 times faster on a CPU. That holds for the
#: main arena only: threads with arenas of their own, as those of inference, were 1.8 times slower.
MALLOC = {
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": "100000000000",
    "MALLOC_TOP_PAD_": "268435456",
    "MALLOC_ARENA_MAX": "1",
}


def _stage() -> bool:
    """Whether the verb is a stage's."""
    verbs = [one.callback for one in app.registered_commands if one.rich_help_panel == STAGES]
    return sys.argv[1:2] in [[verb.__name__] for verb in verbs if verb]


def main() -> None:
    """Run the command line; a user's mistake is one line and exit code 2."""
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]  # a folder of planes is as many open files
    resource.setrlimit(resource.RLIMIT_NOFILE, (most if 0 < most < 2**16 else 2**16, most))
    if sys.platform == "linux" and not MALLOC.keys() <= os.environ.keys():
        os.environ.update(MALLOC)  # read by the C library when a process starts, hence the new start
        # as it was called: `-m ssdenoise` would look in the current folder first
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stderr)
    end_in_order()
    job = _stage() and stat.S_ISREG(os.fstat(2).st_mode)  # what is told goes to a log
    if job:
        logging.info("%s", Worker.here())  # `status` reads it, and the last line
    try:
        app()
    except SsdenoiseError as error:
        sys.exit(told(error))
    except SystemExit as end:
        if job and not end.code:
            logging.info(DONE)
        raise


if __name__ == "__main__":
    main()
