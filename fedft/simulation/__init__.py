"""A federation on one machine: run, baselines beside it, finished runs opened again."""
