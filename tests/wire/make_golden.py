"""Write the golden files that do not exist yet: python -m tests.wire.make_golden

Existing files are never written again: every later version must read them.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fedft.codecs import CodecContext, Manifest, codec_names, decode, make_codec, state_digest
from fedft.wire import Update, encode_instruction, encode_reply, seal
from tests.wire.samples import INSTRUCTIONS, MODEL, REPLIES, ROUND

FOLDER = Path(__file__).parent / "golden" / "v1"
KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
SEED = b"golden"
SHAPES = {"head.weight": (3, 50), "layers.0.R": (16, 16), "layers.1.R": (70, 70)}


def golden_manifest() -> Manifest:
    return Manifest.of({name: np.empty(shape, np.float32) for name, shape in SHAPES.items()})


def main() -> None:
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name, reply in REPLIES.items():
        _write(name, seal(encode_reply(reply), KEY))
    for name, instruction in INSTRUCTIONS.items():
        _write(name, seal(encode_instruction(instruction), KEY))
    rng = np.random.default_rng(1)
    state = {name: rng.normal(0, 1e-2, shape).astype(np.float32) for name, shape in SHAPES.items()}
    path = FOLDER / "decoded.json"
    digests = json.loads(path.read_text()) if path.exists() else {}
    for name in codec_names():
        if name not in digests:
            context = CodecContext(seed=SEED, generator=np.random.default_rng(2))
            shards = tuple(make_codec(name).encode(state, golden_manifest(), context))
            digests[name] = state_digest(decode(shards, golden_manifest(), context))
            _write(f"codec_{name}", seal(encode_reply(Update(ROUND, MODEL, "client-a", 1, 5, shards))))
    path.write_text(json.dumps(digests, indent=2, sort_keys=True) + "\n")


def _write(name: str, data: bytes) -> None:
    path = FOLDER / f"{name}.bin"
    if not path.exists():
        path.write_bytes(data)


if __name__ == "__main__":
    main()
