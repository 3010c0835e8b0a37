"""The command with a clock that is wrong by as many seconds as a file says: python -m ... FILE ARGUMENTS"""

from __future__ import annotations

import sys
from datetime import datetime, timedelta
from pathlib import Path

from fedft import clock
from fedft.cli.main import main


class JumpingClock(clock.SystemClock):
    def __init__(self, offset: Path) -> None:
        self._offset = offset

    def now(self) -> datetime:
        return super().now() + timedelta(seconds=float(self._offset.read_text() or 0))


if __name__ == "__main__":
    path = Path(sys.argv.pop(1))
    with clock.use(JumpingClock(path)):
        main()
