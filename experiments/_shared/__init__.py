"""Shared by several experiments: tasks, networks, training, accuracy."""
