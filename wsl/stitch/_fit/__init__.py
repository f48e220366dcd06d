"""Adapters fitted in closed form, from moments of features."""
