"""BitStack: blocks of signs, and prefixes of them."""
