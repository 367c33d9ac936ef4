"""The style sheet of report.html: one look for the page and the SVG charts of plots.py, light and dark."""

from __future__ import annotations

STYLE = """\
:root {
  color-scheme: light dark;
  --page: #ffffff; --card: #f4f5f7; --text: #1c1f24; --dim: #626a76; --line: #dfe2e7; --c0: #1f6fd6; --c1: #c4660a;
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #15171b; --card: #1e2127; --text: #e8eaee; --dim: #9aa2af; --line: #343943; --c0: #5aa0ff; --c1: #ffaa50;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0; background: var(--page); color: var(--text);
  font: 15px/1.5 system-ui, "Segoe UI", Roboto, sans-serif;
}
main { max-width: 1120px; margin: 0 auto; padding: 32px 20px 64px; }
h1 { margin: 0 0 4px; font-size: 28px; line-height: 1.2; }
h2 { margin: 40px 0 12px; font-size: 19px; }
p { max-width: 75ch; }
.dim { color: var(--dim); }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(160px, 1fr)); gap: 12px; margin-top: 20px; }
.card { background: var(--card); border-radius: 8px; padding: 12px 14px; font-size: 13px; }
.big { font-size: 27px; line-height: 1.3; font-variant-numeric: tabular-nums; }
.big small { font-size: 14px; color: var(--dim); }
video, img { display: block; width: 100%; border-radius: 6px; }
.strip { display: grid; grid-template-columns: 1fr 1fr; gap: 10px 14px; padding-bottom: 22px; margin-bottom: 22px;
  border-bottom: 1px solid var(--line); break-inside: avoid; }
.strip:last-child { border-bottom: 0; margin-bottom: 0; }
.strip .source { grid-column: 1 / -1; max-width: calc(50% - 7px); }
figure { margin: 0; }
figcaption { font-size: 13px; color: var(--dim); margin-bottom: 3px; }
figcaption.c0 { color: var(--c0); }
figcaption.c1 { color: var(--c1); }
.charts {
  display: grid; grid-template-columns: repeat(auto-fit, minmax(min(440px, 100%), 1fr)); gap: 20px; align-items: start;
}
svg { display: block; width: 100%; height: auto; font: 13px system-ui, sans-serif; }
svg .grid { stroke: var(--line); }
svg .axis { stroke: var(--dim); }
svg .tick { fill: var(--dim); }
svg .line { fill: none; stroke-width: 2.5; stroke-linejoin: round; }
svg .line.s0 { stroke: var(--c0); }
svg .line.s1 { stroke: var(--dim); stroke-dasharray: 6 4; }
svg .dot.s0, svg .name.s0, svg .bar { fill: var(--c0); }
svg .dot.s1, svg .name.s1 { fill: var(--dim); }
.scroll { overflow-x: auto; margin: 12px 0; }
table { border-collapse: collapse; font-size: 14px; font-variant-numeric: tabular-nums; }
th, td { padding: 4px 18px 4px 0; text-align: left; border-bottom: 1px solid var(--line); vertical-align: top; }
th { color: var(--dim); font-weight: 500; }
td.n { text-align: right; }
summary { cursor: pointer; color: var(--dim); margin: 12px 0; }
@media (max-width: 640px) { .strip { grid-template-columns: 1fr; } .strip .source { max-width: none; } }
"""
