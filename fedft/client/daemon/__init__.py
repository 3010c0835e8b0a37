"""The process at a site that keeps the connection and supervises the worker."""
