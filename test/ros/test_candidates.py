# SPDX-License-Identifier: Apache-2.0
"""~/forecast_trajectories over DDS: several paths from one prediction, and what is wrong with bad requests."""

from __future__ import annotations

from dataclasses import dataclass, field
from threading import Event

import numpy as np
import pytest

pytest.importorskip("rclpy")
pytest.importorskip("pixel4d_ros.msg", reason="the package is not built: make setup")

from geometry_msgs.msg import Point32, Polygon
from lifecycle_msgs.msg import Transition, TransitionEvent
from lifecycle_msgs.srv import ChangeState
from pixel4d_ros.srv import ForecastTrajectories
from rclpy.qos import QoSProfile
from rclpy.task import Future
from sensor_msgs.msg import Image
from support.harness import HEIGHT, WIDTH, Client, calibration, call, image, path, picture, stamp, transition
from support.held_work import HeldWork
from support.node_in_process import node_in_process
from support.waiting import PATIENCE

from pixel4d_ros.forecaster import Forecaster
from pixel4d_ros.logs.images import decode_image
from pixel4d_ros.ros.messages.conversions import read_pose
from pixel4d_ros.ros.worker import MAX_REQUESTS, LatestWorker

pytestmark = [pytest.mark.ros, pytest.mark.usefixtures("ros_context")]
SERVICE = "forecast_node/forecast_trajectories"


PARAMETERS = {"steps": 4, "max_candidates": 6, "diagnostics_period": 0.2}
LISTEN = False


def ask(client: Client, *paths, **fields):
    return call(client, ForecastTrajectories, SERVICE, ForecastTrajectories.Request(trajectories=list(paths), **fields))


def test_before_any_image_the_answer_says_so(node, client):
    answer = ask(client, path(1.0))
    assert not answer.success and "no image yet on /image" in answer.message and not answer.forecasts


def test_several_paths_are_answered_from_the_newest_image(node, client):
    client.settle()
    for _ in range(3):  # best effort: one may be lost
        client.send_odometry(10.0)
        client.send_frame(10.0)
        client.settle()
    answer = ask(client, path(10.0), path(10.0, speed=9.0), with_images=True)
    assert answer.success and len(answer.forecasts) == 2
    # The second path is of another place, where nothing may be in its way.
    assert answer.message.startswith("trajectories[1]: trajectory is more than 3 m or 45 degrees away from where the")
    for forecast, speed in zip(answer.forecasts, (5.0, 9.0)):
        sequence = forecast.sequence
        assert sequence.header.stamp == stamp(10.0) and sequence.header.frame_id == "camera"
        assert (sequence.sample_index, sequence.sample_count) == (0, 1)
        times = [t.sec + t.nanosec * 1e-9 for t in sequence.time_from_start]
        assert times == pytest.approx([0, 0.1, 0.2, 0.3])
        poses = np.stack([read_pose(p) for p in sequence.camera_poses])
        # base_link at T0 + 10 s is at 50 m; the faster path begins at 90 m there.
        begin = (speed - 5.0) * 10.0
        assert poses[1:, 2, 3] == pytest.approx([begin + speed * t for t in times[1:]], abs=1e-5)
        frames = np.stack([decode_image(m) for m in sequence.images])
        assert frames.shape == (4, HEIGHT, WIDTH, 3)
        assert np.asarray(forecast.unseen) == pytest.approx(1 - np.asarray(sequence.confidence))
        assert len(forecast.closest_object) == len(forecast.closest_distance) == 4
        for object_id, distance in zip(forecast.closest_object, forecast.closest_distance):
            assert (distance == np.inf) == (object_id == 0) and distance >= 0
        for closest in (forecast.closest_static, forecast.closest_moving):
            assert len(closest) == 4 and all(t.distance >= 0 for t in closest)
            assert all(np.isfinite(t.point.x) == np.isfinite(t.distance) for t in closest)
        assert not any(t.object_id for t in forecast.closest_static)
    assert answer.forecasts[0].unseen[0] < 0.2  # frame 0 is the image
    assert answer.forecasts[0].unseen[0] < answer.forecasts[1].unseen[3]  # where it has never been


def test_a_path_that_ends_early_is_answered_and_named(node, client):
    assert ask(client, path(10.0)).message == ""
    answer = ask(client, path(10.0), path(10.0, count=3))
    assert answer.success and answer.message.startswith("trajectories[1]: trajectory ends before the forecast does")


def test_without_images_the_figures_are_about_the_same(node, client):
    with_images = ask(client, path(10.0), with_images=True).forecasts[0]
    without = ask(client, path(10.0)).forecasts[0]
    assert not without.sequence.images and without.sequence.camera_info.width == WIDTH
    assert np.allclose(without.unseen, with_images.unseen, atol=0.05)
    assert without.closest_distance == with_images.closest_distance


def test_distances_are_measured_from_the_requests_footprint(node, client):
    center, circle = (ask(client, path(10.0), radius=r).forecasts[0].closest_static for r in (0.0, 1.5))
    assert [t.distance for t in circle] == pytest.approx([max(0.0, t.distance - 1.5) for t in center], abs=1e-3)
    corners = Polygon(points=[Point32(x=1.0), Point32(y=1.0)])
    answer = ask(client, path(10.0), footprint=corners)
    assert not answer.success and "at least three corners" in answer.message


def test_an_image_in_the_request_is_forecast_without_any_on_the_topic(node, client):
    given = {"image": image(20.0, picture(3, width=104)), "camera_info": calibration(20.0, 104)}
    answer = ask(client, path(20.0), with_images=True, **given)
    assert answer.success and answer.forecasts[0].sequence.header.stamp == stamp(20.0)
    first = decode_image(answer.forecasts[0].sequence.images[0])
    assert first.shape == (HEIGHT, 104, 3)
    assert np.abs(first.astype(int) - picture(3, width=104)).mean() < 12


def nan_path():
    message = path(10.0)
    message.poses[2].pose.position.x = np.nan
    return message


def past_path():
    message = path(5.0)
    message.header.stamp = stamp(10.0)
    return message


@pytest.mark.parametrize(
    ("paths", "fields", "words"),
    [
        ([], {}, "the request has no trajectories"),
        ([path(10.0)] * 7, {}, "the request has 7 trajectories, max_candidates is 6"),
        ([path(10.0), path(10.0, count=0)], {}, "trajectories[1]: trajectory is empty"),
        ([past_path()], {}, "trajectories[0]: trajectory is entirely in the past"),
        ([path(1.0)], {}, "trajectories[0]: trajectory is stale: older"),
        ([nan_path()], {}, "trajectories[0]: trajectory: pose contains NaN or Inf"),
        ([path(10.0, frame="nowhere")], {}, "trajectories[0]: trajectory frame 'nowhere' is unknown"),
        ([path(10.0)], {"image": image(10.0, picture())}, "the camera is not calibrated"),
        ([path(10.0)], {"image": Image(width=9, height=9, data=[1])}, "encoding '' is not supported"),
    ],
)
def test_bad_requests_are_refused_with_the_reason(node, client, paths, fields, words):
    answer = ask(client, *paths, **fields)
    assert not answer.success and words in answer.message and not answer.forecasts
    assert "Traceback" not in node.log


@dataclass
class Held:
    """The real forecaster, which renders no views of candidates before it may."""

    real: Forecaster
    may_render: Event = field(default_factory=Event)

    def __getattr__(self, name: str):
        return getattr(self.real, name)

    def views(self, *arguments, **options):
        assert self.may_render.wait(PATIENCE)
        return self.real.views(*arguments, **options)


@pytest.fixture
def held():
    """The event before which a node in this process answers nothing, and a client of it that has sent an image."""
    forecaster = Held(Forecaster.load(None, "cpu"))
    with node_in_process(lambda weights, device: forecaster, "held", max_candidates=6):
        client = Client(listen=False, namespace="held")
        client.listen(TransitionEvent, "forecast_node/transition_event")
        client.connect()
        client.send_odometry(10.0)
        client.send_until(lambda: client.send_frame(10.0), lambda: int(client.values()["received frames"]) > 0)
        yield forecaster.may_render, client
        forecaster.may_render.set()
        client.destroy_node()


def requests(client: Client, count: int) -> list[Future]:
    """So many requests that have been sent at once."""
    service = client.create_client(ForecastTrajectories, SERVICE, qos_profile=QoSProfile(depth=100))
    client.until(service.service_is_ready)
    request = ForecastTrajectories.Request(trajectories=[path(10.0)] * 6, with_images=True)
    return [service.call_async(request) for _ in range(count)]


def test_the_node_goes_on_receiving_while_it_answers(held):
    may_render, client = held
    futures = requests(client, MAX_REQUESTS + 6)
    client.until(lambda: any(f.done() for f in futures))
    before = int(client.values()["received frames"])
    client.send_until(lambda: client.send_frame(10.1), lambda: int(client.values()["received frames"]) > before)
    # Images were taken while requests waited: the executor was not held up.
    assert not any(f.result().success for f in futures if f.done())
    may_render.set()
    client.until(lambda: all(f.done() for f in futures))
    answers = [f.result() for f in futures]
    assert sum(a.success for a in answers) >= MAX_REQUESTS
    refused = [a.message for a in answers if not a.success]
    assert refused and all("requests are queued already" in message for message in refused)


def test_an_inactive_node_refuses_and_a_node_that_is_deactivated_answers_what_waits(held):
    may_render, client = held
    futures = requests(client, 4)
    client.settle()  # it has received them
    change = client.create_client(ChangeState, "forecast_node/change_state")
    client.until(change.service_is_ready)
    changed = change.call_async(ChangeState.Request(transition=Transition(id=Transition.TRANSITION_DEACTIVATE)))
    client.until(lambda: "deactivating" in [e.goal_state.label for e in client.got["transition_event"]])
    may_render.set()
    client.until(lambda: changed.done() and all(f.done() for f in futures))
    assert any("not active" in f.result().message for f in futures)
    assert ask(client, path(10.0)).message == "the node is not active: activate it first"
    assert transition(client, Transition.TRANSITION_ACTIVATE) == "active"
    assert "no image yet" in ask(client, path(10.0)).message


def test_questions_are_answered_in_order_and_before_the_item_that_waits():
    work = HeldWork()
    worker: LatestWorker[int, str] = LatestWorker(work, work.done.append)
    worker.offer(1)
    work.begins()
    worker.offer(2)
    assert worker.submit("a") and worker.submit("b")
    work.goes_on()
    work.begins()
    worker.offer(3)
    work.goes_on()
    work.begins()
    assert work.done == [1, "a", "b", 2]
    assert worker.submit("c")
    with work.ends_when_awaited():
        waiting = worker.stop()
    assert waiting == ["c"] and work.done[-1] == 3 and not worker.submit("d")
