"""A model whose parameters have no memory yet, and filling it with what files hold."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from fedft.errors import Code, FedftError
from fedft.quant.interface import QuantFormat, StoredWeight
from fedft.quant.linear import QuantisedLinear

_OLD_NAMES = {"LayerNorm.gamma": "LayerNorm.weight", "LayerNorm.beta": "LayerNorm.bias"}


def build(
    folder: Path, auto_class: Any, dtype: torch.dtype | None, changes: Mapping[str, Any]
) -> tuple[Any, torch.dtype]:
    """Make the model that config.json describes, its parameters on the meta device; buffers are real.

    Args:
        folder: with config.json.
        auto_class: such as ``AutoModelForCausalLM``.
        dtype: of the arithmetic; None: what the configuration says.
        changes: configuration entries to replace, such as ``num_labels``.

    Raises:
        FedftError: FEDFT-9012 when there is no usable configuration.

    """
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(folder, **changes)
    except (OSError, ValueError) as error:
        raise FedftError(Code.QUANTISED_FILES_INVALID, f"no model in {folder}: {error}") from error
    if dtype is None:
        dtype = config.dtype if isinstance(config.dtype, torch.dtype) else torch.float32
    with _parameters_on_meta():
        model = auto_class.from_config(config, dtype=dtype)
    model.tie_weights()  # one parameter under two names, as in a model that was loaded
    return model, dtype


class Names:
    """Finds what a name in a checkpoint is called in a model, as transformers does when it loads.

    A checkpoint of the body alone lacks the body's prefix, one with a head has a prefix that the body
    lacks, and old ones call a norm's parameters gamma and beta.
    """

    def __init__(self, model: Any) -> None:
        self._known = {name for name, _ in model.named_parameters(remove_duplicate=False)}
        self._known |= {name for name, _ in model.named_buffers(remove_duplicate=False)}
        self._prefix = f"{getattr(model, 'base_model_prefix', '')}."

    def find(self, name: str) -> str | None:
        """Return the model's name; None when the model has nothing of that name."""
        for old, new in _OLD_NAMES.items():
            name = f"{name.removesuffix(old)}{new}" if name.endswith(old) else name
        candidates = (name, self._prefix + name, name.removeprefix(self._prefix))
        return next((each for each in candidates if each in self._known), None)


def fill(
    model: Any,
    state: dict[str, Tensor],
    weights: Mapping[str, StoredWeight],
    format: QuantFormat,
    dtype: torch.dtype,
) -> list[str]:
    """Put tensors and quantised weights into a model that ``build`` made; freeze it, in evaluation mode.

    Args:
        model: changed in place.
        state: dense tensors under the model's names. One outside the body whose shape is another (a head
            for other classes) is left out.
        weights: by the names of their modules.
        format: that they are in.
        dtype: that their layers compute in.

    Returns:
        The names of the parameters that neither has, sorted; they are zero.

    Raises:
        FedftError: FEDFT-9012 when a weight or a bias does not fit the model.

    """
    modules = dict(model.named_modules())
    for name, weight in weights.items():
        module = modules.get(name)
        if not isinstance(module, (nn.Linear, Conv1D)) or weight.shape != shape_of(module):
            raise FedftError(
                Code.QUANTISED_FILES_INVALID, f"the files hold {name} of {weight.shape}, the model does not"
            )
        bias = state.pop(f"{name}.bias", None)
        if (bias is None) != (module.bias is None):
            raise FedftError(
                Code.QUANTISED_FILES_INVALID, f"the files and the model disagree about a bias of {name}"
            )
        parent, _, child = name.rpartition(".")
        setattr(model.get_submodule(parent), child, QuantisedLinear(format, weight, bias, dtype))
    model.load_state_dict(_fitting(model, state), strict=False, assign=True)
    model.tie_weights()
    missing = [name for name, parameter in model.named_parameters() if parameter.is_meta]
    for name in missing:
        module = model.get_submodule(name.rpartition(".")[0])
        empty = torch.zeros(model.get_parameter(name).shape, dtype=dtype)
        module.register_parameter(name.rpartition(".")[2], nn.Parameter(empty))
    model.requires_grad_(False).eval()
    return sorted(missing)


def shape_of(module: nn.Linear | Conv1D) -> tuple[int, int]:
    """Return (out, in)."""
    rows, columns = module.weight.shape
    return (columns, rows) if isinstance(module, Conv1D) else (rows, columns)


def _fitting(model: Any, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return what has the model's shapes."""
    own: Iterable[tuple[str, Tensor]] = (
        *model.named_parameters(remove_duplicate=False),
        *model.named_buffers(remove_duplicate=False),
    )
    shapes = {name: tensor.shape for name, tensor in own}
    return {name: tensor for name, tensor in state.items() if tensor.shape == shapes.get(name)}


@contextmanager
def _parameters_on_meta() -> Iterator[None]:
    """Make modules whose parameters have no memory; buffers, which files may lack, are real."""
    register = nn.Module.register_parameter

    def on_meta(self: nn.Module, name: str, param: nn.Parameter | None) -> None:
        register(self, name, None if param is None else nn.Parameter(param.to("meta"), param.requires_grad))

    nn.Module.register_parameter = on_meta  # type: ignore[method-assign]
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        nn.Module.register_parameter = register  # type: ignore[method-assign]
