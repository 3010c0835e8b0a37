"""Quantised storage of frozen weights, the layer on it, and the choice of kernels behind both."""

from fedft.quant.doctor import describe
from fedft.quant.files import description, save_quantised
from fedft.quant.int8 import INT8
from fedft.quant.interface import QuantFormat, StoredWeight
from fedft.quant.linear import QuantisedLinear
from fedft.quant.loading import load_quantised, load_quantising
from fedft.quant.model import quantisable, quantise_model
from fedft.quant.nf4 import NF4
from fedft.quant.weight import NF4Weight

__all__ = [
    "INT8",
    "NF4",
    "NF4Weight",
    "QuantFormat",
    "QuantisedLinear",
    "StoredWeight",
    "describe",
    "description",
    "load_quantised",
    "load_quantising",
    "quantisable",
    "quantise_model",
    "save_quantised",
]
