"""The console script ``wsl-merge``: merges checkpoints by a recipe."""

from wsl.recipes._command.run import main as main
