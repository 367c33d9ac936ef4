# SPDX-License-Identifier: Apache-2.0
"""What every node needs, for the fork server of `support.node_process`: it imports this once, and each fork has it."""

from __future__ import annotations

import numba

import pixel4d_ros.rendering.numba_rasterizer
import pixel4d_ros.ros.forecast_node  # noqa: F401 (imported for the forks, as what follows)
import support.coarse_predictions  # noqa: F401

numba.njit(lambda: 0)()  # Compiling anything loads numba's own modules. Without threads: they would not survive a fork.
