"""Finds the linear maps of a traced function and measures their inputs."""
