from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class SecaggSession(_message.Message):
    __slots__ = ("run_id", "first_round", "rounds", "frame_digest", "members", "threshold")
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    FIRST_ROUND_FIELD_NUMBER: _ClassVar[int]
    ROUNDS_FIELD_NUMBER: _ClassVar[int]
    FRAME_DIGEST_FIELD_NUMBER: _ClassVar[int]
    MEMBERS_FIELD_NUMBER: _ClassVar[int]
    THRESHOLD_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    first_round: int
    rounds: int
    frame_digest: bytes
    members: _containers.RepeatedScalarFieldContainer[bytes]
    threshold: int
    def __init__(self, run_id: _Optional[str] = ..., first_round: _Optional[int] = ..., rounds: _Optional[int] = ..., frame_digest: _Optional[bytes] = ..., members: _Optional[_Iterable[bytes]] = ..., threshold: _Optional[int] = ...) -> None: ...

class SecaggAdvertisement(_message.Message):
    __slots__ = ("session", "sealing_key", "round_keys", "signature")
    SESSION_FIELD_NUMBER: _ClassVar[int]
    SEALING_KEY_FIELD_NUMBER: _ClassVar[int]
    ROUND_KEYS_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    session: bytes
    sealing_key: bytes
    round_keys: bytes
    signature: bytes
    def __init__(self, session: _Optional[bytes] = ..., sealing_key: _Optional[bytes] = ..., round_keys: _Optional[bytes] = ..., signature: _Optional[bytes] = ...) -> None: ...

class SecaggRoster(_message.Message):
    __slots__ = ("session", "members", "advertisements")
    SESSION_FIELD_NUMBER: _ClassVar[int]
    MEMBERS_FIELD_NUMBER: _ClassVar[int]
    ADVERTISEMENTS_FIELD_NUMBER: _ClassVar[int]
    session: bytes
    members: _containers.RepeatedScalarFieldContainer[int]
    advertisements: _containers.RepeatedCompositeFieldContainer[SecaggAdvertisement]
    def __init__(self, session: _Optional[bytes] = ..., members: _Optional[_Iterable[int]] = ..., advertisements: _Optional[_Iterable[_Union[SecaggAdvertisement, _Mapping]]] = ...) -> None: ...

class SecaggShares(_message.Message):
    __slots__ = ("session", "receivers", "sealed")
    SESSION_FIELD_NUMBER: _ClassVar[int]
    RECEIVERS_FIELD_NUMBER: _ClassVar[int]
    SEALED_FIELD_NUMBER: _ClassVar[int]
    session: bytes
    receivers: _containers.RepeatedScalarFieldContainer[int]
    sealed: bytes
    def __init__(self, session: _Optional[bytes] = ..., receivers: _Optional[_Iterable[int]] = ..., sealed: _Optional[bytes] = ...) -> None: ...

class SecaggDelivery(_message.Message):
    __slots__ = ("session", "cohort", "dealers", "sealed")
    SESSION_FIELD_NUMBER: _ClassVar[int]
    COHORT_FIELD_NUMBER: _ClassVar[int]
    DEALERS_FIELD_NUMBER: _ClassVar[int]
    SEALED_FIELD_NUMBER: _ClassVar[int]
    session: bytes
    cohort: _containers.RepeatedScalarFieldContainer[int]
    dealers: _containers.RepeatedScalarFieldContainer[int]
    sealed: bytes
    def __init__(self, session: _Optional[bytes] = ..., cohort: _Optional[_Iterable[int]] = ..., dealers: _Optional[_Iterable[int]] = ..., sealed: _Optional[bytes] = ...) -> None: ...

class SecaggMaskRequest(_message.Message):
    __slots__ = ("session", "round", "elements", "largest", "grid")
    SESSION_FIELD_NUMBER: _ClassVar[int]
    ROUND_FIELD_NUMBER: _ClassVar[int]
    ELEMENTS_FIELD_NUMBER: _ClassVar[int]
    LARGEST_FIELD_NUMBER: _ClassVar[int]
    GRID_FIELD_NUMBER: _ClassVar[int]
    session: bytes
    round: int
    elements: int
    largest: int
    grid: bytes
    def __init__(self, session: _Optional[bytes] = ..., round: _Optional[int] = ..., elements: _Optional[int] = ..., largest: _Optional[int] = ..., grid: _Optional[bytes] = ...) -> None: ...

class SecaggRound(_message.Message):
    __slots__ = ("request", "sizes_f32le")
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    SIZES_F32LE_FIELD_NUMBER: _ClassVar[int]
    request: SecaggMaskRequest
    sizes_f32le: bytes
    def __init__(self, request: _Optional[_Union[SecaggMaskRequest, _Mapping]] = ..., sizes_f32le: _Optional[bytes] = ...) -> None: ...

class SecaggMaskedInput(_message.Message):
    __slots__ = ("session", "round", "words", "attestation")
    SESSION_FIELD_NUMBER: _ClassVar[int]
    ROUND_FIELD_NUMBER: _ClassVar[int]
    WORDS_FIELD_NUMBER: _ClassVar[int]
    ATTESTATION_FIELD_NUMBER: _ClassVar[int]
    session: bytes
    round: int
    words: bytes
    attestation: bytes
    def __init__(self, session: _Optional[bytes] = ..., round: _Optional[int] = ..., words: _Optional[bytes] = ..., attestation: _Optional[bytes] = ...) -> None: ...

class SecaggCohortRequest(_message.Message):
    __slots__ = ("session", "round", "survivors", "dropped")
    SESSION_FIELD_NUMBER: _ClassVar[int]
    ROUND_FIELD_NUMBER: _ClassVar[int]
    SURVIVORS_FIELD_NUMBER: _ClassVar[int]
    DROPPED_FIELD_NUMBER: _ClassVar[int]
    session: bytes
    round: int
    survivors: _containers.RepeatedScalarFieldContainer[int]
    dropped: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, session: _Optional[bytes] = ..., round: _Optional[int] = ..., survivors: _Optional[_Iterable[int]] = ..., dropped: _Optional[_Iterable[int]] = ...) -> None: ...

class SecaggAttestation(_message.Message):
    __slots__ = ("session", "round", "signature")
    SESSION_FIELD_NUMBER: _ClassVar[int]
    ROUND_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    session: bytes
    round: int
    signature: bytes
    def __init__(self, session: _Optional[bytes] = ..., round: _Optional[int] = ..., signature: _Optional[bytes] = ...) -> None: ...

class SecaggUnmaskRequest(_message.Message):
    __slots__ = ("session", "round", "survivors", "dropped", "attesters", "attestations")
    SESSION_FIELD_NUMBER: _ClassVar[int]
    ROUND_FIELD_NUMBER: _ClassVar[int]
    SURVIVORS_FIELD_NUMBER: _ClassVar[int]
    DROPPED_FIELD_NUMBER: _ClassVar[int]
    ATTESTERS_FIELD_NUMBER: _ClassVar[int]
    ATTESTATIONS_FIELD_NUMBER: _ClassVar[int]
    session: bytes
    round: int
    survivors: _containers.RepeatedScalarFieldContainer[int]
    dropped: _containers.RepeatedScalarFieldContainer[int]
    attesters: _containers.RepeatedScalarFieldContainer[int]
    attestations: bytes
    def __init__(self, session: _Optional[bytes] = ..., round: _Optional[int] = ..., survivors: _Optional[_Iterable[int]] = ..., dropped: _Optional[_Iterable[int]] = ..., attesters: _Optional[_Iterable[int]] = ..., attestations: _Optional[bytes] = ...) -> None: ...

class SecaggUnmaskReply(_message.Message):
    __slots__ = ("session", "round", "dealers", "shares")
    SESSION_FIELD_NUMBER: _ClassVar[int]
    ROUND_FIELD_NUMBER: _ClassVar[int]
    DEALERS_FIELD_NUMBER: _ClassVar[int]
    SHARES_FIELD_NUMBER: _ClassVar[int]
    session: bytes
    round: int
    dealers: _containers.RepeatedScalarFieldContainer[int]
    shares: bytes
    def __init__(self, session: _Optional[bytes] = ..., round: _Optional[int] = ..., dealers: _Optional[_Iterable[int]] = ..., shares: _Optional[bytes] = ...) -> None: ...
