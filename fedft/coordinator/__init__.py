"""The round loop: one for every carrier and every entry point."""
