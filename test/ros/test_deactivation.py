# SPDX-License-Identifier: Apache-2.0
"""Deactivated, the node holds no forecaster and nothing of the GPU; activated again, it forecasts as before."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

pytest.importorskip("rclpy")
pytest.importorskip("pixel4d_ros.msg", reason="the package is not built: make setup")

import torch
from lifecycle_msgs.msg import Transition
from pixel4d_ros.srv import ForecastTrajectories
from support.harness import Client, call, path, transition
from support.node_in_process import node_in_process

from pixel4d_ros.forecaster import DeviceError, Forecaster

pytestmark = [pytest.mark.ros, pytest.mark.usefixtures("ros_context")]
MIB = 2**20
Load = Callable[[str | None, str], Forecaster]


@pytest.fixture
def started() -> Iterator[Callable[..., Client]]:
    """Starts an inactive node in this process, so that its memory can be seen; its client."""
    with ExitStack() as stack:

        def start(load: Load, device: str) -> Client:
            stack.enter_context(node_in_process(load, "resting", active=False, device=device))
            client = Client(namespace="resting")
            stack.callback(client.destroy_node)
            assert transition(client, Transition.TRANSITION_CONFIGURE) == "inactive"
            return client

        yield start


def work(client: Client, seconds: float) -> None:
    """Activate the node, have it forecast and answer, and deactivate it."""
    assert transition(client, Transition.TRANSITION_ACTIVATE) == "active"
    client.connect()
    client.send_odometry(seconds)
    client.settle()
    client.forecast(seconds)
    request = ForecastTrajectories.Request(trajectories=[path(seconds)], with_images=True)
    answer = call(client, ForecastTrajectories, "forecast_node/forecast_trajectories", request)
    assert answer.success, answer.message
    assert transition(client, Transition.TRANSITION_DEACTIVATE) == "inactive"


def test_nothing_of_the_forecaster_is_left(started) -> None:
    made: list[weakref.ref] = []
    scenes: list[weakref.ref] = []

    def load(weights: str | None, device: str) -> Forecaster:
        forecaster = Forecaster.load(weights, device)
        predict = forecaster.predict

        def predicted(*words, **options):
            scene = predict(*words, **options)
            scenes.append(weakref.ref(scene.means))
            return scene

        forecaster.predict = predicted
        made.append(weakref.ref(forecaster.predictor))
        return forecaster

    client = started(load, "cpu")
    for round_ in (1, 2):
        work(client, 10.0 * round_)
        gc.collect()
        assert len(made) == round_ and scenes
        assert [reference() for reference in (*made, *scenes)] == [None] * (len(made) + len(scenes))
        assert client.values()["weights"] == "not loaded"


def test_weights_that_cannot_be_loaded_again_leave_it_inactive_with_the_reason(started) -> None:
    loads = iter([None, DeviceError("not enough memory on cuda"), None])

    def load(weights: str | None, device: str) -> Forecaster:
        error = next(loads)
        if error is not None:
            raise error
        return Forecaster.load(weights, device)

    client = started(load, "cpu")
    work(client, 1.0)
    assert transition(client, Transition.TRANSITION_ACTIVATE) == "inactive"
    status = client.status()
    assert (status.level, status.message) == (b"\x02", "activate: not enough memory on cuda")
    work(client, 11.0)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_the_gpu_is_free(started) -> None:
    """What torch holds of the GPU before, while active and after, over and over."""
    torch.ones(1, device="cuda").item()
    torch.cuda.empty_cache()
    before = torch.cuda.memory_allocated()
    client = started(Forecaster.load, "cuda")
    assert torch.cuda.memory_allocated() - before > 10 * MIB  # the weights
    for round_ in (1, 2, 3):
        work(client, 10.0 * round_)
        left, kept = torch.cuda.memory_allocated() - before, torch.cuda.memory_reserved()
        assert left < MIB, f"{left / MIB:.1f} MiB are still allocated"
        assert kept < 4 * MIB, f"torch still holds {kept / MIB:.1f} MiB"
