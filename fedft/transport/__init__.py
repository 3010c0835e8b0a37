"""The carriers that bring envelopes between the coordinator and the clients."""

import os

# gRPC's Python API cannot name a TLS version. All our keys are elliptic-curve keys, so allowing only an RSA
# suite for TLS 1.2 (the list does not govern 1.3) leaves every 1.2 handshake without a shared cipher. gRPC
# reads this once, when it is first used, so it must stand before anything else uses gRPC.
os.environ.setdefault("GRPC_SSL_CIPHER_SUITES", "ECDHE-RSA-AES128-GCM-SHA256")
os.environ.setdefault("GRPC_VERBOSITY", "NONE")
