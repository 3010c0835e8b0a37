"""Fed-SB whose server goes half of the mean's way."""

from __future__ import annotations

import numpy as np

from fedft.methods.fedsb import FedSB
from fedft.tensors import Arrays


class Halfway(FedSB):
    name = "halfway"

    def next_state(self, state: Arrays, mean: Arrays) -> Arrays:
        return {name: state[name] + np.float32(0.5) * mean[name] for name in state}


HALFWAY = Halfway()
