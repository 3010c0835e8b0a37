"""The Flower ``ClientApp``, under the name that Flower users look for."""

from fedft.client.app import app

__all__ = ["app"]
