"""Learning coefficients by gradient: objectives, steps, selection."""
