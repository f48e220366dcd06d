"""Texts of several domains, as windows of bytes."""
