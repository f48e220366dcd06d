"""Networks made of parts of others: segments, adapters and routes."""

from wsl.stitch._adapter import Adapter as Adapter
from wsl.stitch._adapter import apply_adapter as apply_adapter
from wsl.stitch._adapter import Norm as Norm
from wsl.stitch._adapter import trainable as trainable
from wsl.stitch._anchors import Anchors as Anchors
from wsl.stitch._anchors import anchors as anchors
from wsl.stitch._anchors import check_anchors as check_anchors
from wsl.stitch._backward import bct_loss as bct_loss
from wsl.stitch._backward import bt2_loss as bt2_loss
from wsl.stitch._backward import class_means as class_means
from wsl.stitch._basis import Basis as Basis
from wsl.stitch._basis import basis_transform as basis_transform
from wsl.stitch._basis import random_basis as random_basis
from wsl.stitch._compatibility import (
  average_compatibility as average_compatibility,
)
from wsl.stitch._compatibility import (
  compatibility_matrix as compatibility_matrix,
)
from wsl.stitch._compatibility import retrieval as retrieval
from wsl.stitch._fit import fit as fit
from wsl.stitch._fit_moments import fit_moments as fit_moments
from wsl.stitch._fit_moments import settle as settle
from wsl.stitch._incubate import hybrid as hybrid
from wsl.stitch._incubate import incubation as incubation
from wsl.stitch._modules import assemble as assemble
from wsl.stitch._modules import meta as meta
from wsl.stitch._modules import split as split
from wsl.stitch._modules import stack_modules as stack_modules
from wsl.stitch._modules import unstack_modules as unstack_modules
from wsl.stitch._orthogonal import orthogonal as orthogonal
from wsl.stitch._pareto import pareto as pareto
from wsl.stitch._relative import relative as relative
from wsl.stitch._route import check_route as check_route
from wsl.stitch._route import Family as Family
from wsl.stitch._route import materialize as materialize
from wsl.stitch._route import Piece as Piece
from wsl.stitch._route import Route as Route
from wsl.stitch._route import stitch as stitch
from wsl.stitch._sampling import random_route as random_route
from wsl.stitch._sampling import route_probabilities as route_probabilities
from wsl.stitch._segmented import advance as advance
from wsl.stitch._segmented import apply as apply
from wsl.stitch._segmented import features as features
from wsl.stitch._segmented import Segmented as Segmented
from wsl.stitch._simplex import hoc_loss as hoc_loss
from wsl.stitch._simplex import simplex as simplex
from wsl.stitch._sn_net import sn_net_routes as sn_net_routes
from wsl.stitch._sn_net import sn_net_v2_routes as sn_net_v2_routes
