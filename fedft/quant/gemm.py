"""Matrix products with a dense weight: torch's own, or the faster float32 path where it is exact enough."""

from __future__ import annotations

import threading
from functools import cache
from pathlib import Path

import torch
from torch import Tensor


def times_transposed(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Return ``x Wᵀ + bias`` for ``(n, in)`` and ``(out, in)``."""
    if not (x.dtype == torch.float32 and x.device.type == "cpu" and onednn_float32()):
        return torch.nn.functional.linear(x, weight, bias)
    with _OneDnn():
        return torch.nn.functional.linear(x, weight, bias)


def times(grad: Tensor, weight: Tensor) -> Tensor:
    """Return ``g W`` for ``(n, out)`` and ``(out, in)``."""
    if not (grad.dtype == torch.float32 and grad.device.type == "cpu" and onednn_float32()):
        return grad @ weight
    with _OneDnn():
        return grad @ weight


@cache
def onednn_float32() -> bool:
    """Whether float32 products go through oneDNN instead of torch's default on this processor.

    MKL holds back on AMD processors, where oneDNN was measured at 1.1 (Zen 4) to 2.2 (Zen 5) times its
    speed. The switch that routes there also allows rounding to bfloat16, which a processor with bfloat16
    matrix units would do: so it is used only when a test product comes out with float32's accuracy.
    The vendor decides, not a stopwatch: one machine must always compute the same bits.
    """
    return _vendor() == "AuthenticAMD" and torch.backends.mkldnn.is_available() and _accurate()


def _accurate() -> bool:
    generator = torch.Generator().manual_seed(0)
    a = torch.randn(64, 1024, generator=generator)
    b = torch.randn(128, 1024, generator=generator)
    exact = a.double() @ b.double().T
    with _OneDnn():
        product = a @ b.T
    return bool((product.double() - exact).norm() <= 2e-6 * exact.norm())


def _vendor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(errors="replace").splitlines()
    except OSError:
        return ""
    return next((line.split(":")[1].strip() for line in lines if line.startswith("vendor_id")), "")


class _OneDnn:
    """Routes float32 products to oneDNN while any thread is inside; then puts the process's setting back."""

    _lock = threading.Lock()
    _inside = 0
    _before = ""

    def __enter__(self) -> None:
        settings = torch.backends.mkldnn.matmul  # type: ignore[attr-defined]
        with _OneDnn._lock:
            if _OneDnn._inside == 0:
                _OneDnn._before = settings.fp32_precision
                settings.fp32_precision = "bf16"
            _OneDnn._inside += 1

    def __exit__(self, *_: object) -> None:
        with _OneDnn._lock:
            _OneDnn._inside -= 1
            if _OneDnn._inside == 0:
                torch.backends.mkldnn.matmul.fp32_precision = _OneDnn._before  # type: ignore[attr-defined]
