"""Merges of models that arrive one after another."""
