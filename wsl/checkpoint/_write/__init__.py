"""Writing a checkpoint: all of its files become visible at once, or none does.

``target``    the file or folder that is written, and what may be there.
``files``     headers and leaves of the files to write, and the index.
``lock``      one writer for a target: a lock file that names its owner.
``stage``     the hidden folder in which files are written, and its cleaning.
``previous``  the files of the checkpoint that a save removes: only own ones.
``space``     room on the disk, and errors of the file system in one line.
``resume``    the leaves that a killed save has finished, by their hashes.
``pieces``    leaves as contiguous pieces, read and computed in order.
``stream``    writes each piece while the next one is computed.
``sink``      checks, hashes and writes pieces.
``flush``     brings written data to the disk in the meantime.
``swap``      renames the files into place and removes the old ones.
``write``     these steps in order.
``parallel``  the same by several processes, each of which writes its shards.

A folder is read through one file: ``model.safetensors`` if it exists, else the
index. A save makes its checkpoint visible by one rename or removal of such a
file. Shards have names that no shard in the folder has, are renamed before the
index, and the old ones are removed after it.
"""
