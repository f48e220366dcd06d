"""Experts: from dense networks, of merged experts, and as bricks."""
