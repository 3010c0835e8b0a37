"""Federated methods: what is trained and exchanged, and how the clients' updates become the next state."""

from fedft.methods.interface import FrameFacts, Method

__all__ = ["FrameFacts", "Method"]
