"""Anisotropic scaling: a coefficient for each block of a task vector."""

from wsl.scale._depth import by_depth as by_depth
