"""Networks stored in files of a folder of the user."""

from collections.abc import Callable
import pathlib
from typing import Any
import zipfile

import numpy as np

from wsl import types


def read(
  file: pathlib.Path, names: str, convert: Callable[[Any], types.Params]
) -> types.Params:
  """Reads one network.

  Args:
    file: an npz file.
    names: what the folder should have, for the message.
    convert: from the stored arrays to parameters.

  Raises:
    FileNotFoundError: if there is no such file.
    ValueError: if it does not hold such a network.
  """
  if not file.exists():
    raise FileNotFoundError(
      f'no weights at {file}: --config.data_dir=FOLDER with {names}'
    )
  try:
    with file.open('rb') as handle, np.load(handle) as stored:
      return convert(dict(stored))
  except (ValueError, OSError, zipfile.BadZipFile) as error:
    raise ValueError(f'{file}: {error}') from None
