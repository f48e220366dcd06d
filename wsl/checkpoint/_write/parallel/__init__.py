"""Saves that several processes write together.

``exchange``  short texts of all processes: whether each has succeeded.
``shares``    the regions of a leaf that a process writes.
``writer``    the thread that writes them into files of full size.
``hashes``    the hashes of leaves of which no process has all bytes.
``write``     these steps in order; process 0 puts the files in place.
"""
