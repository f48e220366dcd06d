"""Evaluations in a file, from which an interrupted search resumes."""

from collections.abc import Callable
import json
import os
import pathlib
from typing import Any

import numpy as np


def journal(
  evaluate: Callable[[np.ndarray], Any], path: str | os.PathLike[str]
) -> Callable[[np.ndarray], np.ndarray]:
  """Stores every evaluation of a search in a file, and replays it from there.

  A search is a function of its key and of the values it has seen. After an
  interruption, run it again with the same journal: the points that the file
  holds are not evaluated again, and the search continues where it stopped.

  Args:
    evaluate: maps points ``[B, n]`` to values ``[B]`` or ``[B, M]``.
    path: a file of JSON lines, one for each point; created if it is not there.

  Returns:
    A function like ``evaluate``, for one run of one search. Points are
    evaluated in batches as asked, without those that are in the file.

  Raises:
    ValueError: by that function, if the file holds other points: it belongs to
      a search with another key, start or number of points.

  Example:
    >>> import pathlib, tempfile
    >>> path = pathlib.Path(tempfile.mkdtemp(), 'search.jsonl')
    >>> calls = []
    >>> def loss(points):
    ...   calls.append(len(points))
    ...   return points.sum(1)
    >>> for _ in range(2):
    ...   found = journal(loss, path)(np.ones((3, 2)))
    >>> found.tolist(), calls
    ([2.0, 2.0, 2.0], [3])
  """
  file = pathlib.Path(path)
  done = _read(file)
  asked = 0

  def replay(points: np.ndarray) -> np.ndarray:
    nonlocal asked
    points = np.asarray(points, np.float64)
    known = done[asked : asked + len(points)]
    for i, (point, _) in enumerate(known):
      if not np.array_equal(point, points[i]):
        raise ValueError(
          f'journal: {file} holds another search: its point {asked + i} is '
          f'{np.round(point, 4).tolist()}, asked for is '
          f'{np.round(points[i], 4).tolist()}: use another file'
        )
    values = [value for _, value in known]
    asked += len(points)
    if len(known) < len(points):
      new = np.asarray(evaluate(points[len(known) :]), np.float64)
      with file.open('a', encoding='utf-8') as out:
        for point, value in zip(points[len(known) :], new, strict=True):
          line = {'point': point.tolist(), 'value': value.tolist()}
          out.write(f'{json.dumps(line)}\n')
      values += list(new)
    return np.asarray(values)

  return replay


def _read(file: pathlib.Path) -> list[tuple[np.ndarray, np.ndarray]]:
  """Returns the evaluations in a file; drops a last line that is cut off."""
  if not file.exists():
    return []
  text = file.read_text(encoding='utf-8')
  whole = text[: text.rfind('\n') + 1]
  if whole != text:
    file.write_text(whole, encoding='utf-8')
  found = []
  for i, line in enumerate(whole.splitlines()):
    try:
      row = json.loads(line)
      found.append((np.asarray(row['point']), np.asarray(row['value'])))
    except (ValueError, TypeError, KeyError):
      raise ValueError(
        f'journal: line {i + 1} of {file} is not an evaluation: use another '
        'file'
      ) from None
  return found
