"""Runs of several processes: who they are, that they agree, how they end."""
