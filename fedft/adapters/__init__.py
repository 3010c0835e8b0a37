"""Adapters: frames, their initialisers, the adapted layers, and the way on and off a model."""

from fedft.adapters.attach import AdapterHandle, attach
from fedft.adapters.build import build_frames
from fedft.adapters.frame import Frame, FrameSet
from fedft.adapters.gradients import SampleGradients
from fedft.adapters.initialisers import Initialiser, InitialiserContext
from fedft.adapters.interface import AdapterLayer, Frames, LayerFrame, LayerFrames
from fedft.adapters.linear import AdaptedLinear, PerSampleSink
from fedft.adapters.merge import merge
from fedft.adapters.peft_export import export_peft
from fedft.adapters.targets import resolve_targets

__all__ = [
    "AdaptedLinear",
    "AdapterHandle",
    "AdapterLayer",
    "Frame",
    "FrameSet",
    "Frames",
    "Initialiser",
    "InitialiserContext",
    "LayerFrame",
    "LayerFrames",
    "PerSampleSink",
    "SampleGradients",
    "attach",
    "build_frames",
    "export_peft",
    "merge",
    "resolve_targets",
]
