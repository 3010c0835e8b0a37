"""The audit log: who changed what and when, appended to a hash chain and never altered."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

from fedft import clock
from fedft.store.hash_chain import Entry, HashChain


class AuditLog:
    """The chain at ``path``, made when it is not there and neither is its head file.

    An entry is on disk when ``write`` returns. The chain shows removed and altered entries to whoever
    noted an earlier digest; it cannot stop the server's own administrator from rewriting it whole.
    """

    def __init__(self, path: Path) -> None:
        self._chain = HashChain(path)
        self._lock = threading.Lock()
        if not path.exists() and not path.with_name(path.name + ".head").exists():
            self._chain.create()

    def write(self, who: str, what: str, **details: Any) -> None:
        """Append an entry; FEDFT-8201 to 8208 when the chain is missing, damaged or cannot be written."""
        time = clock.now().isoformat(timespec="milliseconds")
        with self._lock:
            self._chain.read()  # the head file too, which appending alone does not look at
            self._chain.append(lambda _: {"time": time, "who": who, "what": what, **details})

    def entries(self, last: int = 0) -> list[dict[str, Any]]:
        """Verify the whole chain and return its last entries, oldest first; all for 0."""
        found: list[Entry] = HashChain(self._chain.path).read()
        return [
            {"sequence": entry.sequence, **entry.body, "digest": entry.digest}
            for entry in found[-last if last else 0 :]
        ]
