# SPDX-License-Identifier: Apache-2.0
"""Triton kernels of fused_operations, where each is documented. Importing this needs Triton."""

import triton
import triton.language as tl


@triton.jit
def _slope(here, before, after, has_before, has_after, limit):
    """The smaller of two one-sided differences, relative; at a border both are the one there is."""
    back, forth = here - before, after - here
    back, forth = tl.where(has_before, back, forth), tl.where(has_after, forth, back)
    step = tl.maximum(tl.minimum(back, forth), 0.0) + tl.minimum(tl.maximum(back, forth), 0.0)
    return tl.minimum(tl.maximum(step / here, -limit), limit)


@triton.jit
def surface_gaussians(inverses, Ks, sizes, means, quaternions, scales, height, width, max_slant, BLOCK: tl.constexpr):
    """Block by block of each image's pixels."""
    image = tl.program_id(1)
    place = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = place < height * width
    column, row = place % width, place // width
    at = image * height * width + place
    fx, fy = tl.load(Ks + image * 9), tl.load(Ks + image * 9 + 4)
    cx, cy = tl.load(Ks + image * 9 + 2), tl.load(Ks + image * 9 + 5)
    here = tl.load(inverses + at, mask=inside, other=1.0)
    left, right, above, below = column > 0, column < width - 1, row > 0, row < height - 1
    limit = max_slant / tl.sqrt(fx * fy)
    before = tl.load(inverses + at - 1, mask=inside & left, other=1.0)
    after = tl.load(inverses + at + 1, mask=inside & right, other=1.0)
    slope_u = _slope(here, before, after, left, right, limit)
    before = tl.load(inverses + at - width, mask=inside & above, other=1.0)
    after = tl.load(inverses + at + width, mask=inside & below, other=1.0)
    slope_v = _slope(here, before, after, above, below, limit)
    depth, x, y = 1.0 / here, (column - cx) / fx, (row - cy) / fy
    ux, uy, uz = 1.0 / fx - x * slope_u, -y * slope_u, -slope_u
    vx, vy, vz = -x * slope_v, 1.0 / fy - y * slope_v, -slope_v
    # The angle to the long axis is half of that of (p, q); written so that nothing cancels.
    p = ux * ux + uy * uy + uz * uz - vx * vx - vy * vy - vz * vz
    q = 2.0 * (ux * vx + uy * vy + uz * vz)
    r = tl.sqrt(p * p + q * q)
    large = tl.sqrt((r + tl.abs(p)) / tl.maximum(2.0 * r, 1e-30))
    small = tl.abs(q) / tl.maximum(2.0 * r * large, 1e-30)
    cos = tl.where(r > 0.0, tl.where(p >= 0.0, large, small), 1.0)
    sin = tl.where(r > 0.0, tl.where(p >= 0.0, small, large), 0.0) * tl.where(q < 0.0, -1.0, 1.0)
    lx, ly, lz = cos * ux + sin * vx, cos * uy + sin * vy, cos * uz + sin * vz
    sx, sy, sz = cos * vx - sin * ux, cos * vy - sin * uy, cos * vz - sin * uz
    long, short = tl.sqrt(lx * lx + ly * ly + lz * lz), tl.sqrt(sx * sx + sy * sy + sz * sz)
    nx, ny, nz = uy * vz - uz * vy, uz * vx - ux * vz, ux * vy - uy * vx
    length = tl.maximum(tl.sqrt(nx * nx + ny * ny + nz * nz), 1e-12)
    nx, ny, nz = nx / length, ny / length, nz / length
    w = 1.0 + nz
    slid = lz / long / w
    ax, ay = lx / long - nx * slid, ly / long - ny * slid
    sign = tl.where(ax < 0.0, -1.0, 1.0)
    c, s = 1.0 + sign * ax, sign * ay
    qw, qx, qy, qz = w * c, -ny * c + nx * s, nx * c + ny * s, w * s
    norm = tl.maximum(tl.sqrt(qw * qw + qx * qx + qy * qy + qz * qz), 1e-12)
    tl.store(means + at * 3, x * depth, mask=inside)
    tl.store(means + at * 3 + 1, y * depth, mask=inside)
    tl.store(means + at * 3 + 2, depth, mask=inside)
    tl.store(quaternions + at * 4, qw / norm, mask=inside)
    tl.store(quaternions + at * 4 + 1, qx / norm, mask=inside)
    tl.store(quaternions + at * 4 + 2, qy / norm, mask=inside)
    tl.store(quaternions + at * 4 + 3, qz / norm, mask=inside)
    size = depth * tl.load(sizes + at, mask=inside, other=1.0)
    tl.store(scales + at * 3, long * size, mask=inside)
    tl.store(scales + at * 3 + 1, short * size, mask=inside)
    tl.store(scales + at * 3 + 2, 0.1 * tl.minimum(long, short) * size, mask=inside)


@triton.jit
def group_sums(x, sums, count, channels, each, share, PARTS: tl.constexpr, LANES: tl.constexpr, BLOCK: tl.constexpr):
    """Of each part of the pixels and each group of channels: the sum of the values, and of their squares."""
    part, group = tl.program_id(0), tl.program_id(1)
    lane = tl.arange(0, LANES)
    total, squares = tl.zeros((BLOCK, LANES), tl.float32), tl.zeros((BLOCK, LANES), tl.float32)
    for start in range(0, share, BLOCK):
        offset = start + tl.arange(0, BLOCK)
        pixel = part * share + offset
        known = ((offset < share) & (pixel < count))[:, None] & (lane < each)[None, :]
        value = tl.load(x + pixel[:, None] * channels + group * each + lane[None, :], mask=known, other=0.0)
        value = value.to(tl.float32)
        total += value
        squares += value * value
    tl.store(sums + group * PARTS + part, tl.sum(tl.sum(total, 1), 0))
    tl.store(sums + (tl.num_programs(1) + group) * PARTS + part, tl.sum(tl.sum(squares, 1), 0))


@triton.jit
def normalise(
    x, sums, weight, bias, result, count, channels, each, eps,
    PARTS: tl.constexpr, LANES: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """silu of the normalised values, from the sums of all parts."""
    group = tl.program_id(1)
    pixel, lane, part = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK), tl.arange(0, LANES), tl.arange(0, PARTS)
    known = (pixel < count)[:, None] & (lane < each)[None, :]
    size = (count * each).to(tl.float32)
    mean = tl.sum(tl.load(sums + group * PARTS + part), 0) / size
    square = tl.sum(tl.load(sums + (tl.num_programs(1) + group) * PARTS + part), 0) / size
    scale = 1.0 / tl.sqrt(tl.maximum(square - mean * mean, 0.0) + eps)
    channel = group * each + lane
    factor = tl.load(weight + channel, mask=lane < each, other=0.0).to(tl.float32) * scale
    shift = tl.load(bias + channel, mask=lane < each, other=0.0).to(tl.float32) - mean * factor
    at = pixel[:, None] * channels + channel[None, :]
    value = tl.load(x + at, mask=known, other=0.0).to(tl.float32) * factor[None, :] + shift[None, :]
    tl.store(result + at, (value / (1.0 + tl.exp(-value))).to(result.dtype.element_ty), mask=known)


@triton.jit
def rows(table, index, result, size, WIDTH: tl.constexpr, BLOCK: tl.constexpr):
    """Block by block of the result's numbers."""
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = at < size
    row = tl.load(index + at // WIDTH, mask=inside, other=0)
    tl.store(result + at, tl.load(table + row * WIDTH + at % WIDTH, mask=inside, other=0.0), mask=inside)
