"""Routers of experts, with the order of the group of each by hand."""
