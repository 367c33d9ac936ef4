# SPDX-License-Identifier: Apache-2.0
"""Object motion from optical flow to a reference image, of known pose.

The flow on a predicted object corrects its velocity. Two kinds of candidates become objects if they are likely to move:
instances, the vehicles and people that the network finds whether they move or not, and patches elsewhere whose flow no
static world of about the predicted depth explains.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pixel4d_ros.camera import Camera
from pixel4d_ros.geometry.rotations import FloatArray
from pixel4d_ros.predictor.movable import UNNUMBERED
from pixel4d_ros.rendering.streams import to_device
from pixel4d_ros.scene import DynamicGaussians
from pixel4d_ros.two_view import compiled
from pixel4d_ros.two_view.flow import Mask, around, flow_size, length, pixels_of
from pixel4d_ros.two_view.instance_motion import (
    JudgedInstance,
    inner_pixels,
    judged_instance,
    numbers_of,
    thinned,
    window,
)
from pixel4d_ros.two_view.moving_parts import MovingPart, is_large, joined_parts, move_alike
from pixel4d_ros.two_view.moving_probability import CALIBRATION, LIKELY, MotionChanges, with_moving_probability
from pixel4d_ros.two_view.predicted_motion import corrections
from pixel4d_ros.two_view.reference_view import ReferenceView
from pixel4d_ros.two_view.rigid_flow import Map, static_flow
from pixel4d_ros.two_view.velocity_alignment import aligned
from pixel4d_ros.two_view.velocity_fit import (
    ANY,
    EXPLAINED,
    FARTHEST,
    Fit,
    FlowEquations,
    Ids,
    MeasuredFlow,
    TwoImages,
    fitted_mover,
    is_plausible,
    solved,
)

THREADS = min(4, os.cpu_count() or 1)  # for instances, and for images: with more, Python makes them wait
MOST = 16  # objects that the flow may add
REMOTE = 120.0  # metres: patches beyond it are wires, clouds and treetops; what drives there is an instance
LOWEST = 0.3  # metres, height of an added object: shadows and painted lines are lower
TAKEN = 0.3  # share of a patch's pixels on a predicted object, from which on the patch is part of that object
GAP = 0.06  # of the image's width: narrower gaps of unknown flow in an object are filled
AROUND = 2  # outlines of an instance are searched for so many times the error of its mask around it
OUTLINE = 0.2  # of a vehicle's pixels: a smaller patch beside it is its outline
THICK = 1.1  # depth ratio, at most, of what is joined to an object


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


def candidates(pair: TwoImages, ids: Ids, judged: Mask | None = None) -> Iterator[tuple[Mask, Fit]]:
    """Moving patches (h, w) that are no predicted object and may be one by shape, place and speed, the largest first.

    ids (h, w) are those of predicted objects, 0 elsewhere. Pixels that are judged already (h, w) are in no patch.
    """
    moving = pair.moving if judged is None else pair.moving & ~judged
    count, labels, sizes, _ = cv2.connectedComponentsWithStats(moving.view(np.uint8), connectivity=4)
    for i in 1 + np.argsort(-sizes[1:count, cv2.CC_STAT_AREA]):
        patch = labels == i
        if (ids[patch] > 0).mean() > TAKEN or _height(pair, patch) < LOWEST or np.median(pair.depth[patch]) > REMOTE:
            continue
        fit = fitted_mover(pair, patch)
        if fit is not None:
            yield patch, fit


def whole_objects(ids: Ids, instances: Ids) -> Ids:
    """Ids (h, w) of predicted objects, each with the whole of every instance (h, w) of which it covers enough."""
    whole: Ids = ids.copy()
    for number in np.flatnonzero(np.bincount(instances[(ids > 0) & (instances > 0)])):
        pixels = instances == number
        covered = ids[pixels & (ids > 0)]
        if len(covered) > TAKEN * pixels.sum():
            whole[pixels & (ids == 0)] = np.bincount(covered).argmax()
    return whole


def _movers(pair: TwoImages, whole: Ids, instances: Ids, longer: TwoImages | None, pool: Executor) -> list[MovingPart]:
    """What is LIKELY to move: instances, and patches elsewhere. longer: beside an older image, but near."""
    movers, standing, judged = _moving_instances(pair, whole, instances, longer, pool)
    taken = whole > 0
    for mover in movers:
        taken |= mover.pixels
    for k, mover in enumerate(movers):
        if is_large(mover.pixels):  # its mask has holes
            pixels = mover.pixels | _grown(pair, mover.pixels, mover.velocity) & ~taken & (instances == 0)
            taken |= pixels
            movers[k] = replace(mover, pixels=pixels)
    vehicles = [*standing, *(mover.pixels for mover in movers)]
    patches = list(candidates(pair, whole, judged))
    probabilities = pool.map(lambda found: pair.probability(found[0], found[1].velocity, network=False), patches)
    for (patch, fit), probability in zip(patches, probabilities):
        if probability < LIKELY or _is_outline(patch, vehicles):
            continue
        pixels = _grown(pair, patch, fit.velocity) & ~taken & ~judged
        if pixels.any():
            taken |= pixels
            movers.append(MovingPart.of(pixels, fit, probability))
    return joined_parts(pair, movers)


def _moving_instances(
    pair: TwoImages, whole: Ids, instances: Ids, longer: TwoImages | None, pool: Executor
) -> tuple[list[MovingPart], list[Mask], Mask]:
    """Instances that are LIKELY to move, pixels (h, w) of each that stands, and where (h, w) instances were judged."""
    free = np.where(whole > 0, 0, instances)
    judging = pool.map(lambda number: _over_both_times(pair, longer, number, free == number), numbers_of(free))
    moving, judged = pair.moving, np.zeros(whole.shape, bool)
    parts: list[MovingPart] = []
    standing: list[Mask] = []
    for instance, probability in judging:
        if instance is None:
            continue
        own = window(instance.pixels)
        reached = cv2.dilate(instance.pixels.astype(np.uint8), own) > 0
        if probability < LIKELY:
            standing.append(instance.pixels)
        pixels = (instance.pixels | reached & moving & (instances == 0) & ~judged) & (whole == 0)
        if instance.features is not None:
            whole_one = instance.number < UNNUMBERED
            parts.append(MovingPart.of(pixels, instance.fit, probability, whole_one))
        # Around it, too, patches are its outline, not another object.
        judged |= cv2.dilate(reached.astype(np.uint8), own, iterations=AROUND) > 0

    movers = [part for part in joined_parts(pair, parts) if part.probability >= LIKELY]
    vehicles = [*standing, *(mover.pixels for mover in movers)]
    return [m for m in movers if m.whole or not _is_outline(m.pixels, vehicles)], standing, judged


def _over_both_times(
    pair: TwoImages, longer: TwoImages | None, number: int, pixels: Mask
) -> tuple[JudgedInstance | None, float]:
    """What is known of an instance of some pixels (h, w), and its probability of moving.

    Over a longer time, if that shows the same motion: what is fast may have left the older image.
    """
    found = judged_instance(pair, number, pixels)
    if found is not None and longer is not None:
        other = judged_instance(longer, number, pixels, found.fit.velocity)
        if other is not None and move_alike(found.fit.velocity, other.fit.velocity):
            found = other
    return found, 0.0 if found is None else found.probability


def _is_outline(patch: Mask, vehicles: list[Mask]) -> bool:
    """Whether a patch (h, w) is a small strip beside a vehicle, where what is behind comes and goes."""
    reach = 2 * round(GAP * patch.shape[1] / 4) + 1
    near = cv2.dilate(patch.astype(np.uint8), np.ones((reach, reach), np.uint8)) > 0
    return any(patch.sum() < OUTLINE * vehicle.sum() and bool((near & vehicle).any()) for vehicle in vehicles)


def _over_longer_time(pair: TwoImages, mover: MovingPart) -> MovingPart:
    """The mover with its velocity since an older image, if that shows one."""
    flow = fitted_mover(pair, mover.pixels)
    inner = thinned(inner_pixels(pair, mover.pixels))
    if not mover.whole or not inner.any():
        return mover if flow is None else MovingPart.of(mover.pixels, flow, mover.probability)
    velocity = aligned(pair, inner, [mover.velocity] if flow is None else [mover.velocity, flow.velocity])
    if velocity is mover.velocity or not is_plausible(velocity):
        return mover
    fit = solved(FlowEquations.of_motion(pair, inner, velocity), np.zeros(3), ANY)
    return MovingPart.of(mover.pixels, fit, mover.probability)


def _flow_difference(pair: TwoImages, velocity: FloatArray, area: tuple[slice, slice]) -> Map:
    """Length in pixels of the difference between the flow and that of a world moving at a velocity (3,), in an area."""
    moved, K = pair.T_reference_source.copy(), pair.camera.K.copy()
    moved[:3, 3] -= moved[:3, :3] @ velocity * pair.seconds
    K[:2, 2] -= area[1].start, area[0].start
    flow = static_flow(1 / np.maximum(pair.depth[area], np.float32(1e-3)), moved, K)
    return length(flow - pair.measured.flow.flow[area])


def _grown(pair: TwoImages, patch: Mask, velocity: FloatArray) -> Mask:
    """The patch with connected pixels that move alike, and with gaps of unknown flow filled."""
    reach = 2 * round(GAP * patch.shape[1] / 2) + 1
    area = around(patch, reach)  # nothing grows farther
    inner, depth, agrees = patch[area], pair.depth[area], pair.measured.flow.agrees[area]
    alike, still = (_flow_difference(pair, motion, area) for motion in (velocity, np.zeros(3)))
    joins = agrees & (alike < EXPLAINED * still)
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (reach, reach))
    near = cv2.erode(np.where(inner, depth, np.float32(1e6)), disc)
    far = cv2.dilate(np.where(inner, depth, np.float32(0)), disc)
    beside = (depth > near / THICK) & (depth < far * THICK)
    closed = cv2.morphologyEx(inner.astype(np.uint8), cv2.MORPH_CLOSE, disc) > 0
    whole = inner | beside & (joins | closed & ~agrees)
    _, labels = cv2.connectedComponents(whole.astype(np.uint8), connectivity=4)
    grown = np.zeros_like(patch)
    grown[area] = np.isin(labels, np.unique(labels[inner])) & whole
    return grown


def _height(pair: TwoImages, patch: Mask) -> float:
    """Height of a patch in metres, from its 5 % to its 95 % quantile."""
    down = np.sort(compiled.unprojected(*pixels_of(patch), pair.depth, pair.camera.K)[:, 1])
    return float(compiled.quantile(down, 0.95) - compiled.quantile(down, 0.05))


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
