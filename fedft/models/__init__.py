"""Base models: loading, digests, and the bundled demo model."""
