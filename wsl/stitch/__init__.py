"""Networks made of parts of others: segments, adapters and routes."""

from wsl.stitch._adapter import Adapter as Adapter
from wsl.stitch._adapter import apply_adapter as apply_adapter
from wsl.stitch._incubate import hybrid as hybrid
from wsl.stitch._incubate import incubation as incubation
from wsl.stitch._modules import assemble as assemble
from wsl.stitch._modules import meta as meta
from wsl.stitch._modules import split as split
from wsl.stitch._modules import stack_modules as stack_modules
from wsl.stitch._modules import unstack_modules as unstack_modules
from wsl.stitch._pareto import pareto as pareto
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
from wsl.stitch._sn_net import sn_net_routes as sn_net_routes
from wsl.stitch._sn_net import sn_net_v2_routes as sn_net_v2_routes
