# SPDX-License-Identifier: Apache-2.0
"""Tests that run side by side do not hear each other."""

from __future__ import annotations

from support.ros_domain import ros_domain


def test_workers_have_domains_of_their_own(monkeypatch):
    monkeypatch.setenv("PYTEST_XDIST_WORKER_COUNT", "3")
    domains = []
    for worker in range(3):
        monkeypatch.setenv("PYTEST_XDIST_WORKER", f"gw{worker}")
        domains.append({ros_domain(seed) for seed in range(500)})
    assert not domains[0] & domains[1] | domains[1] & domains[2] | domains[0] & domains[2]
    assert all(min(some) >= 1 and max(some) <= 100 for some in domains)
