"""The routes of a family of anchors, by the number of stitches."""

from collections.abc import Mapping

from wsl.stitch._routes import routing, sn_net


def routes(
  depths: Mapping[str, int], *, hops: int = 1, window: int = 2, stride: int = 1
) -> tuple[routing.Route, ...]:
  """Lists the routes of a family of anchors.

  One hop is SN-Net (``sn_net_routes``): from a smaller anchor to the next
  larger one. Two hops are SN-Netv2 (``sn_net_v2_routes``): between two anchors
  in both directions. For any other family, write a tuple of ``Route``.

  Args:
    depths: number of blocks of each anchor by name, from the least complex
      anchor to the most; two anchors for two hops.
    hops: maximal number of stitches in a route, 1 or 2.
    window: of one hop, see ``sn_net_routes``.
    stride: of one hop, see ``sn_net_routes``.

  Returns:
    The routes of the anchors, then the stitched ones.

  Raises:
    ValueError: if ``hops`` is not 1 or 2, or as the two functions.

  Example:
    >>> len(routes({'tiny': 12, 'small': 12, 'base': 12}))
    71
    >>> len(routes({'small': 12, 'large': 24}, hops=2))
    135

  Reference:
    Pan et al., "Stitchable Neural Networks", 2023, arXiv:2302.06586; "Stitched
    ViTs are Flexible Vision Backbones", 2023, arXiv:2307.00154.
  """
  if hops == 1:
    return sn_net.sn_net_routes(depths, window=window, stride=stride)
  if hops == 2:
    return sn_net.sn_net_v2_routes(depths)
  raise ValueError(f'routes(hops={hops}): expected 1 or 2')
