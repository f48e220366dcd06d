"""The methods of mergekit by functions of ``wsl.merge``."""
