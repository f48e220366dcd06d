"""Networks assembled from parts of other networks.

A network consists of an embedding, blocks and a head (``Segmented``); its
positions are the values before, between and after the blocks. A ``Route``
combines pieces of the networks of a ``Family``, with an adapter at each change
of networks. ``materialize`` returns the network of one route; ``program``
returns one compiled, differentiable function for all routes.

Example:
  >>> import jax
  >>> from wsl import models, stitch
  >>> x = jax.random.normal(jax.random.key(0), (100, 4))
  >>> networks = {}
  >>> for name, width in {'small': 8, 'large': 16}.items():
  ...   mlp = models.MLP(widths=(width, width), outputs=3)
  ...   params = jax.jit(mlp.init)(jax.random.key(width), x)['params']
  ...   networks[name] = stitch.Segmented(*models.segments(mlp, params))
  >>> small, large = networks.values()
  >>> adapters = stitch.fit_pairs(small, large, [x], pairs=[(1, 1)])
  >>> family = stitch.Family(networks, {'up': adapters[1, 1]})
  >>> up = (stitch.Piece('small', 0, 1), stitch.Piece('large', 1, 2))
  >>> routes = [
  ...   stitch.Route((stitch.Piece('small', 0, 2),)),
  ...   stitch.Route(up, adapters=('up',)),
  ...   stitch.Route((stitch.Piece('large', 0, 2),))]
  >>> apply_fn, rows = stitch.program(family, routes)
  >>> [apply_fn(family, row, x).shape for row in rows]
  [(100, 3), (100, 3), (100, 3)]
  >>> costs = stitch.cost(family, x[:1])
  >>> [stitch.route_cost(costs, route).parameters for route in routes]
  [171, 555, 467]
"""

from wsl.stats import Cost as Cost
from wsl.stitch._adapter import Adapter as Adapter
from wsl.stitch._adapter import apply_adapter as apply_adapter
from wsl.stitch._adapter import fold as fold
from wsl.stitch._adapter import Norm as Norm
from wsl.stitch._adapter import trainable as trainable
from wsl.stitch._anchors import Anchors as Anchors
from wsl.stitch._anchors import anchors as anchors
from wsl.stitch._anchors import check_anchors as check_anchors
from wsl.stitch._assembly.dery_partition import Partition as Partition
from wsl.stitch._assembly.dery_partition import partition as partition
from wsl.stitch._assembly.dery_reassembly import reassemble as reassemble
from wsl.stitch._assembly.dery_reassembly import Reassembly as Reassembly
from wsl.stitch._assembly.descendant import build_descendant as build_descendant
from wsl.stitch._assembly.descendant import compose_maps as compose_maps
from wsl.stitch._assembly.descendant import descendant as descendant
from wsl.stitch._assembly.descendant import distilled as distilled
from wsl.stitch._assembly.incubation import hybrid as hybrid
from wsl.stitch._assembly.incubation import incubation as incubation
from wsl.stitch._assembly.incubation import insert_module as insert_module
from wsl.stitch._assembly.learngene import Auxiliary as Auxiliary
from wsl.stitch._assembly.learngene import auxiliary as auxiliary
from wsl.stitch._assembly.learngene import (
  dense_distillation as dense_distillation,
)
from wsl.stitch._assembly.m2m import m2m as m2m
from wsl.stitch._assembly.m2m import Student as Student
from wsl.stitch._assembly.modules import assemble as assemble
from wsl.stitch._assembly.modules import meta as meta
from wsl.stitch._assembly.modules import meta_model as meta_model
from wsl.stitch._assembly.modules import split as split
from wsl.stitch._assembly.modules import stack_modules as stack_modules
from wsl.stitch._assembly.modules import unstack_modules as unstack_modules
from wsl.stitch._assembly.naswot import naswot as naswot
from wsl.stitch._compatible.basis_transform import Basis as Basis
from wsl.stitch._compatible.basis_transform import (
  basis_transform as basis_transform,
)
from wsl.stitch._compatible.basis_transform import random_basis as random_basis
from wsl.stitch._compatible.bct import bct_loss as bct_loss
from wsl.stitch._compatible.bct import bt2_loss as bt2_loss
from wsl.stitch._compatible.bct import class_means as class_means
from wsl.stitch._compatible.compatibility import (
  average_compatibility as average_compatibility,
)
from wsl.stitch._compatible.compatibility import (
  compatibility_matrix as compatibility_matrix,
)
from wsl.stitch._compatible.retrieval import retrieval as retrieval
from wsl.stitch._compatible.rotation import orthogonal as orthogonal
from wsl.stitch._compatible.simplex import hoc_loss as hoc_loss
from wsl.stitch._compatible.simplex import simplex as simplex
from wsl.stitch._compatible.translate import invert as invert
from wsl.stitch._compatible.translate import translate as translate
from wsl.stitch._cut import cut as cut
from wsl.stitch._fit.closed_form import fit_moments as fit_moments
from wsl.stitch._fit.family import fit_family as fit_family
from wsl.stitch._fit.family import fit_joints as fit_joints
from wsl.stitch._fit.feature_moments import moments as moments
from wsl.stitch._fit.features import fit as fit
from wsl.stitch._fit.features import fit_each as fit_each
from wsl.stitch._fit.features import fit_pairs as fit_pairs
from wsl.stitch._fit.norm_moments import set_norm_moments as set_norm_moments
from wsl.stitch._fit.norm_moments import settle as settle
from wsl.stitch._fuse.distributions import (
  fuse_probabilities as fuse_probabilities,
)
from wsl.stitch._fuse.distributions import fusion_loss as fusion_loss
from wsl.stitch._fuse.distributions import (
  transfer_probabilities as transfer_probabilities,
)
from wsl.stitch._fuse.tokens import align_tokens as align_tokens
from wsl.stitch._fuse.tokens import map_vocabulary as map_vocabulary
from wsl.stitch._penalty.all_pairs import cut_errors as cut_errors
from wsl.stitch._penalty.all_pairs import cut_outputs as cut_outputs
from wsl.stitch._penalty.all_pairs import penalty_loss as penalty_loss
from wsl.stitch._penalty.penalty import Penalty as Penalty
from wsl.stitch._penalty.penalty import penalty as penalty
from wsl.stitch._penalty.penalty import Stitched as Stitched
from wsl.stitch._relative import relative as relative
from wsl.stitch._resize import resize as resize
from wsl.stitch._routes.cost import cost as cost
from wsl.stitch._routes.cost import Costs as Costs
from wsl.stitch._routes.cost import route_cost as route_cost
from wsl.stitch._routes.families import routes as routes
from wsl.stitch._routes.joints import Joint as Joint
from wsl.stitch._routes.joints import joint_moments as joint_moments
from wsl.stitch._routes.joints import joints as joints
from wsl.stitch._routes.program import program as program
from wsl.stitch._routes.routing import check_route as check_route
from wsl.stitch._routes.routing import Family as Family
from wsl.stitch._routes.routing import materialize as materialize
from wsl.stitch._routes.routing import Piece as Piece
from wsl.stitch._routes.routing import Route as Route
from wsl.stitch._routes.routing import stitch as stitch
from wsl.stitch._routes.sampling import random_route as random_route
from wsl.stitch._routes.sampling import (
  route_probabilities as route_probabilities,
)
from wsl.stitch._routes.selection import pareto as pareto
from wsl.stitch._routes.selection import route_similarity as route_similarity
from wsl.stitch._routes.selection import select_routes as select_routes
from wsl.stitch._routes.sn_net import sn_net_routes as sn_net_routes
from wsl.stitch._routes.sn_net import sn_net_v2_routes as sn_net_v2_routes
from wsl.stitch._segmented import advance as advance
from wsl.stitch._segmented import apply as apply
from wsl.stitch._segmented import features as features
from wsl.stitch._segmented import Segmented as Segmented
