"""An evaluation as text for people: aligned columns for a terminal, or Markdown."""

from __future__ import annotations

from collections.abc import Sequence

from pixel4d_ros.evaluation.summary import Evaluation, Interval, Step

Row = Sequence[str]


def table(header: Row, rows: Sequence[Row], markdown: bool = False) -> str:
    """Rows of cells under a header; the first column is left-aligned, numbers right-aligned."""
    widths = [max(len(row[i]) for row in (header, *rows)) for i in range(len(header))]

    def line(row: Row) -> str:
        cells = [row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True))]
        return f"| {' | '.join(cells)} |" if markdown else "  ".join(cells).rstrip()

    dashes = ["-" * widths[0], *("-" * (w - 1) + (":" if markdown else "-") for w in widths[1:])]
    return "\n".join([line(header), line(dashes), *map(line, rows)])


def describe(evaluation: Evaluation, markdown: bool = False) -> str:
    """The whole evaluation: what was evaluated, per-step table, means with confidence intervals, depth, time."""
    e = evaluation
    head = (
        f"{e.log}: {e.sources} source image{'s' * (e.sources != 1)}, {e.frames} frames each, {e.size[0]}x{e.size[1]}; "
        f"weights {e.weights[:12]}, pixel4d_ros {e.package_version}, {e.device}"
    )
    if e.protocol.static:
        head += "; motion switched off"
    if e.protocol.align_scale:
        head += "; camera paths scaled to the predicted depth, one scale per image"
    blocks = [f"### {head}" if markdown else head, _steps(e, markdown), _means(e, markdown)]
    blocks += [f"Note: {note}" for note in e.notes]
    t = e.timing_ms
    blocks.append(f"One forecast takes {t.median:.0f} ms (median; worst {t.worst:.0f} ms, the first {t.first:.0f} ms).")
    return "\n\n".join(blocks)


def _steps(e: Evaluation, markdown: bool) -> str:
    several = e.psnr_best is not None
    header = ["time", "PSNR", "repeat", "gain", "SSIM", "repeat"]
    if several:
        header += [f"PSNR mean of {e.protocol.samples}", f"best of {e.protocol.samples}"]
    return table(header, [_step_row(step, several) for step in e.steps], markdown)


def _step_row(step: Step, several: bool) -> Row:
    row = [f"+{step.time:.2f} s", f"{step.psnr:.2f}"]
    if step.step == 0:  # repeating the source image is the source image
        row += ["", "", f"{step.ssim:.3f}", ""]
    else:
        row += [f"{step.repeat_psnr:.2f}", f"{step.psnr - step.repeat_psnr:+.2f}"]
        row += [f"{step.ssim:.3f}", f"{step.repeat_ssim:.3f}"]
    if several:
        row += [f"{step.psnr_mean:.2f}", f"{step.psnr_best:.2f}"]
    return row


def _means(e: Evaluation, markdown: bool) -> str:
    later = f"+1..+{e.frames - 1}"
    rows = [
        _mean_row("PSNR of frame 0, dB", e.frame0_psnr, 2),
        _mean_row(f"PSNR of {later}, dB", e.psnr, 2),
        _mean_row("  repeating the image, dB", e.repeat_psnr, 2),
        _mean_row("  gain, dB", e.gain, 2),
        _mean_row(f"SSIM of {later}", e.ssim, 3),
        _mean_row("  repeating the image", e.repeat_ssim, 3),
    ]
    if e.psnr_mean is not None and e.psnr_best is not None:
        rows += [
            _mean_row(f"PSNR of {later}, mean of {e.protocol.samples} futures, dB", e.psnr_mean, 2),
            _mean_row(f"PSNR of {later}, best of {e.protocol.samples} futures, dB", e.psnr_best, 2),
        ]
    if e.scale is not None:
        rows.append(_mean_row("scale of the camera path", e.scale, 3))
    if e.depth is not None:
        rows += [
            _mean_row("depth AbsRel", e.depth.abs_rel, 3),
            _mean_row("depth delta1", e.depth.delta1, 3),
            _mean_row("depth AbsRel, median scaled", e.depth.scaled_abs_rel, 3),
            _mean_row("depth delta1, median scaled", e.depth.scaled_delta1, 3),
        ]
    return table(["mean over source images", "value", "95 % interval"], rows, markdown)


def _mean_row(name: str, value: Interval, digits: int) -> Row:
    known = value.low is not None and value.high is not None
    interval = f"{value.low:.{digits}f} .. {value.high:.{digits}f}" if known else ""
    return [name, f"{value.mean:.{digits}f}", interval]
