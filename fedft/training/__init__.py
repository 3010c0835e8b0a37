"""Local training and evaluation of one client, for every task."""
