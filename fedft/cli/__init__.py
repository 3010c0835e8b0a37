"""The ``fedft`` command: parse, call, print."""
