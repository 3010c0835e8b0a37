"""What is exchanged between clients and server, as values: named float32 arrays."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Arrays = dict[str, npt.NDArray[np.float32]]
"""A state or an update: float32 arrays by parameter name."""
