"""Recursive networks from deep ones, with low-rank residuals."""

from wsl import tree
from wsl.surgery._program import program as program_lib

_INITS = ('stepwise', 'average', 'lower')


def recursive(
  depth: int,
  *,
  loops: int,
  init: str,
  rank: int = 0,
  untied: str | None = None,
) -> program_lib.Program:
  r"""Loops a stack of shared blocks in place of a deep network.

  .. math:: W_l = W'_{l \bmod K} + B_l A_l, \qquad K = L / B

  The residual is the best approximation of rank r of layer l's own weight minus
  the shared one. Without it the network is a pure cycle.

  Args:
    depth: the number L of blocks.
    loops: the number B of passes; it divides L.
    init: the shared blocks W'_k:

      - ``'stepwise'``: blocks at equal stride, the first and the last among
        them; the authors find it best without residuals.
      - ``'average'``: the mean of the B blocks that share W'_k, which has the
        least squared distance to them; best with residuals.
      - ``'lower'``: the first K blocks.

    rank: the rank r of the residuals.
    untied: a regular expression of the leaves that each layer keeps from its
      own block, such as ``'norm'``. By default everything is shared. With the
      full rank and all vectors untied, the network is the original one.

  Returns:
    The program, of L layers; ``tie`` keeps the K blocks and the factors.

  Raises:
    ValueError: if ``loops`` does not divide the depth, or an argument is out of
      range.

  Example:
    >>> [x.sources for x in recursive(4, loops=2, init='average').layers]
    [(0, 2), (1, 3), (0, 2), (1, 3)]
    >>> [x.sources for x in recursive(6, loops=2, init='stepwise').layers][:3]
    [(0,), (2,), (5,)]

  Reference:
    Bae et al., "Relaxed Recursive Transformers: Effective Parameter Sharing
    with Layer-wise LoRA", 2024, arXiv:2410.20672. A reconstruction: no code is
    public; the stride of ``'stepwise'`` is rounded down to a block.
  """
  tree.check_whole('recursive', depth=depth, loops=loops)
  if loops < 1 or depth % loops:
    raise ValueError(
      f'recursive: loops={loops} does not divide the depth {depth}: drop '
      'blocks first, by skip'
    )
  if init not in _INITS:
    hint = tree.nearest(str(init), _INITS)
    raise ValueError(f'recursive: init={init!r}: expected {_INITS}{hint}')
  size = depth // loops
  layers = []
  for i in range(depth):
    k = i % size
    sources = {
      'stepwise': (k * (depth - 1) // max(size - 1, 1),),
      'average': tuple(range(k, depth, size)),
      'lower': (k,),
    }[init]
    own = i if rank or untied is not None else None
    layers.append(program_lib.Layer(sources, tied=k, own=own, rank=rank))
  return program_lib.check_program(
    program_lib.Program(depth, tuple(layers), untied=untied)
  )
