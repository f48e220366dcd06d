"""The gauges of a traced function."""
