"""Experiments: one file answers one question; ``run(config, workdir)``."""
