"""Writing a checkpoint: all of its files become visible at once, or none does.

``target``    the file or folder that is written, and what it may replace.
``lock``      one writer for a target: a lock file that names its owner.
``stage``     the hidden folder in which files are written, and its cleaning.
``previous``  the files of the checkpoint that a save removes: only own ones.
``stream``    pulls leaves, and writes each while the next one is computed.
``sink``      checks, hashes and writes pieces of leaves.
``journal``   hashes of finished leaves, by which a killed save is resumed.
``swap``      renames the files into place and removes the old ones.
``write``     these steps in order.

A folder is read through one file: ``model.safetensors`` if it exists, else the
index. A save makes its checkpoint visible by one rename or removal of such a
file. Shards have names that no shard in the folder has, are renamed before the
index, and the old ones are removed after it.
"""
