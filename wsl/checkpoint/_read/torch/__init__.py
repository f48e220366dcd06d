"""PyTorch's files, read by a pickle machine that runs no code."""
