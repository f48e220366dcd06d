"""What every run has: a record, progress, figures, checked calls."""
