"""Alignment: find a model's symmetry, match, permute and merge."""

from wsl.align._activations.activation_matching import (
  activation_matching as activation_matching,
)
from wsl.align._agreement import agreement as agreement
from wsl.align._arguments import check_leaves as check_leaves
from wsl.align._assignment import assign_lapx as assign_lapx
from wsl.align._assignment import assign_optax as assign_optax
from wsl.align._assignment import assign_scipy as assign_scipy
from wsl.align._batch_norm import reset_batch_stats as reset_batch_stats
from wsl.align._check.check import check as check
from wsl.align._check.check import Report as Report
from wsl.align._explain import explain as explain
from wsl.align._find.find import find_symmetry as find_symmetry
from wsl.align._gauges.absorb import absorb_norms as absorb_norms
from wsl.align._gauges.absorb import Absorbed as Absorbed
from wsl.align._gauges.balance.balance import balance as balance
from wsl.align._gauges.balance.balance import Balanced as Balanced
from wsl.align._gauges.compose import compose as compose
from wsl.align._gauges.compose import invert as invert
from wsl.align._gauges.elements import Gauge as Gauge
from wsl.align._gauges.symmetry_json import from_json as from_json
from wsl.align._gauges.symmetry_json import to_json as to_json
from wsl.align._learned.learned_matching import Learned as Learned
from wsl.align._learned.learned_matching import (
  learned_matching as learned_matching,
)
from wsl.align._learned.straight_through import (
  straight_through as straight_through,
)
from wsl.align._match.weight_matching import Visit as Visit
from wsl.align._match.weight_matching import weight_matching as weight_matching
from wsl.align._partial.merge_cost import partial_cost as partial_cost
from wsl.align._partial.pleas import PartialMerge as PartialMerge
from wsl.align._partial.pleas import pleas as pleas
from wsl.align._partial.unit_gains import mismatch as mismatch
from wsl.align._partial.unit_gains import unit_gains as unit_gains
from wsl.align._partial.width_weights import width_weights as width_weights
from wsl.align._partial.widths import widths as widths
from wsl.align._permutation import identity as identity
from wsl.align._permutation import Permutation as Permutation
from wsl.align._permutation import permute as permute
from wsl.align._permutation import random as random
from wsl.align._relaxed.match_many import match_many as match_many
from wsl.align._relaxed.match_many import Sweep as Sweep
from wsl.align._relaxed.merge_many import merge_many as merge_many
from wsl.align._relaxed.projection import sinkhorn_project as sinkhorn_project
from wsl.align._relaxed.sinkhorn import sinkhorn as sinkhorn
from wsl.align._repair import repair as repair
from wsl.align._repair_in_closed_form import (
  repair_in_closed_form as repair_in_closed_form,
)
from wsl.align._symmetry import Action as Action
from wsl.align._symmetry import Factor as Factor
from wsl.align._symmetry import GAUGES as GAUGES
from wsl.align._symmetry import Interleaved as Interleaved
from wsl.align._symmetry import Power as Power
from wsl.align._symmetry import Symmetry as Symmetry
from wsl.align._transport.transport import Transport as Transport
from wsl.align._transport.transport import transport as transport
