"""Nested slices: networks of all sizes in the leading units of one."""
