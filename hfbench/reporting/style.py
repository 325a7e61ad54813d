"""The report's style sheet: light and dark, readable on a phone, nothing loaded from elsewhere."""

STYLE = """
:root {
  color-scheme: light dark;
  --ink: #1c1e21; --faint: #5b6168; --paper: #ffffff; --line: #d5d9de; --best: #11652f;
}
@media (prefers-color-scheme: dark) {
  :root { --ink: #e4e6e9; --faint: #a2a9b1; --paper: #16181b; --line: #3a3f45; --best: #6fd08c; }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 16px/1.5 system-ui, sans-serif; }
main { max-width: 76rem; margin: 0 auto; padding: 1rem; }
h1 { font-size: 1.4rem; line-height: 1.3; overflow-wrap: anywhere; }
h2 { font-size: 1.1rem; margin-top: 2.2rem; }
h3 { font-size: 1rem; margin-bottom: 0.3rem; }
p, dd { max-width: 48rem; }
.faint, .unit { color: var(--faint); }
.unit { font-weight: normal; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: 0.9rem; }
th, td { padding: 0.25rem 0.7rem; text-align: left; vertical-align: top; }
thead th { border-bottom: 2px solid var(--line); vertical-align: bottom; }
tr.end td { border-bottom: 1px solid var(--line); }
th.number, td.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
td.wrap { white-space: pre-wrap; overflow-wrap: anywhere; min-width: 14rem; }
.best { color: var(--best); }
dt { font-weight: 600; margin-top: 0.6rem; }
dd { margin-left: 0; }
"""
