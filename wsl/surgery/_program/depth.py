"""Programs that copy, repeat and leave out blocks."""

from collections.abc import Sequence

from wsl import tree
from wsl.surgery._program import program as program_lib

_ORDERS = ('whole', 'each')


def stack(
  depth: int, *, times: int, order: str = 'whole'
) -> program_lib.Program:
  r"""Repeats a trained network of n blocks, to continue as a deeper one.

  .. math:: W'_i = W_{i \bmod n}, \qquad i = 0 \dots g n - 1

  It does not preserve the function: the loss rises at the growth.

  Args:
    depth: the number n of blocks.
    times: the growth factor g; the authors recommend 4.
    order: ``'whole'``, the equation; or ``'each'``: every block follows its own
      copies, :math:`W_{\lfloor i / g \rfloor}`, which the authors find worse.

  Returns:
    The program; copies are independent.

  Raises:
    ValueError: if ``times`` is less than 1, or the order is unknown.

  Example:
    >>> [x.sources[0] for x in stack(2, times=2).layers]
    [0, 1, 0, 1]

  Reference:
    Du et al., "Stacking Your Transformers: A Closer Look at Model Growth for
    Efficient LLM Pre-Training", 2024, arXiv:2405.15319.
  """
  tree.check_whole('stack', times=times)
  if times < 1:
    raise ValueError(f'stack: times={times}: expected 1 or more')
  if order not in _ORDERS:
    hint = tree.nearest(str(order), _ORDERS)
    raise ValueError(f'stack: order={order!r}: expected {_ORDERS}{hint}')
  blocks = [i % depth for i in range(times * depth)]
  return program_lib.program_of(
    depth, blocks if order == 'whole' else sorted(blocks)
  )


def passthrough(
  depth: int, *, slices: Sequence[tuple[int, int]]
) -> program_lib.Program:
  r"""Concatenates slices of a network's blocks, which may overlap.

  The ``passthrough`` merges of mergekit for one model; ``wsl.recipes`` has them
  for several. Depth up-scaling of n blocks by m (SOLAR) is
  ``slices=[(0, n - m), (m, n)]``; gradual stacking of the top k blocks is
  ``[(0, n), (n - k, n)]``.

  Args:
    depth: the number of blocks.
    slices: ranges ``(start, stop)``, the stop excluded.

  Returns:
    The program; copies are independent.

  Raises:
    ValueError: if a range is empty or outside of ``0..depth``.

  Example:
    >>> [x.sources[0] for x in passthrough(4, slices=[(0, 3), (1, 4)]).layers]
    [0, 1, 2, 1, 2, 3]

  Reference:
    Kim et al., "SOLAR 10.7B: Scaling Large Language Models with Simple yet
    Effective Depth Up-Scaling", 2023, arXiv:2312.15166; Goddard et al.,
    "Arcee's MergeKit: A Toolkit for Merging Large Language Models", 2024,
    arXiv:2403.13257.
  """
  for start, stop in slices:
    _check_range('passthrough', depth, start, stop)
  return program_lib.program_of(
    depth, [i for start, stop in slices for i in range(start, stop)]
  )


def skip(depth: int, *, start: int, stop: int) -> program_lib.Program:
  """Leaves out the blocks ``start, ..., stop - 1``.

  Args:
    depth: the number of blocks.
    start: the first block left out.
    stop: the first block kept after it.

  Returns:
    The program.

  Raises:
    ValueError: if the range is empty, outside of ``0..depth``, or the whole.

  Example:
    >>> [x.sources[0] for x in skip(4, start=1, stop=3).layers]
    [0, 3]

  Reference:
    Li et al., "Skip a Layer or Loop it? Test-Time Depth Adaptation of
    Pretrained LLMs", 2025, arXiv:2507.07996.
  """
  _check_range('skip', depth, start, stop)
  return program_lib.program_of(depth, [*range(start), *range(stop, depth)])


def loop(
  depth: int, *, start: int, stop: int, times: int
) -> program_lib.Program:
  """Repeats the blocks ``start, ..., stop - 1`` with shared weights.

  Args:
    depth: the number of blocks.
    start: the first block of the loop.
    stop: the first block after it.
    times: how often it runs, in all; 1 is the network itself.

  Returns:
    The program; the passes of a loop are tied.

  Raises:
    ValueError: if the range is empty or outside of ``0..depth``, or ``times``
      is less than 1.

  Example:
    >>> program = loop(3, start=1, stop=2, times=3)
    >>> [x.sources[0] for x in program.layers], program.layers[3].tied
    ([0, 1, 1, 1, 2], 1)

  Reference:
    Li et al., "Skip a Layer or Loop it? Test-Time Depth Adaptation of
    Pretrained LLMs", 2025, arXiv:2507.07996.
  """
  _check_range('loop', depth, start, stop)
  tree.check_whole('loop', times=times)
  if times < 1:
    raise ValueError(f'loop: times={times}: expected 1 or more')
  path = [*range(start), *[*range(start, stop)] * times, *range(stop, depth)]
  return path_program(depth, path)


def path_program(depth: int, path: Sequence[int]) -> program_lib.Program:
  """Returns the program of a path; passes through one block are tied.

  Args:
    depth: the number of blocks.
    path: blocks in the order of evaluation, such as those ``cola`` finds;
      negative entries are padding.

  Returns:
    The program.

  Raises:
    ValueError: if there is no such block, or the path is empty.

  Example:
    >>> [x.tied for x in path_program(3, [0, 1, 1, -1]).layers]
    [None, 1, 1]
  """
  blocks = [int(i) for i in path if i >= 0]
  layers = tuple(
    program_lib.Layer((i,), tied=i if blocks.count(i) > 1 else None)
    for i in blocks
  )
  return program_lib.check_program(program_lib.Program(depth, layers))


def insert_identity(
  depth: int, *, after: Sequence[int], gated: str
) -> program_lib.Program:
  r"""Inserts copies of blocks that begin as the identity (G_zero).

  .. math:: h + g F(h), \qquad g = 0

  A block of pre-normalised residual branches whose last linear maps are zero
  returns its input, so the deeper network computes what the network did, and
  these maps learn at the first step.

  Args:
    depth: the number of blocks.
    after: the blocks after which a copy is inserted, with repetitions.
    gated: a regular expression: the leaves that end the branches of a block,
      with their biases, such as ``'(attention/out|mlp/down)/kernel'``.

  Returns:
    The program.

  Raises:
    ValueError: if there is no such block.

  Example:
    >>> program = insert_identity(2, after=[1], gated='out')
    >>> [(x.sources[0], x.gate) for x in program.layers]
    [(0, 1.0), (1, 1.0), (1, 0.0)]

  Reference:
    Du et al., "Stacking Your Transformers: A Closer Look at Model Growth for
    Efficient LLM Pre-Training", 2024, arXiv:2405.15319 (its operator G_zero);
    Wu et al., "LLaMA Pro: Progressive LLaMA with Block Expansion", 2024,
    arXiv:2401.02415.
  """
  for i in after:
    _check_range('insert_identity', depth, i, i + 1)
  layers = []
  for i in range(depth):
    layers.append(program_lib.Layer((i,)))
    layers += [program_lib.Layer((i,), gate=0.0)] * list(after).count(i)
  return program_lib.check_program(
    program_lib.Program(depth, tuple(layers), gated=gated)
  )


def _check_range(label: str, depth: int, start: int, stop: int) -> None:
  """Checks a range of blocks."""
  tree.check_whole(label, depth=depth, start=start, stop=stop)
  if not 0 <= start < stop <= depth:
    raise ValueError(
      f'{label}: blocks {start}..{stop - 1} are not among 0..{depth - 1}: '
      'give whole numbers, the start below the stop'
    )
