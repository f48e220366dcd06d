"""The files of a checkpoint in a folder: names, shards and messages."""
