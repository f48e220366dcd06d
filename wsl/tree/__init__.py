"""Pytrees of parameters: names, choice, maps, sums, and leaves on demand."""

from wsl.tree._kth import kth_magnitude as kth_magnitude
from wsl.tree._kth import reaches as reaches
from wsl.tree._map import broadcast_prefix as broadcast_prefix
from wsl.tree._map import map as map
from wsl.tree._map import read as read
from wsl.tree._map import sizes as sizes
from wsl.tree._map import stack as stack
from wsl.tree._names import by_regex as by_regex
from wsl.tree._names import check_names as check_names
from wsl.tree._names import compiled as compiled
from wsl.tree._names import map_named as map_named
from wsl.tree._names import named as named
from wsl.tree._names import nearest as nearest
from wsl.tree._names import select as select
from wsl.tree._on_demand import apply_kernel as apply_kernel
from wsl.tree._on_demand import Computed as Computed
from wsl.tree._on_demand import defer as defer
from wsl.tree._on_demand import on_demand as on_demand
from wsl.tree._on_demand import OnDemand as OnDemand
from wsl.tree._on_demand import Static as Static
from wsl.tree._on_demand import Stored as Stored
from wsl.tree._partial import partial as partial
from wsl.tree._total import norm as norm
from wsl.tree._total import sum_entries as sum_entries
from wsl.tree._total import total as total
from wsl.tree._total import wide as wide
