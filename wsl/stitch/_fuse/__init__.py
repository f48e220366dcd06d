"""Distillation from networks with other tokenizers."""
