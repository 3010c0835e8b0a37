"""Another people's package: one of each kind, found by entry points alone."""
