"""Controls of gauges: random elements, and planted ones that must be undone."""

from experiments._align_barrier import gauge_rows, settings
from experiments._shared import gauge_frames, side_by_side
from wsl import align, tree, types


def moved_at_random(
  setting: settings.Setting, found: gauge_rows.Frame, which: int, stage: int
) -> types.Params:
  """Moves a network of each pair by a random element of the whole gauge."""
  keys = settings.keys(setting, stage)
  moved = [
    align.permute(
      side_by_side.pick(found.networks, s, which),
      align.random(found.symmetry, keys[s], gauges=found.kinds),
      symmetry=found.symmetry,
    )
    for s in range(setting.config.pairs)
  ]
  return tree.stack(moved)


def planted(
  setting: settings.Setting, found: gauge_rows.Frame, copies: types.Params
) -> gauge_rows.Frame:
  """Returns pairs of the first networks and balanced copies of them."""
  each = []
  for s in range(setting.config.pairs):
    a, b = side_by_side.pick((found.networks, copies), s)
    copy = gauge_frames.balanced(b, symmetry=found.symmetry, kinds=found.kinds)
    each.append(tree.stack([side_by_side.pick(a, 0), copy]))
  return found._replace(networks=tree.stack(each))


def left_by_kind(
  setting: settings.Setting, found: gauge_rows.Frame
) -> dict[str, list[float]]:
  """Plants elements of one kind at a time, and matches them over that kind.

  Returns:
    By kind, how far apart each pair is after matching.
  """
  kinds = ('permutation', *(a.kind for a in found.symmetry.actions))
  left: dict[str, list[float]] = {}
  for kind in dict.fromkeys(kinds):
    own = found._replace(kinds=(kind,))
    pairs = planted(setting, own, moved_at_random(setting, own, 0, 5))
    seconds = gauge_rows.matched(setting, f'planted {kind}', pairs)
    ends = [
      (side_by_side.pick(pairs.networks, s, 0), side_by_side.pick(seconds, s))
      for s in range(setting.config.pairs)
    ]
    left[kind] = [gauge_frames.apart(a, b) for a, b in ends]
  return left
