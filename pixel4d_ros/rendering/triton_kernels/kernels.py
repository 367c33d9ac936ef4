# SPDX-License-Identifier: Apache-2.0
"""Triton kernels of triton_kernels.operations, where each is documented. Importing this needs Triton.

Offsets within one view fit 32 bits; those of a view, of which there may be hundreds, are made of 64. Strides from one
Gaussian or pixel to the next are constants, so that their channels are loaded four at a time.
"""

import triton
import triton.language as tl


@triton.jit
def blended_channels(
    features, depths, channels, count, per_view, per_channel, near,
    PER_GAUSSIAN: tl.constexpr, GIVEN: tl.constexpr, WIDTH: tl.constexpr, LANES: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Block by block of each view's Gaussians."""
    view = tl.program_id(1).to(tl.int64)
    gaussian = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = gaussian < count
    inverse = 1.0 / tl.maximum(tl.load(depths + view * count + gaussian, mask=inside, other=1.0), near)
    gaussian, inside, inverse, lane = gaussian[:, None], inside[:, None], inverse[:, None], tl.arange(0, LANES)[None, :]
    at = view * per_view + gaussian * PER_GAUSSIAN + lane * per_channel
    value = tl.load(features + at, mask=inside & (lane < GIVEN), other=0.0)
    value = tl.where(lane == GIVEN, inverse, tl.where(lane == GIVEN + 1, inverse * inverse, value))
    tl.store(channels + view * count * WIDTH + gaussian * WIDTH + lane, value, mask=inside & (lane < WIDTH))


@triton.jit
def _depth(inverse, square):
    seen = square > 0.0
    return tl.where(seen, inverse / tl.where(seen, square, 1.0), float("inf"))


@triton.jit
def depth_from_inverses(inverses, squares, depths, count, per_inverse, per_square, BLOCK: tl.constexpr):
    """Block by block of all views' pixels."""
    pixel = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = pixel < count
    inverse = tl.load(inverses + pixel * per_inverse, mask=inside, other=0.0)
    square = tl.load(squares + pixel * per_square, mask=inside, other=0.0)
    tl.store(depths + pixel, _depth(inverse, square), mask=inside)


@triton.jit
def pictures(
    features, frames, counts, count, per_view, per_channel, seen_above, PER_PIXEL: tl.constexpr, BLOCK: tl.constexpr
):
    """Block by block of each view's pixels."""
    view = tl.program_id(1).to(tl.int64)
    pixel = (tl.program_id(0) * BLOCK + tl.arange(0, BLOCK))[:, None]
    lane, inside = tl.arange(0, 4)[None, :], pixel < count
    value = tl.load(features + view * per_view + pixel * PER_PIXEL + lane * per_channel, mask=inside, other=0.0)
    known = inside & (lane == 3) & (value > seen_above)
    tl.store(counts + view * tl.num_programs(0) + tl.program_id(0), tl.sum(tl.sum(known.to(tl.int32), 1), 0))
    # A float of 2^23 or more has no bits for fractions: the sum is rounded, half to even, and ends in the wanted byte.
    # Limited after the product, which therefore cannot become one operation with the sum and go without its rounding.
    level = tl.minimum(tl.maximum(value * 255.0, 0.0), 255.0)
    byte = (level + 8388608.0).to(tl.int32, bitcast=True) & 255
    tl.store(frames + view * count * 3 + pixel * 3 + lane, byte.to(tl.uint8), mask=inside & (lane < 3))


@triton.jit
def _after(first, second, column, t, inside):
    """first t + second t^2 / 2 of vectors (x, y, z)."""
    x = tl.load(first, mask=inside, other=0.0) * t + 0.5 * tl.load(second, mask=inside, other=0.0) * t * t
    first, second = first + column, second + column
    y = tl.load(first, mask=inside, other=0.0) * t + 0.5 * tl.load(second, mask=inside, other=0.0) * t * t
    first, second = first + column, second + column
    z = tl.load(first, mask=inside, other=0.0) * t + 0.5 * tl.load(second, mask=inside, other=0.0) * t * t
    return x, y, z


@triton.jit
def moved_gaussians(
    means, quaternions, centroids, objects, velocities, accelerations, angular_velocities, angular_accelerations,
    index, times, new_means, new_quaternions, count, row, column, BLOCK: tl.constexpr,
):  # fmt: skip
    """Block by block of what moves, at each instant."""
    instant = tl.program_id(1).to(tl.int64)
    place = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = place < count
    t = tl.load(times + instant)
    which = tl.load(index + place, mask=inside, other=0)
    centroid = centroids + tl.load(objects + which, mask=inside, other=0) * 3
    at = which * row
    sx, sy, sz = _after(velocities + at, accelerations + at, column, t, inside)
    rx, ry, rz = _after(angular_velocities + at, angular_accelerations + at, column, t, inside)
    half = 0.5 * tl.sqrt(rx * rx + ry * ry + rz * rz)
    # Below 1e-4 sin(x) / x is 1 in float32.
    ratio = 0.5 * tl.where(half > 1e-4, tl.sin(half) / tl.maximum(half, 1e-4), 1.0)
    w, x, y, z = tl.cos(half), rx * ratio, ry * ratio, rz * ratio

    cx = tl.load(centroid, mask=inside, other=0.0)
    cy = tl.load(centroid + 1, mask=inside, other=0.0)
    cz = tl.load(centroid + 2, mask=inside, other=0.0)
    dx = tl.load(means + which * 3, mask=inside, other=0.0) - cx
    dy = tl.load(means + which * 3 + 1, mask=inside, other=0.0) - cy
    dz = tl.load(means + which * 3 + 2, mask=inside, other=0.0) - cz
    ux, uy, uz = 2.0 * (y * dz - z * dy), 2.0 * (z * dx - x * dz), 2.0 * (x * dy - y * dx)
    to = instant * count + place
    tl.store(new_means + to * 3, cx + (dx + w * ux + (y * uz - z * uy)) + sx, mask=inside)
    tl.store(new_means + to * 3 + 1, cy + (dy + w * uy + (z * ux - x * uz)) + sy, mask=inside)
    tl.store(new_means + to * 3 + 2, cz + (dz + w * uz + (x * uy - y * ux)) + sz, mask=inside)

    a = tl.load(quaternions + which * 4, mask=inside, other=0.0)
    b = tl.load(quaternions + which * 4 + 1, mask=inside, other=0.0)
    c = tl.load(quaternions + which * 4 + 2, mask=inside, other=0.0)
    d = tl.load(quaternions + which * 4 + 3, mask=inside, other=0.0)
    tl.store(new_quaternions + to * 4, w * a - x * b - y * c - z * d, mask=inside)
    tl.store(new_quaternions + to * 4 + 1, w * b + x * a + y * d - z * c, mask=inside)
    tl.store(new_quaternions + to * 4 + 2, w * c - x * d + y * a + z * b, mask=inside)
    tl.store(new_quaternions + to * 4 + 3, w * d + x * c - y * b + z * a, mask=inside)


@triton.jit
def _rectangle(means, radii, at, inside, columns, rows, TILE: tl.constexpr):
    """Tiles x0 <= x < x1, y0 <= y < y1 that splats reach, none where they are not drawn. TILE: a power of two."""
    radius_x, radius_y = tl.load(radii + at, mask=inside, other=0), tl.load(radii + at + 1, mask=inside, other=0)
    x, y = tl.load(means + at, mask=inside, other=0.0), tl.load(means + at + 1, mask=inside, other=0.0)
    drawn = (radius_x > 0) & (radius_y > 0)
    x0 = tl.minimum(tl.maximum(tl.floor((x - radius_x) * (1.0 / TILE)), 0.0), columns).to(tl.int32)
    x1 = tl.minimum(tl.maximum(tl.ceil((x + radius_x) * (1.0 / TILE)), 0.0), columns).to(tl.int32)
    y0 = tl.minimum(tl.maximum(tl.floor((y - radius_y) * (1.0 / TILE)), 0.0), rows).to(tl.int32)
    y1 = tl.minimum(tl.maximum(tl.ceil((y + radius_y) * (1.0 / TILE)), 0.0), rows).to(tl.int32)
    return x0, tl.where(drawn, x1, x0), y0, tl.where(drawn, y1, y0)


@triton.jit
def touched_tiles(means, radii, tiles, count, columns, rows, TILE: tl.constexpr, BLOCK: tl.constexpr):
    """Block by block of each view's splats, which all write the same to their tiles."""
    view = tl.program_id(1).to(tl.int64)
    splat = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    x0, x1, y0, y1 = _rectangle(means, radii, (view * count + splat) * 2, splat < count, columns, rows, TILE)
    tiles += view * rows * columns
    one = tl.full((BLOCK,), 1, tl.uint8)
    for down in range(tl.max(tl.where(x1 > x0, y1 - y0, 0), 0)):
        for right in range(tl.max(tl.where(y1 > y0, x1 - x0, 0), 0)):
            row, column = y0 + down, x0 + right
            tl.store(tiles + row * columns + column, one, mask=(row < y1) & (column < x1))


@triton.jit
def _sum_before(sums, x, y, columns, wanted):
    """Of the tiles left of x and above y."""
    return tl.load(sums + (y - 1) * columns + x - 1, mask=wanted & (x > 0) & (y > 0), other=0)


@triton.jit
def radii_within(means, radii, sums, result, count, columns, rows, TILE: tl.constexpr, BLOCK: tl.constexpr):
    """Block by block of each view's splats."""
    view = tl.program_id(1).to(tl.int64)
    splat = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    at, inside = (view * count + splat) * 2, splat < count
    x0, x1, y0, y1 = _rectangle(means, radii, at, inside, columns, rows, TILE)
    sums += view * rows * columns
    wanted = (x1 > x0) & (y1 > y0)
    beside = _sum_before(sums, x0, y1, columns, wanted) + _sum_before(sums, x1, y0, columns, wanted)
    found = _sum_before(sums, x1, y1, columns, wanted) + _sum_before(sums, x0, y0, columns, wanted) > beside
    tl.store(result + at, tl.load(radii + at, mask=found, other=0), mask=inside)
    tl.store(result + at + 1, tl.load(radii + at + 1, mask=found, other=0), mask=inside)


@triton.jit
def changed_tiles(
    tiles, blended, blended_alphas, old_features, old_depths, old_alphas, features, depths, alphas,
    width, height, columns, rows, per_old_channel,
    PER_OLD_PIXEL: tl.constexpr, PER_PIXEL: tl.constexpr, GIVEN: tl.constexpr, LANES: tl.constexpr,
    TILE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Block by block of each view's pixels."""
    view = tl.program_id(1).to(tl.int64)
    pixel = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = pixel < width * height
    tile = pixel // width // TILE * columns + pixel % width // TILE
    new = tl.load(tiles + view * rows * columns + tile, mask=inside, other=0) != 0
    kept, new, at = inside & ~new, inside & new, view * width * height + pixel
    inverse = tl.load(blended + at * PER_PIXEL + GIVEN, mask=new, other=0.0)
    square = tl.load(blended + at * PER_PIXEL + GIVEN + 1, mask=new, other=0.0)
    depth = tl.where(new, _depth(inverse, square), tl.load(old_depths + at, mask=kept, other=0.0))
    tl.store(depths + at, depth, mask=inside)
    alpha = tl.load(blended_alphas + at, mask=new, other=0.0) + tl.load(old_alphas + at, mask=kept, other=0.0)
    tl.store(alphas + at, alpha, mask=inside)
    at, new, kept, inside, lane = (
        at[:, None],
        new[:, None],
        kept[:, None],
        inside[:, None],
        tl.arange(0, LANES)[None, :],
    )
    value = tl.load(blended + at * PER_PIXEL + lane, mask=new & (lane < GIVEN), other=0.0)
    value += tl.load(old_features + at * PER_OLD_PIXEL + lane * per_old_channel, mask=kept & (lane < GIVEN), other=0.0)
    tl.store(features + at * GIVEN + lane, value, mask=inside & (lane < GIVEN))


@triton.jit
def scaled_variances(levels, result, samples, size, BLOCK: tl.constexpr):
    """Block by block of the values of one sample."""
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = at < size
    total, squares = tl.zeros((BLOCK,), tl.int32), tl.zeros((BLOCK,), tl.int32)
    sample = levels + at
    for _ in range(samples):
        level = tl.load(sample, mask=inside, other=0).to(tl.int32)
        total += level
        squares += level * level
        sample += size
    total = total.to(tl.int64)
    tl.store(result + at, (samples * squares.to(tl.int64) - total * total).to(tl.float32), mask=inside)
