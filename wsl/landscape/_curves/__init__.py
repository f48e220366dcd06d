"""Curves between two models, of low loss after training."""
