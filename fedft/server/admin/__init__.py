"""What operators see and change over gRPC, and the record of it."""
