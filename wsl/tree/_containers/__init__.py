"""Trees of the same leaves in other containers, nested or flat."""
