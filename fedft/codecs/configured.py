"""The codec that a run's configuration names."""

from __future__ import annotations

from fedft.codecs.interface import Codec
from fedft.config.schema import CodecSection
from fedft.registries import CODECS


def configured_codec(section: CodecSection) -> Codec:
    """Build the codec of a run's updates."""
    return CODECS.get(section.name).configured(section.options)


def codecs_of_run(section: CodecSection) -> dict[int, int]:
    """Return wire id and version of all that the run's messages are coded with, in both directions."""
    downlink, whole_state = CODECS.get(section.downlink), CODECS.get("dense")
    return {codec.id: codec.version for codec in (configured_codec(section), downlink, whole_state)}


def uses_error_feedback(section: CodecSection) -> bool:
    """Whether clients keep a residual: asked for, and the codec loses what it leaves out without one."""
    return section.error_feedback and configured_codec(section).needs_state
