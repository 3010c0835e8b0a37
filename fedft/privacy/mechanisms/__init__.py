"""What is clipped, sampled and noised, and the checks before it."""
