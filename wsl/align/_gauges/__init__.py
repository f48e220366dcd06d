"""Signs, scales, rotations and linear maps of axes, found from the trace."""
