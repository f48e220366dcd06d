"""Searches for merges that trade the losses of several tasks."""
