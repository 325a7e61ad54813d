"""The report's style sheet: light, dark and paper, readable on a phone, nothing loaded from elsewhere."""

from hfbench.report.charts.chart import PHASE_COLOURS, PHASE_COLOURS_DARK, WAY_COLOURS, WAY_COLOURS_DARK, palette

_LIGHT = (
    "--ink: #1b1f24; --faint: #57606a; --paper: #ffffff; --panel: #f6f8fa; --line: #d0d7de; --best: #116329; "
    f"--link: #0550ae; {palette(WAY_COLOURS, 'way')} {palette(PHASE_COLOURS, 'phase')}"
)
_DARK = (
    "--ink: #e6e9ed; --faint: #a3abb5; --paper: #14171b; --panel: #1d2127; --line: #3b434c; --best: #6fd08c; "
    f"--link: #79b8ff; {palette(WAY_COLOURS_DARK, 'way')} {palette(PHASE_COLOURS_DARK, 'phase')}"
)
_RULES = """
* { box-sizing: border-box; }
html { scroll-behavior: smooth; scroll-padding-top: 3rem; -webkit-text-size-adjust: 100%; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 16px/1.55 system-ui, sans-serif; }
main { max-width: 74rem; margin: 0 auto; padding: 1.2rem clamp(0.9rem, 3vw, 2rem) 3rem; }
h1 { font-size: clamp(1.35rem, 1rem + 1.6vw, 1.9rem); line-height: 1.25; margin: 0.1rem 0 0.5rem;
  overflow-wrap: anywhere; }
h2 { font-size: 1.3rem; line-height: 1.3; margin: 0 0 0.6rem; }
h3 { font-size: 1.02rem; line-height: 1.35; margin: 1.2rem 0 0.4rem; }
section { border-top: 1px solid var(--line); margin-top: 2.4rem; padding-top: 1.5rem; }
p, .definitions dd { max-width: 50rem; }
a { color: var(--link); }
.brand { margin: 0; font-weight: 700; letter-spacing: 0.02em; color: var(--faint); }
.lead { font-size: 1.12rem; }
.faint, .unit { color: var(--faint); }
.note { font-size: 0.86rem; line-height: 1.5; margin: 0.5rem 0; }
.unit { font-weight: normal; }
.word { white-space: nowrap; }
nav { position: sticky; top: 0; z-index: 2; display: flex; gap: 0.2rem 1.1rem; padding: 0.55rem 0;
  margin-top: 1rem; overflow-x: auto;
  background: var(--paper); border-bottom: 1px solid var(--line); font-size: 0.88rem; }
nav a { white-space: nowrap; text-decoration: none; }
nav a:hover { text-decoration: underline; }
nav + section { border-top: 0; margin-top: 0.4rem; }
.facts { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(15rem, 46%), 1fr));
  gap: 0.6rem; margin: 1rem 0 0; }
.facts div { background: var(--panel); border-radius: 0.5rem; padding: 0.55rem 0.8rem; }
.facts dt { font-size: 0.8rem; color: var(--faint); }
.facts dd { margin: 0; overflow-wrap: anywhere; }
figure { margin: 1rem 0 0; }
figcaption h3 { margin-top: 0; font-weight: 600; }
.chart { min-height: 4rem; max-width: 100%; overflow: hidden; }
.chart svg { display: block; max-width: 100%; height: auto; }
.chart.vega-embed { display: block; padding: 0; }
.key { display: flex; flex-wrap: wrap; gap: 0.2rem 1.1rem; margin: 0.3rem 0 0.6rem; padding: 0;
  list-style: none; font-size: 0.86rem; }
.key li { display: inline-flex; align-items: center; gap: 0.4rem; }
.key svg { flex-shrink: 0; }
details { margin: 0.5rem 0; }
summary { cursor: pointer; color: var(--link); font-size: 0.9rem; width: fit-content; }
.scroll { overflow-x: auto; max-width: 100%; }
.numbers .scroll { max-height: 28rem; overflow-y: auto; }
table { border-collapse: collapse; font-size: 0.86rem; margin: 0.4rem 0; }
th, td { padding: 0.3rem 0.55rem; text-align: left; vertical-align: top; }
th:first-child, td:first-child { padding-left: 0; }
thead th { border-bottom: 2px solid var(--line); vertical-align: bottom; }
tbody tr:hover { background: var(--panel); }
table:not(.sorted) tr.end td { border-bottom: 1px solid var(--line); }
th.number, td.number { text-align: right; font-variant-numeric: tabular-nums; }
td.number { white-space: nowrap; }
th button { all: unset; cursor: pointer; font: inherit; }
th button:focus-visible { outline: 2px solid var(--link); }
th[aria-sort=ascending] button::after { content: " ↑"; }
th[aria-sort=descending] button::after { content: " ↓"; }
td.wrap { white-space: pre-wrap; overflow-wrap: anywhere; min-width: 14rem; }
tbody th { font-weight: 600; white-space: nowrap; }
.best { color: var(--best); }
.numbers pre { max-height: 28rem; }
pre { background: var(--panel); border-radius: 0.5rem; padding: 0.6rem 0.8rem; overflow-x: auto; font-size: 0.85rem; }
.definitions dt { font-weight: 600; margin-top: 0.6rem; }
.definitions dd { margin-left: 0; }
#vg-tooltip-element.vg-tooltip.page-theme { background: var(--paper); color: var(--ink); border: 1px solid var(--line);
  border-radius: 0.4rem; box-shadow: 0 2px 10px rgb(0 0 0 / 0.25); padding: 0.4rem 0.6rem;
  font: 13px/1.4 system-ui, sans-serif; }
#vg-tooltip-element.vg-tooltip.page-theme table { margin: 0; }
#vg-tooltip-element.vg-tooltip.page-theme td.key { color: var(--faint); display: table-cell; }
@media (max-width: 40rem) {
  body { font-size: 15px; }
  tbody th { white-space: normal; }
}
"""
_PRINT = """
@page { margin: 14mm; }
body { font-size: 10.5pt; }
main { max-width: none; padding: 0; }
nav, .numbers:not([open]), th button::after { display: none; }
section { margin-top: 1.2rem; padding-top: 0.8rem; }
figure, tr, .facts div, h2, h3 { break-inside: avoid; }
h2, h3, figcaption, .key { break-after: avoid; }
.scroll, .numbers .scroll { overflow: visible; max-height: none; }
table { font-size: 7.5pt; }
th, td { padding: 0.15rem 0.35rem; }
.facts { grid-template-columns: repeat(3, 1fr); }
* { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
"""
STYLE = (
    f":root {{ color-scheme: light dark; {_LIGHT} }}\n"
    f"@media screen and (prefers-color-scheme: dark) {{ :root {{ {_DARK} }} }}\n"
    f"{_RULES}@media print {{{_PRINT}}}\n"
)
