"""The hashes of leaves of which no process has all bytes.

They are computed from the files: each process reads a part of the leaves.
"""

from collections.abc import Sequence

import jax
import numpy as np

from wsl.checkpoint import _digests, _format
from wsl.checkpoint._write import files as files_lib
from wsl.checkpoint._write import stage as stage_lib

_CHUNK = 1 << 20
_BYTES = 32  # of SHA-256


def compute(
  stage: stage_lib.Stage, files: Sequence[files_lib.File]
) -> dict[str, str]:
  """Returns the hash of each leaf by name; all processes call this together.

  Args:
    stage: the folder of the files, whose leaves are complete.
    files: the files.
  """
  from jax.experimental import multihost_utils

  names = [name for file in files for name in file.leaves]
  digests = np.zeros((len(names), _BYTES), np.uint8)
  row = 0
  for i, file in enumerate(files):
    with open(stage.part(i), 'rb') as part:
      at = len(file.header)
      for leaf in file.leaves.values():
        size = _format.nbytes(leaf.dtype, leaf.shape)
        if row % jax.process_count() == jax.process_index():
          digest = _digests.new()
          part.seek(at)
          for done in range(0, size, _CHUNK):
            digest.update(part.read(min(_CHUNK, size - done)))
          digests[row] = np.frombuffer(digest.digest(), np.uint8)
        row, at = row + 1, at + size
  # All but one process have zeros.
  found = np.asarray(multihost_utils.process_allgather(digests))
  total = found.reshape(-1, *digests.shape).max(0)
  return {name: row.tobytes().hex() for name, row in zip(names, total)}
