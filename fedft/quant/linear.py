"""The frozen linear layer on a quantised weight: a base that adapters can sit on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from fedft.errors import Code, FedftError
from fedft.quant.dense import is_plain
from fedft.quant.interface import QuantFormat, StoredWeight


class QuantisedLinear(nn.Module):
    """``y = x Wᵀ + bias`` with W in few bits.

    The arithmetic is in the dtype of x (float32, bfloat16, float16). Nothing but the weight is kept for
    backward, and no mode or call changes the stored weight. In a state dict the parts of the weight are
    called ``weight`` and ``weight.…``, as the format names them.

    Args:
        format: that the weight is in.
        stored: the weight, ``(out, in)``.
        bias: ``(out,)`` or None; frozen.
        compute_dtype: of the inputs; ``model.to(dtype)`` changes it and leaves the stored weight alone.

    """

    bias: nn.Parameter | None

    def __init__(
        self, format: QuantFormat, stored: StoredWeight, bias: Tensor | None, compute_dtype: torch.dtype
    ) -> None:
        super().__init__()
        self.format = format
        self.stored = stored
        self.out_features, self.in_features = stored.shape
        self.compute_dtype = compute_dtype
        frozen = None if bias is None else nn.Parameter(bias.detach().to(compute_dtype), requires_grad=False)
        self.register_parameter("bias", frozen)

    @classmethod
    def of(cls, module: nn.Module, format: QuantFormat) -> Self:
        """Quantise an ``nn.Linear`` or transformers' ``Conv1D``; it computes in the module's dtype.

        Raises:
            FedftError: FEDFT-9013 (another module), FEDFT-9010 (a weight is not finite).

        """
        if not is_plain(module):
            raise FedftError(
                Code.MODULE_NOT_QUANTISABLE, f"a module of class {type(module).__name__} cannot be quantised"
            )
        weight: Tensor = module.weight  # type: ignore[assignment]
        matrix = weight.T.contiguous() if isinstance(module, Conv1D) else weight
        bias: Tensor | None = module.bias  # type: ignore[assignment]
        return cls(format, format.quantise(matrix), bias, weight.dtype).train(module.training)

    @property
    def device(self) -> torch.device:
        """Where the weight lies."""
        return self.stored.device

    @property
    def weight(self) -> Tensor:
        """The dense matrix, made afresh at every access."""
        return self.dense_weight()

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(..., in)`` to ``(..., out)`` in the dtype of x."""
        return self.stored.matmul(
            x, transposed=True, bias=None if self.bias is None else self.bias.to(x.dtype)
        )

    def input_gradient(self, grad: Tensor) -> Tensor:
        """Return ``grad W``, ``(..., in)``, in the dtype of ``grad``."""
        return self.stored.matmul(grad, transposed=False)

    def dense_weight(self) -> Tensor:
        """Return W, ``(out, in)``, in the compute dtype."""
        return self.stored.dequantise(self.compute_dtype)

    def extra_repr(self) -> str:
        """Show the shape, as ``nn.Linear`` does."""
        size = f"in_features={self.in_features}, out_features={self.out_features}"
        return f"{size}, bias={self.bias is not None}, {self.format.name}"

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        probe = fn(torch.empty(0, dtype=self.compute_dtype, device=self.device))
        self.compute_dtype = probe.dtype
        self.stored = self.stored.to(probe.device)  # whatever the dtype, what is stored stays
        return self

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        for name, part in self.stored.state().items():
            destination[f"{prefix}weight.{name}" if name else f"{prefix}weight"] = part

    def _load_from_state_dict(
        self,
        state_dict: dict[str, Any],
        prefix: str,
        local_metadata: dict[str, Any],
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        super()._load_from_state_dict(
            state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs
        )
        key = f"{prefix}weight"
        own = {k: v for k, v in state_dict.items() if k == key or k.startswith(f"{key}.")}
        unexpected_keys[:] = [k for k in unexpected_keys if k not in own]
        if key not in own:
            missing_keys.append(key)
            return
        loaded = self.format.read({k[len(key) + 1 :]: v for k, v in own.items()})
        if loaded.shape != self.stored.shape:
            error_msgs.append(f"{key} is {loaded.shape}, the layer's is {self.stored.shape}")
            return
        self.stored = loaded.to(self.device)
