"""Banks: the task vectors of one base, stored as they come."""
