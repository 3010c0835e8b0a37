"""The carriers that bring envelopes between the coordinator and the clients."""
