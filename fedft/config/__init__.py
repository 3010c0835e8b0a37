"""The typed run configuration: one TOML file describes a run."""

from fedft.config.load import load_config, parse_overrides, read_toml
from fedft.config.schema import RunConfig

__all__ = ["RunConfig", "load_config", "parse_overrides", "read_toml"]
