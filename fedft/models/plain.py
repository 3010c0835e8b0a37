"""A model is numbers and settings: nothing that comes with it is ever executed."""

from __future__ import annotations

import os
from pathlib import Path

from fedft.errors import Code, FedftError

NO_CODE = {"trust_remote_code": False}
"""For every loader of transformers, which would ask at a terminal otherwise."""
PLAIN = {**NO_CODE, "use_safetensors": True}
"""The same for weights: a pickle can run code when it is read."""

# Else transformers looks on the hub for a stranger's conversion of weights that are no safetensors.
os.environ["DISABLE_SAFETENSORS_CONVERSION"] = "true"


def require_plain(place: str, revision: str) -> None:
    """Refuse a model that brings code of its own, and a folder whose weights are in another format.

    Args:
        place: a folder or a hub id.
        revision: of the hub; empty for its default.

    Raises:
        FedftError: FEDFT-2008 code (``auto_map`` in a configuration), FEDFT-2009 weights.
        OSError: there is no such model.

    """
    from transformers import PretrainedConfig
    from transformers.models.auto.tokenization_auto import get_tokenizer_config

    config, _ = PretrainedConfig.get_config_dict(place, revision=revision or None)
    tokenizer = get_tokenizer_config(place, revision=revision or None)
    if "auto_map" in config or "auto_map" in tokenizer:
        raise FedftError(
            Code.MODEL_BRINGS_CODE,
            f"the model {place} comes with Python code of its own (auto_map), which is not run",
            hint="use a model that transformers knows itself",
        )
    folder = Path(place)
    if folder.is_dir() and any(folder.glob("*.bin")) and not any(folder.glob("*.safetensors")):
        raise FedftError(
            Code.WEIGHTS_NOT_SAFETENSORS,
            f"the weights in {place} are no safetensors; other formats can run code when they are read",
            hint="convert them where the model comes from: save_pretrained writes safetensors",
        )
