"""A layer program: the blocks of which each layer of a new network is made."""

from collections.abc import Iterable
import json
import math
from typing import Any, NamedTuple

import numpy as np

from wsl import tree

_FORMAT = 'wsl.surgery.program'
_VERSION = 1


class Layer(NamedTuple):
  r"""One block of the new network.

  .. math:: W = \frac{1}{|S|} \sum_{s \in S} W_s + B A, \qquad
    B A \approx W_o - \frac{1}{|S|} \sum_{s \in S} W_s

  Attributes:
    sources: the blocks S whose mean it is; one block is copied bit for bit.
      Repeated blocks count repeatedly.
    tied: layers of one number share one set of weights; None shares with none.
    own: the block o from which the leaves of ``Program.untied`` are taken, and
      which the residual approximates; None if there is neither.
    rank: the rank of the residual B A; 0 for none.
    gate: the factor of the leaves of ``Program.gated``.
  """

  sources: tuple[int, ...]
  tied: int | None = None
  own: int | None = None
  rank: int = 0
  gate: float = 1.0


class Program(NamedTuple):
  """A list of layers, each made of blocks of a network of ``depth`` blocks.

  A program is a value without arrays. It applies to every network of that
  depth, and is stored as JSON.

  Attributes:
    depth: the number of blocks of the network that it applies to.
    layers: of the new network, in the order of evaluation.
    untied: a regular expression, searched in the names of the leaves of a
      block: those that layers take from their ``own`` block, such as norms.
    gated: a regular expression: the leaves that end the residual branches of a
      block, such as ``'(out|down)/kernel'``. A gate of 0 makes it the identity.

  Example:
    >>> from wsl import surgery
    >>> twice = surgery.stack(2, times=2)
    >>> [layer.sources for layer in twice.layers]
    [(0,), (1,), (0,), (1,)]
  """

  depth: int
  layers: tuple[Layer, ...]
  untied: str | None = None
  gated: str | None = None


def program_of(depth: int, blocks: Iterable[int]) -> Program:
  """Returns the program that copies blocks in the given order.

  Args:
    depth: the number of blocks of the network.
    blocks: their numbers, 0 .. depth - 1, with repetitions.

  Returns:
    The program, whose copies are independent.

  Raises:
    ValueError: if there is no such block, or none is given.

  Example:
    >>> program_of(3, [0, 2, 2]).layers[2]
    Layer(sources=(2,), tied=None, own=None, rank=0, gate=1.0)
  """
  layers = tuple(Layer((int(i) if _is_whole(i) else i,)) for i in blocks)
  return check_program(Program(depth, layers))


def check_program(program: Program) -> Program:
  """Checks a program by itself, before it is applied.

  Args:
    program: any program.

  Returns:
    The program.

  Raises:
    ValueError: in one line, naming the layer, if a block does not exist, tied
      layers differ in their sources, or a field is out of range.

  Example:
    >>> check_program(Program(2, (Layer((0,)), Layer((5,)))))
    Traceback (most recent call last):
    ...
    ValueError: program: layer 1 names block 5: there are blocks 0..1
  """
  if not _is_whole(program.depth) or program.depth < 1:
    raise ValueError(f'program: depth={program.depth!r}: expected 1 or more')
  if not program.layers:
    raise ValueError('program: it has no layers: keep one at least')
  for name in ('untied', 'gated'):
    if getattr(program, name) is not None:
      tree.compiled(getattr(program, name))
  groups: dict[int, tuple[int, ...]] = {}
  for i, layer in enumerate(program.layers):
    _check_layer(i, layer, program)
    if layer.tied is not None:
      shared = groups.setdefault(layer.tied, layer.sources)
      if shared != layer.sources:
        raise ValueError(
          f'program: layer {i} is tied to group {layer.tied}, whose sources '
          f'are {shared}, its own {layer.sources}: tied layers have the same'
        )
  return program


def _check_layer(i: int, layer: Layer, program: Program) -> None:
  """Checks the fields of one layer."""
  optional = [x for x in (layer.own, layer.tied) if x is not None]
  for value in (*layer.sources, *optional, layer.rank):
    if not _is_whole(value):
      raise ValueError(
        f'program: layer {i} has {value!r} where a whole number is expected'
      )
  named = [*layer.sources, *([] if layer.own is None else [layer.own])]
  if not layer.sources:
    raise ValueError(f'program: layer {i} has no sources: name a block')
  for block in named:
    if not 0 <= block < program.depth:
      raise ValueError(
        f'program: layer {i} names block {block}: there are blocks '
        f'0..{program.depth - 1}'
      )
  if layer.rank < 0 or (layer.rank and layer.own is None):
    raise ValueError(
      f'program: layer {i} has rank={layer.rank} and own={layer.own}: a '
      'residual needs a rank >= 1 and its own block'
    )
  if not isinstance(layer.gate, (int, float)) or not math.isfinite(layer.gate):
    raise ValueError(f'program: layer {i} has gate={layer.gate!r}: not finite')
  if layer.gate != 1 and program.gated is None:
    raise ValueError(
      f'program: layer {i} has gate={layer.gate}: gated= must say which leaves '
      'end its branches'
    )


def program_to_json(program: Program) -> str:
  """Returns a program as JSON; a layer that copies a block is its number.

  Args:
    program: any program.

  Returns:
    The text, with the version of the format.

  Raises:
    ValueError: as ``check_program``.

  Example:
    >>> print(program_to_json(program_of(2, [0, 1, 1])))
    {"format": "wsl.surgery.program", "version": 1, "depth": 2,
     "layers": [0, 1, 1]}
  """
  check_program(program)
  layers = [_to_value(layer) for layer in program.layers]
  names = {'untied': program.untied, 'gated': program.gated}
  rules = {k: v for k, v in names.items() if v is not None}
  head = {'format': _FORMAT, 'version': _VERSION, 'depth': program.depth}
  start = json.dumps({**head, **rules}, default=int)[:-1]
  return f'{start},\n "layers": {json.dumps(layers, default=int)}}}'


def program_from_json(text: str) -> Program:
  """Returns the program that ``program_to_json`` has written.

  Args:
    text: JSON.

  Returns:
    The program, checked.

  Raises:
    ValueError: in one line, if the text is no such program.

  Example:
    >>> program = program_of(2, [0, 1, 1])
    >>> program_from_json(program_to_json(program)) == program
    True
  """
  try:
    content = json.loads(text)
    if content['format'] != _FORMAT or content['version'] != _VERSION:
      raise ValueError(
        f'format {content["format"]} {content["version"]}, expected {_FORMAT} '
        f'{_VERSION}'
      )
    unknown = {*content} - {'format', 'version', *Program._fields}
    if unknown:
      raise ValueError(f"unknown field '{min(unknown)}'")
    layers = tuple(_from_value(value) for value in content['layers'])
    program = Program(
      content['depth'],
      layers,
      content.get('untied'),
      content.get('gated'),
    )
  except (AttributeError, KeyError, TypeError, ValueError) as error:
    raise ValueError(
      f'program_from_json: not written by program_to_json: {error!r:.120}'
    ) from None
  return check_program(program)


def _to_value(layer: Layer) -> Any:
  """Returns a number for a plain copy, else the fields that are set."""
  defaults = Layer(())
  if layer == Layer(layer.sources) and len(layer.sources) == 1:
    return layer.sources[0]
  fields = zip(Layer._fields, layer, defaults, strict=True)
  return {name: value for name, value, default in fields if value != default}


def _from_value(value: Any) -> Layer:
  """Inverts ``_to_value``."""
  if isinstance(value, int):
    return Layer((value,))
  return Layer(**{**value, 'sources': tuple(value['sources'])})


def _is_whole(value: Any) -> bool:
  """Returns True for an integer that is no bool."""
  return isinstance(value, (int, np.integer)) and not isinstance(value, bool)
