"""What a site enforces: policy, ledger, and what may leave."""
