"""Powers of scales and parities of signs: dimensional analysis."""
