"""The program that equals two programs, one after the other."""

from collections.abc import Sequence
import math

from wsl.surgery._program import program as program_lib


def compose_programs(
  first: program_lib.Program, second: program_lib.Program
) -> program_lib.Program:
  r"""Returns the program that applies ``first``, then ``second``.

  .. math:: (P_2 \circ P_1)(\theta) = P_2(P_1(\theta))

  A copy takes over the layer of ``first``. A mean of means is a mean of blocks,
  if these repeat so that all layers have equally many. A mean of layers with
  gates, residuals or untied leaves is no layer of a program: apply one program
  after the other.

  Args:
    first: the program that is applied to the network.
    second: the program that is applied to the result; its depth is the number
      of layers of ``first``.

  Returns:
    A program of ``first.depth``.

  Raises:
    ValueError: in one line, if the depths differ, the rules of leaves differ,
      or a layer is no layer of a program.

  Example:
    >>> from wsl import surgery
    >>> twice = surgery.stack(2, times=2)
    >>> cut = surgery.skip(4, start=1, stop=3)
    >>> [layer.sources for layer in compose_programs(twice, cut).layers]
    [(0,), (1,)]
  """
  program_lib.check_program(first)
  program_lib.check_program(second)
  if second.depth != len(first.layers):
    raise ValueError(
      f'compose_programs: the first makes {len(first.layers)} layers, the '
      f'second is for {second.depth}'
    )
  # Groups of the second keep their numbers, those of the first follow.
  used = [x.tied for x in second.layers if x.tied is not None]
  offset = max(used, default=-1) + 1
  layers = tuple(
    _layer(i, layer, first.layers, offset)
    for i, layer in enumerate(second.layers)
  )
  rules = {
    name: _rule(name, getattr(first, name), getattr(second, name))
    for name in ('untied', 'gated')
  }
  return program_lib.check_program(
    program_lib.Program(first.depth, layers, rules['untied'], rules['gated'])
  )


def _layer(
  i: int,
  layer: program_lib.Layer,
  before: Sequence[program_lib.Layer],
  offset: int,
) -> program_lib.Layer:
  """Returns a layer of the second program over the blocks of the first."""
  sources = [before[s] for s in layer.sources]
  own = None if layer.own is None else before[layer.own]
  if len(sources) == 1 and own is None:
    (one,) = sources
    tied = layer.tied
    if tied is None and one.tied is not None:
      tied = one.tied + offset
    return one._replace(tied=tied, gate=one.gate * layer.gate)
  plain = all(
    x == program_lib.Layer(x.sources, x.tied)
    for x in [*sources, *([] if own is None else [own])]
  )
  if not plain or (own is not None and len(own.sources) > 1):
    raise ValueError(
      f'compose_programs: layer {i} of the second program combines layers that '
      'are no copies of blocks: apply one program after the other'
    )
  # The mean of means of n_1, n_2, ... blocks is the mean of all of them, each
  # block of mean j repeated lcm(n) / n_j times.
  count = math.lcm(*(len(x.sources) for x in sources))
  blocks = [x.sources * (count // len(x.sources)) for x in sources]
  return layer._replace(
    sources=tuple(b for block in blocks for b in block),
    own=None if own is None else own.sources[0],
  )


def _rule(name: str, one: str | None, other: str | None) -> str | None:
  """Returns the rule of leaves of both programs."""
  if one is not None and other is not None and one != other:
    raise ValueError(
      f"compose_programs: {name}='{one}' and '{other}' differ: apply one "
      'program after the other'
    )
  return other if one is None else one
