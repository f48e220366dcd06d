"""Gauge elements learned by gradient on the loss between two models."""
