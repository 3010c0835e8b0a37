"""Imported by every Python process that has this folder on its path: a site's worker dies in chosen steps.

FEDFT_DIES_AT lists them, as in "share:3 train:5": asked for that step of that round, the worker is killed.
"""

import os
import signal
import sys
from typing import Any

if any(argument.endswith("worker_process") for argument in sys.orig_argv):
    from fedft.client.worker.worker import Worker

    _answer = Worker._answer

    def _dying(self: Worker, instruction: Any, identity: Any) -> Any:
        if f"{instruction.kind}:{instruction.round.round}" in os.environ["FEDFT_DIES_AT"].split():
            os.kill(os.getpid(), signal.SIGKILL)
        return _answer(self, instruction, identity)

    Worker._answer = _dying  # type: ignore[method-assign]
