# SPDX-License-Identifier: Apache-2.0
"""What several test files share: sample data, a client of the node, and processes in a ROS domain of their own.

Imported as `from support.log_samples import write_mcap`; pytest puts `test/` on the path (pyproject.toml).
"""
