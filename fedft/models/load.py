"""Loading a frozen base model and its tokenizer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from fedft.config.schema import ModelSection, TaskSection
from fedft.errors import Code, FedftError
from fedft.models.digest import weights_digest
from fedft.models.plain import NO_CODE, PLAIN, require_plain
from fedft.models.pooled import CENTER, with_pooled_head
from fedft.models.pooling import pooling_of
from fedft.models.quantised import load_stored, refuse_quantised
from fedft.models.sources import resolve_source
from fedft.registries import TASKS

Tokenizer = Any
"""A transformers tokenizer; what its loaders return has no type."""

_loads = 0


@dataclass(frozen=True)
class BaseModel:
    """A frozen base.

    Attributes:
        model: on ``model.device``, in evaluation mode (no dropout), no parameter requiring a gradient.
        tokenizer: with a padding token.
        digest: SHA-256 of the weights as they lie in memory, quantised or not, without the head: what all
            clients must agree on.
        head: names of the classification head's parameters; empty for a causal LM.
        measured: those of them that are measured and not trained (``head.center``).

    """

    model: nn.Module
    tokenizer: Tokenizer
    digest: str
    head: tuple[str, ...]
    measured: tuple[str, ...] = ()

    @property
    def vocabulary(self) -> int:
        """How many token ids the model knows."""
        embeddings: nn.Embedding = self.model.get_input_embeddings()  # type: ignore[operator]
        return embeddings.num_embeddings


def load_count() -> int:
    """How many base models this process has loaded."""
    return _loads


def load_base(model: ModelSection, task: TaskSection, seed: int) -> BaseModel:
    """Load the base model that a run names; every process gets the same bits.

    A classification head that the checkpoint lacks is drawn from ``seed``, which the run derives for
    this use. The global random state is left as it was.

    Raises:
        FedftError: FEDFT-2001 no such model, FEDFT-2002 the files or the hub failed, FEDFT-2003 the
            checkpoint lacks weights of the base, FEDFT-2004 no usable padding or end token, FEDFT-2005 the
            weights are stored otherwise than model.quant says, FEDFT-2006 no such device, FEDFT-2008 and
            2009 code of its own, weights that are no safetensors; with a quantised base also what
            ``fedft.quant`` raises.

    """
    global _loads
    place, device = resolve_source(model.source), _device(model)
    try:
        require_plain(place, model.revision)
        with torch.random.fork_rng(devices=[]), _quiet():
            loaded, missing = (
                load_stored(place, model, task) if model.quant != "none" else _load(place, model, task)
            )
            loaded = _with_head(loaded, missing, place, model, task)
    except (OSError, ValueError, RuntimeError) as error:
        raise _unloadable(model, error) from error
    tokenizer = load_tokenizer(model)
    head = _head_names(loaded, task)
    missing = [name for name in missing if name in dict(loaded.named_parameters())]
    _fill_missing(loaded, missing, head, seed)
    loaded.requires_grad_(False)
    loaded.eval()
    if loaded.config.pad_token_id is None:
        loaded.config.pad_token_id = tokenizer.pad_token_id
    _loads += 1
    digest = weights_digest(loaded, head)
    return BaseModel(loaded.to(device), tokenizer, digest, head, tuple(n for n in head if n == CENTER))


def load_tokenizer(model: ModelSection) -> Tokenizer:
    """Load a base model's tokenizer with the run's chat template; needs none of the weights.

    It has a padding token, which is masked out everywhere, so the end token may serve.

    Raises:
        FedftError: FEDFT-2001 no such model, FEDFT-2002 the files or the hub failed, FEDFT-2004 no usable
            padding or end token.

    """
    from transformers import AutoTokenizer

    place = resolve_source(model.source)
    try:
        require_plain(place, model.revision)
        tokenizer = AutoTokenizer.from_pretrained(place, revision=model.revision or None, **NO_CODE)
    except (OSError, ValueError, RuntimeError) as error:
        raise _unloadable(model, error) from error
    if model.chat_template:
        tokenizer.chat_template = model.chat_template
    if tokenizer.pad_token_id is None:
        if tokenizer.eos_token_id is None:
            raise FedftError(
                Code.NO_PADDING_TOKEN, "the tokenizer has neither a padding nor an end-of-sequence token"
            )
        tokenizer.pad_token = tokenizer.eos_token
    tokenizer.padding_side = "right"
    return tokenizer


def _unloadable(model: ModelSection, error: Exception) -> FedftError:
    return FedftError(
        Code.MODEL_LOAD_FAILED,
        f"cannot load the model {model.source}: {str(error).partition(chr(10))[0]}",
        hint="without network, download it elsewhere and name its folder in model.source",
    )


def _device(model: ModelSection) -> torch.device:
    if model.device == "cuda" and not torch.cuda.is_available():
        raise FedftError(
            Code.NO_CUDA_DEVICE,
            "model.device is 'cuda', and torch finds no CUDA device here",
            hint='set model.device = "cpu"; a site can set its own in site.toml',
        )
    return torch.device(model.device)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep transformers' progress bars and load reports off the screen; errors still raise."""
    from transformers.utils import logging

    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


def _load(place: str, model: ModelSection, task: TaskSection) -> tuple[Any, list[str]]:
    """Return the model and the parameters that the checkpoint did not fill: absent, or of another shape."""
    refuse_quantised(place, model)
    kind = TASKS.get(task.kind)
    options: dict[str, Any] = {"dtype": getattr(torch, model.dtype), "output_loading_info": True}
    options |= kind.model_changes(task)
    if model.revision:
        options["revision"] = model.revision
    if kind.has_head:
        # A head for other classes; a base that does not fit is refused below.
        options["ignore_mismatched_sizes"] = True
    loaded, info = kind.auto_class().from_pretrained(place, **options, **PLAIN)
    mismatched = [key[0] if isinstance(key, tuple) else key for key in info["mismatched_keys"]]
    return loaded, sorted({*info["missing_keys"], *mismatched})


def _with_head(loaded: Any, missing: list[str], place: str, model: ModelSection, task: TaskSection) -> Any:
    """Return the model with the head that the task names; left to itself, a trained one that fits is kept."""
    if not TASKS.get(task.kind).classifies_texts or task.pooling == "model":
        return loaded
    if task.pooling == "auto" and not set(missing) & set(_head_names(loaded, task)):
        return loaded
    chosen = pooling_of(place, model.revision, loaded.config) if task.pooling == "auto" else task.pooling
    return with_pooled_head(
        loaded,
        pooling=chosen,
        layers=task.pooled_layers,
        classes=len(task.labels),
        normalise=task.normalise,
    )


def _head_names(model: Any, task: TaskSection) -> tuple[str, ...]:
    """Parameters outside the backbone; without a head of the task's own all belong to the base."""
    if not TASKS.get(task.kind).has_head:
        return ()
    backbone = f"{model.base_model_prefix}."
    return tuple(name for name, _ in model.named_parameters() if not name.startswith(backbone))


def _fill_missing(model: nn.Module, missing: list[str], head: tuple[str, ...], seed: int) -> None:
    """Draw what the checkpoint lacks: weights from N(0, 0.02²) as BERT's, biases zero."""
    absent = [name for name in missing if name not in head]
    if absent:
        raise FedftError(
            Code.CHECKPOINT_MISMATCH,
            f"the checkpoint lacks {len(absent)} weights of the base, or has them in other shapes: "
            f"{', '.join(absent[:3])}",
            hint="the architecture in config.json and the weights do not belong together",
        )
    generator = torch.Generator().manual_seed(seed)
    for name in missing:
        parameter = model.get_parameter(name)
        if parameter.dim() < 2:
            parameter.data.zero_()
        else:
            parameter.data.copy_(0.02 * torch.randn(parameter.shape, generator=generator))
