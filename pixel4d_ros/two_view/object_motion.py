# SPDX-License-Identifier: Apache-2.0
"""Object motion from optical flow to a reference image, of known pose.

The flow on a predicted object corrects its velocity. A patch of the image whose flow no static world of about the
predicted depth explains is a candidate. Candidates that are likely to move become objects.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pixel4d_ros.camera import Camera, unproject
from pixel4d_ros.geometry.rotations import FloatArray
from pixel4d_ros.scene import DynamicGaussians
from pixel4d_ros.two_view.flow import CheckedFlow, Mask, flow_both_ways, flow_size, length
from pixel4d_ros.two_view.motion_evidence import ImagePair, motion_evidence
from pixel4d_ros.two_view.moving_probability import CALIBRATION, LIKELY, with_moving_probability
from pixel4d_ros.two_view.reference_view import ReferenceView
from pixel4d_ros.two_view.rigid_flow import (
    AGREEMENT,
    Grey,
    Known,
    Map,
    fineness,
    moving_patches,
    reach_of,
    refined_pose,
    residual,
    static_flow,
)

Ids = NDArray[np.int64]  # (h, w)

DEPTH_FACTOR = 1.7  # predicted depth may be wrong by this factor, either way
NEAREST, FARTHEST = 0.5, 250.0  # metres; the latter is the sky
MOST = 16  # objects that the flow may add
SLOWEST, FASTEST = 0.5, 40.0  # m/s of an added object
LOWEST = 0.3  # metres, height of an added object: shadows and painted lines are lower
CLIMB, CLIMB_SHARE = 0.3, 0.15  # m/s, and share of its speed: vertical speed of an added object, at most
EXPLAINED = 0.5  # a velocity explains flow if it leaves less than this share of a static world's residual,
LEFT = 0.7  # and less than so many pixels
SMALL = 0.5  # pixels: a smaller residual of a static world need not be explained
TAKEN = 0.3  # share of a patch's pixels on a predicted object, from which on the patch is part of that object
GAP = 0.06  # of the image's width: narrower gaps of unknown flow in an object are filled
THICK = 1.1  # depth ratio, at most, of what is joined to an object
LEAST_PIXELS, MOST_PIXELS = 30, 2000  # for one velocity
PIXEL, INDEPENDENT = 0.5, 20  # pixels, standard deviation of the flow, and number of an object's independent errors
TRUST, TRUST_SHARE = 0.3, 0.05  # m/s, and share of the speed: standard deviation of a predicted velocity
ANY = np.array([50.0, 2.5, 50.0])  # m/s: the same without a prediction
ROUNDS = 8  # of reweighting
DEPTH_SPREAD = 0.15  # standard deviation of the logarithm of predicted depth


@dataclass(frozen=True)
class TwoImages:
    """An image and a reference image, at the size at which flow is measured."""

    camera: Camera  # the image's
    depth: Map  # (h, w) metres, predicted
    flow: CheckedFlow  # from the image to the reference image
    T_reference_source: FloatArray  # (4, 4), refined on the flow
    seconds: float
    moving: Mask  # (h, w): no static world explains the flow
    here: Grey  # (h, w)
    there: Grey  # (h, w), the reference image

    @staticmethod
    def of(image: NDArray[np.uint8], reference: ReferenceView, camera: Camera, depth: Map) -> TwoImages:
        """Compare an image (H, W, 3) RGB with a reference image.

        camera and depth (h, w), metres, are at two_view.flow.flow_size of the image. Raises ValueError for images of
        different sizes, or too small for flow.
        """
        here, there = (np.asarray(cv2.cvtColor(x, cv2.COLOR_RGB2GRAY), np.uint8) for x in reference.beside(image))
        flow, _ = flow_both_ways(here, there, AGREEMENT * fineness(camera.width))
        depth = np.minimum(depth, np.float32(FARTHEST))
        T = refined_pose(reference.T_reference_source, flow, depth, camera.K)
        moving = moving_patches(residual(flow, _possible(depth), T, camera.K, here, there).photometric_evidence)
        return TwoImages(camera, depth, flow, T, reference.seconds, moving, here, there)

    @property
    def images(self) -> ImagePair:
        """What the evidence of motion is taken from."""
        return ImagePair(self.here, self.there, self.camera, self.depth, self.T_reference_source)

    def probability(self, patch: Mask, velocity: FloatArray, network: bool) -> float:
        """Calibrated probability that a patch (h, w) moves, at velocity (3,) m/s if so; network: it found it, too."""
        evidence = motion_evidence(self.images, patch, velocity * self.seconds)
        return CALIBRATION.with_reference(evidence, network)


@dataclass(frozen=True)
class Fit:
    """The velocity (3,) in m/s that explains the flow on some pixels best, and how well it does."""

    velocity: FloatArray
    covariance: FloatArray  # (3, 3) (m/s)^2
    before: float  # pixels, median difference of the flow from that of a static world
    after: float  # the same from that of a world of this velocity

    @property
    def explains(self) -> bool:
        """Whether one velocity explains the flow where a static world does not."""
        return self.after < LEFT and self.after < EXPLAINED * self.before


def fitted(pair: TwoImages, mask: Mask, prior: FloatArray, deviation: FloatArray) -> Fit | None:
    """Fit a velocity to the flow in a mask (h, w), with a Gaussian prior (3,) of standard deviation (3,), m/s.

    A point p that moves at v was at p - v t, where the flow ends: two equations per pixel, linear in v when multiplied
    by the point's depth. Least squares with Cauchy weights. None where too little of the flow is known.
    """
    v, u = np.nonzero(mask & pair.flow.agrees)
    if len(u) < LEAST_PIXELS:
        return None
    step = -(-len(u) // MOST_PIXELS)
    u, v = u[::step], v[::step]
    K, T = pair.camera.K, pair.T_reference_source
    points = unproject(np.stack((u, v), -1), pair.depth[v, u], K) @ T[:3, :3].T + T[:3, 3]
    ends = unproject(np.stack((u, v), -1) + pair.flow.flow[v, u], np.ones(len(u)), K)[:, :2]
    pixels = K[[0, 1], [0, 1]] / np.maximum(points[:, 2:], NEAREST)  # per metre across
    turned = T[:3, :3] * pair.seconds
    J = ((turned[:2] - ends[..., None] * turned[2]) * pixels[..., None]).reshape(-1, 3)
    still = ((points[:, :2] - ends * points[:, 2:]) * pixels).ravel()
    noise = PIXEL**2 * len(u) / min(len(u), INDEPENDENT)
    belief = np.diag(noise / deviation**2)
    weight = np.ones_like(still)  # the first round must not take the prior's residuals for outliers
    for _ in range(ROUNDS):
        normal = (J * weight[:, None]).T @ J + belief
        velocity = np.linalg.solve(normal, J.T @ (weight * still) + belief @ prior)
        left = np.abs(still - J @ velocity)
        weight = 1 / (1 + (left / LEFT) ** 2)
    # Velocities are proportional to depth, which the network knows to DEPTH_SPREAD.
    covariance = noise * np.linalg.inv(normal) + DEPTH_SPREAD**2 * np.outer(velocity, velocity)
    return Fit(velocity, covariance, float(np.median(np.abs(still))), float(np.median(left)))


@dataclass(frozen=True)
class Mover:
    """What the flow says of an object."""

    velocity: FloatArray  # (3,) m/s
    covariance: FloatArray  # (3, 3) (m/s)^2
    probability: float  # that it moves


@torch.inference_mode()
def with_motion_from_flow(
    scene: DynamicGaussians, image: NDArray[np.uint8], reference: ReferenceView, seed: int = 0
) -> DynamicGaussians:
    """Return a scene predicted from an image (H, W, 3) with object motion from the flow to a reference image.

    Static fields are shared with the given scene. Each sampled future draws whether an object moves; of predicted
    objects they keep their differences from sample 0, of others they draw the velocity. Raises ValueError as
    TwoImages.of.
    """
    assert scene.camera is not None
    camera = scene.camera.resized(*flow_size(image.shape[1], image.shape[0]))
    places = scene.pixels(camera)
    # The reference image has explained by depth what it could, movers too: what is left without it tells more.
    depth = scene.without_depth_correction(places >= 0).seen_depth(camera, places, FARTHEST)
    pair = TwoImages.of(image, reference, camera, depth)
    ids = object_pixels(scene, places, camera)
    count = len(scene.centroids)
    rng = np.random.default_rng(seed)
    changes = np.zeros((scene.num_samples, count + MOST, 3), np.float32)  # of the velocity of each object
    probability = np.full(count + MOST, CALIBRATION.one_image)
    for k, change, moves in _corrections(scene, pair, ids):
        changes[:, k], probability[k] = change, moves
    added = np.zeros_like(ids)
    movers = list(_movers(pair, ids))
    if movers and reference.older is not None:
        longer = TwoImages.of(image, reference.older, camera, depth)
        movers = [(patch, _over_longer_time(longer, patch, mover)) for patch, mover in movers]
    for k, (patch, mover) in enumerate(movers, count):
        added[patch], probability[k] = k, mover.probability
        changes[:, k] = rng.multivariate_normal(mover.velocity, mover.covariance, scene.num_samples)
        changes[0, k] = mover.velocity
    return with_moving_probability(_moved(scene, places, added, changes), probability, seed)


def _possible(depth: Map) -> Known:
    """Bounds of each pixel's inverse depth: predicted depth may be wrong by DEPTH_FACTOR, and misplaced by REACH."""
    reach = reach_of(depth.shape[1])
    window, inverse = np.ones((reach, reach), np.uint8), 1 / np.maximum(depth, np.float32(1e-3))
    return Known(cv2.dilate(inverse, window) * DEPTH_FACTOR, cv2.erode(inverse, window) / DEPTH_FACTOR)


def object_pixels(scene: DynamicGaussians, places: Tensor, camera: Camera) -> Ids:
    """Ids (h, w) of the scene's objects in the image."""
    ids = torch.zeros(camera.height * camera.width, dtype=torch.int64, device=places.device)
    moves = (places >= 0) & (scene.object_ids > 0)
    ids[places[moves]] = scene.object_ids[moves]
    return ids.view(camera.height, camera.width).cpu().numpy()


def _corrections(scene: DynamicGaussians, pair: TwoImages, ids: Ids) -> Iterator[tuple[int, FloatArray, float]]:
    """Predicted objects on which the flow is known: id, change (3,) of velocity in m/s, probability of moving."""
    numbers = np.unique(ids)[1:]
    if len(numbers) == 0:
        return
    predicted = scene.per_object(scene.velocities).double().cpu().numpy()
    for k in numbers:
        prior, mask = predicted[k], ids == k
        fit = fitted(pair, mask, prior, np.full(3, TRUST + TRUST_SHARE * float(np.linalg.norm(prior))))
        if fit is not None and fit.after < LEFT and (fit.explains or fit.before < SMALL):
            yield int(k), fit.velocity - prior, pair.probability(mask, fit.velocity, network=True)


def candidates(pair: TwoImages, ids: Ids) -> Iterator[tuple[Mask, Fit]]:
    """Moving patches (h, w) that are no predicted object and may be one by shape, place and speed, the largest first.

    ids (h, w) are those of predicted objects, 0 elsewhere.
    """
    count, labels, sizes, _ = cv2.connectedComponentsWithStats(pair.moving.astype(np.uint8), connectivity=4)
    for i in 1 + np.argsort(-sizes[1:count, cv2.CC_STAT_AREA]):
        patch = labels == i
        if (ids[patch] > 0).mean() > TAKEN or _height(pair, patch) < LOWEST:
            continue
        fit = fitted(pair, patch, np.zeros(3), ANY)
        if fit is None or not fit.explains:
            continue
        if _is_plausible(fit.velocity):
            yield patch, fit


def _is_plausible(velocity: FloatArray) -> bool:
    """Whether an object may have a velocity (3,) in m/s, of a camera that is about level."""
    speed = float(np.linalg.norm(velocity))
    return SLOWEST <= speed <= FASTEST and abs(float(velocity[1])) <= CLIMB + CLIMB_SHARE * speed


def _movers(pair: TwoImages, ids: Ids) -> Iterator[tuple[Mask, Mover]]:
    """Pixels (h, w) and motion of the candidates that are LIKELY to move, at most MOST."""
    found, still, taken = 0, _flow_difference(pair, np.zeros(3)), ids > 0
    for patch, fit in candidates(pair, ids):
        if found == MOST:
            return
        probability = pair.probability(patch, fit.velocity, network=False)
        pixels = _grown(pair, patch, fit.velocity, still) & ~taken if probability >= LIKELY else taken
        if probability >= LIKELY and pixels.any():
            found += 1
            taken |= pixels
            yield pixels, Mover(fit.velocity, fit.covariance, probability)


def _over_longer_time(pair: TwoImages, pixels: Mask, mover: Mover) -> Mover:
    """The mover on some pixels (h, w) with the velocity since an older image, if the flow to that shows one."""
    fit = fitted(pair, pixels, np.zeros(3), ANY)
    if fit is None or not fit.explains or not _is_plausible(fit.velocity):
        return mover
    return replace(mover, velocity=fit.velocity, covariance=fit.covariance)


def _flow_difference(pair: TwoImages, velocity: FloatArray) -> Map:
    """Length (h, w) in pixels of the difference between the flow and that of a world moving at a velocity (3,)."""
    R, seconds = pair.T_reference_source[:3, :3], pair.seconds
    moved = pair.T_reference_source.copy()
    moved[:3, 3] -= R @ velocity * seconds
    return length(static_flow(1 / np.maximum(pair.depth, np.float32(1e-3)), moved, pair.camera.K) - pair.flow.flow)


def _grown(pair: TwoImages, patch: Mask, velocity: FloatArray, still: Map) -> Mask:
    """The patch with connected pixels that move alike, and with gaps of unknown flow filled."""
    alike = _flow_difference(pair, velocity)
    joins = pair.flow.agrees & (alike < EXPLAINED * still)
    reach = 2 * round(GAP * patch.shape[1] / 2) + 1
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (reach, reach))
    near = cv2.erode(np.where(patch, pair.depth, np.float32(1e6)), disc)
    far = cv2.dilate(np.where(patch, pair.depth, np.float32(0)), disc)
    beside = (pair.depth > near / THICK) & (pair.depth < far * THICK)
    closed = cv2.morphologyEx(patch.astype(np.uint8), cv2.MORPH_CLOSE, disc) > 0
    whole = patch | beside & (joins | closed & ~pair.flow.agrees)
    _, labels = cv2.connectedComponents(whole.astype(np.uint8), connectivity=4)
    grown: Mask = np.isin(labels, np.unique(labels[patch])) & whole
    return grown


def _height(pair: TwoImages, patch: Mask) -> float:
    """Height of a patch in metres, from its 5 % to its 95 % quantile."""
    v, u = np.nonzero(patch)
    down = unproject(np.stack((u, v), -1), pair.depth[v, u], pair.camera.K)[:, 1]
    return float(np.quantile(down, 0.95) - np.quantile(down, 0.05))


def _moved(scene: DynamicGaussians, places: Tensor, added: Ids, changes: NDArray[np.float32]) -> DynamicGaussians:
    """The scene with objects added where `added` (h, w) has their ids; changes (S, M + 1, 3) m/s of the velocities."""
    device = scene.means.device
    given = torch.from_numpy(np.append(added.ravel(), 0)).to(device)[places]  # place -1 means nowhere: the appended 0
    ids = torch.where((given > 0) & (scene.object_ids == 0), given, scene.object_ids)
    change = torch.from_numpy(changes).to(scene.velocities)
    futures = tuple(replace(f, velocities=f.velocities + own[ids]) for f, own in zip(scene.futures, change))
    moved = replace(
        scene,
        velocities=futures[0].velocities if futures else scene.velocities + change[0][ids],
        object_ids=ids,
        moving_probability=None,  # with_moving_probability sets that of all objects
        centroids=torch.cat((scene.centroids, scene.centroids.new_zeros(MOST, 3))),
        futures=futures,
    )
    moved = moved.without_depth_correction(ids > 0)
    fresh = torch.arange(len(moved.centroids), device=device)[:, None] >= len(scene.centroids)
    return replace(moved, centroids=torch.where(fresh, moved.per_object(moved.means), moved.centroids))
