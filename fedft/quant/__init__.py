"""Quantised storage of frozen weights (NF4), the layer on it, and the choice of kernels behind both."""

from fedft.quant.doctor import describe
from fedft.quant.files import is_quantised, save_quantised
from fedft.quant.linear import NF4Linear
from fedft.quant.loading import load_quantised, load_quantising
from fedft.quant.model import quantisable, quantise_model
from fedft.quant.weight import NF4Weight

__all__ = [
    "NF4Linear",
    "NF4Weight",
    "describe",
    "is_quantised",
    "load_quantised",
    "load_quantising",
    "quantisable",
    "quantise_model",
    "save_quantised",
]
