"""Secure aggregation: a server learns the sum of its clients' integer vectors and nothing else about them."""
