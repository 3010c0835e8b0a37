"""Differential privacy: the private step, mechanisms, accounting, ledger, site policy and audit."""
