"""Ways to make a frame; `fedft.registries.FRAMES` finds them by name."""

from fedft.adapters.initialisers.interface import Initialiser, InitialiserContext

__all__ = ["Initialiser", "InitialiserContext"]
