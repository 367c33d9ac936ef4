# SPDX-License-Identifier: Apache-2.0
"""Object motion from optical flow to a reference image, of known pose.

The flow on a predicted object corrects its velocity. Two kinds of candidates become objects if they are likely to move:
instances, the vehicles and people that the network finds whether they move or not, and patches elsewhere whose flow no
static world of about the predicted depth explains.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial

import cv2
import numpy as np
import torch
from numba import njit
from numpy.typing import NDArray
from torch import Tensor

from pixel4d_ros.camera import Camera
from pixel4d_ros.geometry.rotations import FloatArray
from pixel4d_ros.predictor.movable import UNNUMBERED
from pixel4d_ros.rendering.streams import to_device
from pixel4d_ros.scene import DynamicGaussians
from pixel4d_ros.two_view.flow import Mask, flow_size
from pixel4d_ros.two_view.instance_motion import fit_of_mover, judged_instance, numbers_of
from pixel4d_ros.two_view.moving_parts import MovingPart, is_large, joined_parts
from pixel4d_ros.two_view.moving_patches import TAKEN, candidates, grown, is_outline, sizes_of, with_outline
from pixel4d_ros.two_view.moving_probability import CALIBRATION, LIKELY, MotionChanges, with_moving_probability
from pixel4d_ros.two_view.predicted_motion import corrections
from pixel4d_ros.two_view.reference_view import ReferenceView
from pixel4d_ros.two_view.rigid_flow import Map
from pixel4d_ros.two_view.two_images import FARTHEST, Ids, MeasuredFlow, TwoImages

THREADS = min(4, os.cpu_count() or 1)  # for instances, and for images: with more, Python makes them wait
MOST = 16  # objects that the flow may add


@torch.inference_mode()
def with_motion_from_flow(
    scene: DynamicGaussians,
    image: NDArray[np.uint8],
    reference: ReferenceView,
    seed: int = 0,
    flows: Sequence[MeasuredFlow] = (),
) -> DynamicGaussians:
    """Return a scene predicted from an image (H, W, 3) with object motion from the flow to a reference image.

    Static fields are shared with the given scene. Each sampled future draws whether an object moves; of predicted
    objects they keep their differences from sample 0, of others they draw the velocity. flows: those to reference.views
    if they are known already. Raises ValueError as MeasuredFlow.of.
    """
    assert scene.camera is not None
    camera = scene.camera.resized(*flow_size(image.shape[1], image.shape[0]))
    places = scene.pixels(camera)
    seen = SeenMaps.of(scene, places, camera)
    ids, instances = seen.object_ids, seen.instance_ids
    count = len(scene.centroids)
    rng = np.random.default_rng(seed)
    changes = np.zeros((scene.num_samples, count + MOST, 3), np.float32)  # of the velocity of each object
    probability = np.full(count + MOST, CALIBRATION.one_image)
    with ThreadPoolExecutor(THREADS) as pool:
        flows = flows or list(pool.map(lambda view: MeasuredFlow.of(image, view), reference.views))
        pairs = pool.map(lambda flow, view: TwoImages.of(flow, view, camera, seen.depth), flows, reference.views)
        whole = whole_objects(ids, instances)
        pair, *longer = pairs
        corrected = corrections(seen.velocities, pair, ids, pool)
        nearby = longer[0] if reference.older is not None and reference.older.is_near else None
        movers = _movers(pair, whole, instances, nearby, pool)[:MOST]
        for other in longer:
            movers = list(pool.map(partial(_over_longer_time, other), movers))
        for k, change, moves in filter(None, corrected):
            changes[:, k], probability[k] = change, moves
    given = np.where(whole != ids, whole, 0)
    is_joined = bool(given.any())
    for k, mover in enumerate(movers, count):
        given[mover.pixels], probability[k] = k, mover.probability
        changes[:, k] = rng.multivariate_normal(mover.velocity, mover.covariance, scene.num_samples)
        changes[0, k] = mover.velocity
    scene, members, models = _with_objects(scene, places, given, MOST)
    return with_moving_probability(scene, probability, seed, MotionChanges(members, models, is_joined, changes))


@dataclass(frozen=True)
class SeenMaps:
    """What a camera at the source sees of a scene, at one of the sizes of its image, in the host's memory."""

    depth: Map  # (h, w) metres as predicted from one image: a reference image has explained by depth what moves, too
    object_ids: Ids  # (h, w) of objects
    instance_ids: Ids  # (h, w) of instances; what belongs to none of them is split where it is apart
    velocities: FloatArray  # (M + 1, 3) m/s, of the objects that are seen

    @staticmethod
    def of(scene: DynamicGaussians, places: Tensor, camera: Camera) -> SeenMaps:
        """places (N,) as scene.pixels(camera) gives them. There is one copy from the device."""
        depth = scene.depth_map(camera, places, FARTHEST, corrected=False).flatten()
        instances = torch.zeros_like(places) if scene.instance_ids is None else scene.instance_ids
        some = torch.nonzero((places >= 0) & (scene.object_ids + instances > 0))[:, 0]
        own, own_places = scene.object_ids[some], places[some]
        # Ids above 0 come before 0, which goes to a place beyond the image.
        maps = (
            places.new_zeros(len(depth) + 1).scatter(0, torch.where(n > 0, own_places, len(depth)), n)[:-1]
            for n in (own, instances[some])
        )
        members = places.new_zeros(len(scene.centroids)).scatter(0, own, some)  # one of each object
        copied = torch.cat((depth, *maps, scene.velocities[members].flatten())).cpu().numpy()
        images, velocities = copied[: 3 * len(depth)].reshape(3, camera.height, camera.width), copied[3 * len(depth) :]
        ids = images[1:].astype(np.int64)
        rest = ids[1] == UNNUMBERED
        ids[1, rest] = UNNUMBERED + cv2.connectedComponents(rest.view(np.uint8), connectivity=4)[1][rest]
        return SeenMaps(images[0], ids[0], ids[1], velocities.reshape(-1, 3).astype(np.float64))


@njit(cache=True, nogil=True)
def whole_objects(ids: Ids, instances: Ids) -> Ids:
    """Ids (h, w) of predicted objects, each with the whole of every instance (h, w) of which it covers enough."""
    pixels = np.zeros((instances.max() + 1, ids.max() + 1), np.int64)  # of each instance on each object
    for v in range(ids.shape[0]):
        for u in range(ids.shape[1]):
            pixels[instances[v, u], ids[v, u]] += 1
    owners = np.zeros(len(pixels), np.int64)
    whole: Ids = ids.copy()
    for number in range(1, len(pixels)):
        if pixels[number, 1:].sum() > TAKEN * pixels[number].sum():
            owners[number] = 1 + pixels[number, 1:].argmax()
    for v in range(ids.shape[0]):
        for u in range(ids.shape[1]):
            if ids[v, u] == 0:
                whole[v, u] = owners[instances[v, u]]
    return whole


def _movers(pair: TwoImages, whole: Ids, instances: Ids, longer: TwoImages | None, pool: Executor) -> list[MovingPart]:
    """What is LIKELY to move: instances, and patches elsewhere. longer: beside an older image, but near."""
    movers, standing, judged = _moving_instances(pair, whole, instances, longer, pool)
    found = candidates(pair, whole, judged, pool)
    large = [k for k, mover in enumerate(movers) if is_large(mover.pixels)]  # their masks have holes
    filled = pool.map(lambda k: grown(pair, movers[k].pixels, movers[k].velocity), large)
    taken = whole > 0
    for mover in movers:
        taken |= mover.pixels
    for k, more in zip(large, filled):
        pixels = movers[k].pixels | more & ~taken & (instances == 0)
        taken |= pixels
        movers[k] = replace(movers[k], pixels=pixels)
    vehicles = sizes_of([*standing, *(mover.pixels for mover in movers)], taken.shape)
    parts = (MovingPart.of(pixels, fit, CALIBRATION.with_reference(evidence, False)) for pixels, fit, evidence in found)
    patches = [p for p in parts if p.probability >= LIKELY and not is_outline(p.pixels, vehicles)]
    for part, whole_patch in zip(patches, pool.map(lambda part: grown(pair, part.pixels, part.velocity), patches)):
        pixels = whole_patch & ~taken & ~judged
        if pixels.any():
            taken |= pixels
            movers.append(replace(part, pixels=pixels))
    return joined_parts(pair, movers)


def _moving_instances(
    pair: TwoImages, whole: Ids, instances: Ids, longer: TwoImages | None, pool: Executor
) -> tuple[list[MovingPart], list[Mask], Mask]:
    """Instances that are LIKELY to move, pixels (h, w) of each that stands, and where (h, w) instances were judged."""
    free = np.where(whole > 0, 0, instances)
    judging = pool.map(lambda number: judged_instance(pair, longer, number, free == number), numbers_of(free))
    moving, nobody, judged = pair.moving, instances == 0, np.zeros(whole.shape, bool)
    parts: list[MovingPart] = []
    standing: list[Mask] = []
    for instance in filter(None, judging):
        probability = instance.probability
        if probability < LIKELY:
            standing.append(instance.pixels)
        pixels = with_outline(instance.pixels, moving, nobody, judged) & (whole == 0)
        if instance.features is not None:
            parts.append(MovingPart.of(pixels, instance.fit, probability, instance.number < UNNUMBERED))

    movers = [part for part in joined_parts(pair, parts) if part.probability >= LIKELY]
    vehicles = sizes_of([*standing, *(mover.pixels for mover in movers)], whole.shape)
    return [m for m in movers if m.whole or not is_outline(m.pixels, vehicles)], standing, judged


def _over_longer_time(pair: TwoImages, mover: MovingPart) -> MovingPart:
    """The mover with its velocity since an older image, if that shows one."""
    is_seen, fit = fit_of_mover(pair.images, mover.pixels, mover.velocity, mover.whole)
    return MovingPart.of(mover.pixels, fit, mover.probability) if is_seen else mover


def _with_objects(
    scene: DynamicGaussians, places: Tensor, given: Ids, most: int
) -> tuple[DynamicGaussians, Tensor, Tensor]:
    """The scene whose Gaussians on the background belong to the objects that given (h, w) has, 0: none.

    Objects may be new, up to `most`. Also the objects' Gaussians (n,), and those (n,) whose motion they take over.
    """
    count = len(scene.centroids)
    joining = to_device(np.append(given, 0), places.device).take(places)  # 0 at place -1, which is nowhere
    ids = torch.where(scene.object_ids > 0, scene.object_ids, joining)
    members = torch.nonzero(ids)[:, 0]  # few
    own_ids, was = ids[members], scene.object_ids[members]
    # What joins a predicted object moves as one of the object's Gaussians.
    of_each = members.new_zeros(count).scatter(0, was, members)
    models = torch.where((was == 0) & (own_ids < count), of_each[own_ids.clamp(max=count - 1)], members)
    centroids = torch.cat((scene.centroids, scene.centroids.new_zeros(most, 3)))
    # with_moving_probability sets that of all objects.
    scene = replace(scene, object_ids=ids, moving_probability=None, centroids=centroids)
    scene = scene.without_depth_correction(members)
    centroids[count:] = scene.per_object(scene.means, members)[count:]
    return scene, members, models
