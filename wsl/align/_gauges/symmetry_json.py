"""Symmetries as JSON."""

import json
from typing import Any

from wsl.align import _symmetry


def to_json(symmetry: _symmetry.Symmetry) -> str:
  """Returns a symmetry as JSON, to be stored with a checkpoint.

  Args:
    symmetry: any symmetry.

  Returns:
    The text, from which ``from_json`` makes an equal symmetry.

  Example:
    >>> from wsl import align
    >>> unit = align.Factor('w:0', 3)
    >>> symmetry = align.Symmetry((unit,), (('w', ((('w:0',),),)),))
    >>> from_json(to_json(symmetry)) == symmetry
    True
  """
  factors = [factor._asdict() for factor in symmetry.factors]
  content: dict[str, Any] = {'factors': factors, 'axes': symmetry.axes}
  if symmetry.actions or symmetry.limits:
    content |= {'actions': symmetry.actions, 'limits': symmetry.limits}
  if symmetry.interleaved:
    content['interleaved'] = symmetry.interleaved
  return json.dumps(content, indent=1)


def from_json(text: str) -> _symmetry.Symmetry:
  """Returns the symmetry that ``to_json`` has written.

  Args:
    text: the JSON; that of older versions, without phases, too.

  Returns:
    The symmetry.

  Raises:
    ValueError: if the text does not describe a symmetry.

  Example:
    >>> text = '{"factors": [], "axes": [["bias", []]]}'
    >>> from_json(text).leaf
    {'bias': ()}
  """
  try:
    content = json.loads(text)
    factors = [
      _symmetry.Factor(
        x['name'], int(x['size']), x['pinned'], tuple(x['outer'])
      )
      for x in content['factors']
    ]
    actions = [_action(*fields) for fields in content.get('actions', [])]
    axes = _tuples(content['axes'])
    limits = _tuples(content.get('limits', []))
    runs = tuple(
      _symmetry.Interleaved(*run) for run in content.get('interleaved', [])
    )
    symmetry = _symmetry.Symmetry(
      tuple(factors), axes, tuple(actions), limits, runs
    )
    for name in symmetry.leaf:
      symmetry.layout(name)
    for leaf, axis, first, count, shared in runs:
      own = symmetry.leaf[leaf][axis][first : first + count]
      if len(own) != count or len({s[:shared] for s in own}) != 1:
        raise ValueError(f'interleaved segments of {leaf!r} share no factors')
  except (KeyError, TypeError, ValueError) as error:
    raise ValueError(
      f'from_json: this is no symmetry written by to_json ({error!r})'
    ) from None
  return symmetry


def _action(
  name: str,
  kind: str,
  factor: str,
  powers: Any,
  ones: bool,
  over: Any = (),
  unit: bool = False,
) -> _symmetry.Action:
  """Returns an action from JSON; older files have no phases."""
  where = tuple(_symmetry.Power(*p) for p in powers)
  return _symmetry.Action(
    name, kind, factor, where, bool(ones), tuple(over), bool(unit)
  )


def _tuples(value: Any) -> Any:
  """Converts nested lists to tuples."""
  if isinstance(value, list):
    return tuple(_tuples(x) for x in value)
  return value
