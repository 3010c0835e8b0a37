"""What server and client say to each other, as plain values. Digests are lowercase hex SHA-256 or empty."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from fedft.codecs.spec import CodecSpec, Shard
from fedft.statements import PrivacyStatement


class InstructionKind(StrEnum):
    """What the server asks for."""

    HELLO = "hello"
    TRAIN = "train"
    EVALUATE = "evaluate"
    SKETCH = "sketch"
    ADVERTISE = "advertise"
    SHARE = "share"
    RECEIVE = "receive"
    ATTEST = "attest"
    UNMASK = "unmask"


@dataclass(frozen=True)
class RoundRef:
    """A round of a run."""

    run_id: str
    round: int


@dataclass(frozen=True)
class ModelRef:
    """Everything that an update is relative to, by digest."""

    base_digest: str
    frame_digest: str
    manifest_digest: str
    global_state_digest: str


@dataclass(frozen=True)
class Update:
    """A client's change of the exchanged tensors. ``num_examples`` is 0 when the client withholds it.

    With secure aggregation ``masked`` takes the place of ``shards``: a message of `fedft.secagg`.
    """

    round: RoundRef
    model: ModelRef
    client_id: str
    update_seq: int
    num_examples: int
    shards: tuple[Shard, ...]
    metrics: Mapping[str, float] = field(default_factory=dict)
    privacy: PrivacyStatement | None = None
    required_features: tuple[str, ...] = ()
    masked: bytes = b""


@dataclass(frozen=True)
class Evaluation:
    """Metrics of the global state on a client's own data."""

    round: RoundRef
    model: ModelRef
    client_id: str
    num_examples: int
    metrics: Mapping[str, float]


@dataclass(frozen=True)
class Hello:
    """Who a client is and what it can do; ``codecs`` maps a codec's wire id to its version.

    ``introduction`` proves the identity that the client signs with in secure aggregation, empty without.
    """

    client_id: str
    base_digest: str
    num_examples: int
    wire_version: int
    codecs: Mapping[int, int]
    features: tuple[str, ...] = ()
    introduction: bytes = b""


@dataclass(frozen=True)
class Refusal:
    """A client declines an instruction, with a stable code; ``client_id`` may be empty."""

    round: RoundRef
    code: str
    message: str
    client_id: str = ""


@dataclass(frozen=True)
class NeedSetup:
    """A client has not got the setup that an instruction names."""

    round: RoundRef
    setup_digest: str


@dataclass(frozen=True)
class SecaggAnswer:
    """A client's answer to a step of secure aggregation; ``message`` is one of `fedft.secagg`, or empty."""

    round: RoundRef
    client_id: str
    message: bytes


Reply = Update | Evaluation | Hello | Refusal | NeedSetup | SecaggAnswer


@dataclass(frozen=True)
class Setup:
    """What a client needs once per run; ``frame`` is empty when the client computes it itself."""

    config_json: str
    frame: bytes = b""


@dataclass(frozen=True)
class Acknowledgement:
    """The server's verdict on an earlier update of this client."""

    round: int
    update_seq: int
    accepted: bool


@dataclass(frozen=True)
class Instruction:
    """What the server asks of one client in one round.

    ``global_state`` is the whole state, or, when ``delta_base_digest`` is set, the difference to the state
    with that digest; ``model.global_state_digest`` names the result in both cases. ``accepted_codecs``
    begins with the preferred one. ``max_update_norm`` is the L2 norm that the client must clip its update to,
    0 for none. ``secagg`` is the message of `fedft.secagg` that a step of secure aggregation is about.
    """

    round: RoundRef
    kind: InstructionKind
    model: ModelRef
    setup_digest: str
    setup: Setup | None = None
    global_state: tuple[Shard, ...] = ()
    delta_base_digest: str = ""
    accepted_codecs: tuple[CodecSpec, ...] = ()
    codec_seed: bytes = b""
    deadline_seconds: float = 600.0
    acknowledgements: tuple[Acknowledgement, ...] = ()
    required_features: tuple[str, ...] = ()
    max_update_norm: float = 0.0
    secagg: bytes = b""
