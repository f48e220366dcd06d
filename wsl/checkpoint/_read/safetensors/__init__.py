"""Safetensors: headers, shards and their index."""
