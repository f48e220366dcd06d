"""ComPEFT: three values, as Rice codes."""
