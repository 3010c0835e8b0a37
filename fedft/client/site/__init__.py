"""What a site decides for itself: configuration, identity, policy, ledger."""
