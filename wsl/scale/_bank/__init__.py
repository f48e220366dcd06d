"""Banks: task vectors of one base, stored compactly."""
