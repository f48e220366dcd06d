"""Paths through the blocks of a network, which skip and repeat them."""
