"""What a run's privacy may be, each kind as one object: `fedft.registries.PRIVACY_MODELS` lists them."""
