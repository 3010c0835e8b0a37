"""The Flower ``ServerApp``, under the name that Flower users look for."""

from fedft.coordinator.app import app

__all__ = ["app"]
