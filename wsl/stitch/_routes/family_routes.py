"""The networks that a family of anchors can be."""

from collections.abc import Mapping

from wsl.stitch._routes import route_check, sn_net


def routes(
  depths: Mapping[str, int], *, hops: int = 1, window: int = 2, stride: int = 1
) -> tuple[route_check.Route, ...]:
  """Lists the networks that anchors become when they are stitched.

  One hop is SN-Net (``sn_net_routes``): a less complex network begins, the next
  one ends. Two hops are SN-Netv2 (``sn_net_v2_routes``): two networks, there
  and back. Any other family is a tuple of ``Route`` written by hand.

  Args:
    depths: blocks of every anchor by name, from the least complex to the most;
      two anchors for two hops.
    hops: stitches in a route at most, 1 or 2.
    window: of one hop, see ``sn_net_routes``.
    stride: likewise.

  Returns:
    The anchors, then what is stitched.

  Raises:
    ValueError: if there are not 1 or 2 hops, or as the two functions.

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
