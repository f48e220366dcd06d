"""From models to task vectors, and from a delta to a model.

Shapes are checked here, with the leaf's name in the message, so that nothing
broadcasts silently inside a method.

Leaves that are not weights: an integer (or bool) leaf is ``None`` in the deltas
and copied from the base by ``apply``. It must be equal in all models, except a
single number (a counter): integers that differ are usually quantised weights. A
running statistic stored as floats is merged like a weight, so leave it out of
the tree, or recompute it after the merge.

Without ``jax_enable_x64``, leaves of float64 are computed in float64 too, and
are numpy arrays; inside ``jit`` they are an error.
"""

from wsl.deltas._apply import apply as apply
from wsl.deltas._check import check as check
from wsl.deltas._dense import dense as dense
from wsl.deltas._factors import check_shapes as check_shapes
from wsl.deltas._factors import Factors as Factors
from wsl.deltas._factors import is_factors as is_factors
from wsl.deltas._factors import placeholders as placeholders
from wsl.deltas._factors import times as times
from wsl.deltas._methods import check_stacked as check_stacked
from wsl.deltas._methods import on_models as on_models
from wsl.deltas._methods import on_stacks as on_stacks
from wsl.deltas._stack import stack as stack
from wsl.deltas._unmatched import Unmatched as Unmatched
from wsl.deltas._unmatched import unmatched as unmatched
