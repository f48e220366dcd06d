"""Claims about transformers that are joined over gauges, pair by pair."""

from typing import Any

import numpy as np

from experiments._align_barrier import gauge_rows
from experiments._run import verdicts
from experiments._shared import gauge_frames

LOW = 0.1  # of the barrier without any matching


def judge(
  results: dict[str, dict[str, Any]], ladder: Any
) -> dict[str, dict[str, Any]]:
  """Judges the claims of two papers by the barrier in test loss.

  Theus et al., 2025 (arXiv:2506.22712): orthogonal maps lower the barrier that
  permutations leave, to nearly none; learned matching is the lowest. The
  second (arXiv:2606.23607): after norms are absorbed, and the stream is rotated
  and scaled, learned ends have a low barrier.

  Args:
    results: from ``measure``, by pairing.
    ladder: of the config.

  Returns:
    See ``verdicts.judge``; a gain is in nats.
  """
  height = {way: heights(found) for way, found in results.items()}
  rows = ['weight_matching', *gauge_frames.cumulative(ladder)]
  last = height[rows[-1]]
  low = LOW * height['naive']
  claims = [
    ('all gauges below permutations alone', height[rows[0]] - last),
    (f'all gauges low, below {LOW} of as it is', low - last),
  ]
  if 'learned' in height:
    learned = np.minimum(*(height[way] for way in gauge_rows.LEARNED))
    matched = np.min([height[way] for way in rows], axis=0)
    claims += [
      ('learned matching below all others', matched - learned),
      (f'learned low, below {LOW} of as it is', low - learned),
      (
        'both learned below one learned',
        height['learned_one'] - height['learned'],
      ),
    ]
  return verdicts.judge(claims)


def heights(found: dict[str, Any]) -> np.ndarray:
  """Returns the barrier of each pair in test loss, ``[S]``."""
  rise = [path['above_chord']['test']['loss'] for path in found['plain']]
  return np.asarray(rise)
