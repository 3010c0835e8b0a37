"""What releases cost: events, their composition, and planning."""
