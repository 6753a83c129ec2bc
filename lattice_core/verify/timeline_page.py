"""The page around a timeline: styles for light and dark, and the details under the pointer."""

from __future__ import annotations

TEMPLATE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>@@TITLE@@</title>
<style>
:root {
  --page: #f6f7f9; --card: #ffffff; --ink: #1c2430; --soft: #5c6675; --line: #dfe3ea; --stripe: #f5f7fa;
  --put: #dbe8ff; --put-edge: #3b73d6; --get: #d9f2e3; --get-edge: #24925a;
  --delete: #fde6cf; --delete-edge: #c2701c; --cas: #ebe1fc; --cas-edge: #7c4fd0;
  --bad: #c8242f; --bad-soft: rgba(200, 36, 47, .08); --good: #1d7f4c; --unknown: #8a6a00; --dot: #1c2430;
  --dot-ink: #ffffff;
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #12161c; --card: #1a2029; --ink: #e6ebf2; --soft: #98a3b3; --line: #303947; --stripe: #1f2630;
    --put: #1f3763; --put-edge: #6f9ff0; --get: #17452f; --get-edge: #4fc188;
    --delete: #4f3214; --delete-edge: #e5a058; --cas: #3b2b63; --cas-edge: #a987f0;
    --bad: #ff6b72; --bad-soft: rgba(255, 107, 114, .11); --good: #56c98c; --unknown: #e0b93f; --dot: #e6ebf2;
    --dot-ink: #12161c;
  }
}
* { box-sizing: border-box; }
body { margin: 0; padding: 28px; background: var(--page); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", "DejaVu Sans", sans-serif; }
main { max-width: 1500px; margin: 0 auto; }
h1 { font-size: 22px; line-height: 1.3; margin: 0 0 6px; display: flex; gap: 12px; align-items: center;
  flex-wrap: wrap; }
h2 { font-size: 15px; margin: 0 0 8px; }
.badge { font-size: 12px; font-weight: 600; border: 1.5px solid; border-radius: 99px; padding: 1px 10px; }
.badge.bad { color: var(--bad); } .badge.good { color: var(--good); } .badge.unknown { color: var(--unknown); }
.sentence { margin: 0 0 18px; max-width: 95ch; }
.card { background: var(--card); border: 1px solid var(--line); border-radius: 10px; }
.scroll { overflow-x: auto; }
.legend { display: flex; flex-wrap: wrap; gap: 6px 18px; padding: 10px 16px; border-bottom: 1px solid var(--line);
  color: var(--soft); font-size: 13px; }
.legend span { display: inline-flex; align-items: center; gap: 6px; }
.legend i { width: 22px; height: 13px; border-radius: 3px; border: 1.5px solid; }
.legend i.put { background: var(--put); border-color: var(--put-edge); }
.legend i.get { background: var(--get); border-color: var(--get-edge); }
.legend i.delete { background: var(--delete); border-color: var(--delete-edge); }
.legend i.cas { background: var(--cas); border-color: var(--cas-edge); }
.legend i.open { border: 1.5px dashed var(--soft); border-right: 0; border-radius: 3px 0 0 3px; }
.legend i.failed { border-color: var(--soft); opacity: .45; }
.legend b.dot { background: var(--dot); color: var(--dot-ink); border-radius: 50%; width: 17px; height: 17px;
  font-size: 11px; display: inline-grid; place-items: center; }
svg { display: block; font: 12.5px ui-monospace, "SF Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace; }
svg text { fill: var(--ink); }
.stripe { fill: var(--stripe); }
text.lane { font: 13px system-ui, "Segoe UI", "DejaVu Sans", sans-serif; fill: var(--soft); }
line.tick { stroke: var(--line); } text.tick { fill: var(--soft); font-size: 11px; text-anchor: middle; }
line.culprit { stroke: var(--bad); stroke-dasharray: 3 3; } text.tick.culprit { fill: var(--bad); font-weight: 700; }
.band { fill: var(--bad-soft); }
g.op { outline: none; cursor: default; }
g.op rect, g.op path { stroke-width: 1.5; }
g.put rect, g.put path { fill: var(--put); stroke: var(--put-edge); }
g.get rect, g.get path { fill: var(--get); stroke: var(--get-edge); }
g.delete rect, g.delete path { fill: var(--delete); stroke: var(--delete-edge); }
g.cas rect, g.cas path { fill: var(--cas); stroke: var(--cas-edge); }
g.op.open path { stroke-dasharray: 5 4; }
g.op.failed { opacity: .45; } g.op.failed > text { text-decoration: line-through; }
g.op.culprit rect, g.op.culprit path { stroke: var(--bad); stroke-width: 3; }
g.op:hover rect, g.op:hover path, g.op:focus-visible rect, g.op:focus-visible path { stroke-width: 3; }
text.mark { fill: var(--bad) !important; font: 700 11.5px system-ui, "Segoe UI", "DejaVu Sans", sans-serif; }
polyline.order { fill: none; stroke: var(--dot); stroke-width: 1.2; stroke-dasharray: 2 3; opacity: .55;
  pointer-events: none; }
g.dot { pointer-events: none; } g.dot circle { fill: var(--dot); stroke: var(--card); stroke-width: 2; }
g.dot text { fill: var(--dot-ink); font: 700 10.5px system-ui, "DejaVu Sans", sans-serif; text-anchor: middle; }
.note { color: var(--soft); font-size: 13px; margin: 10px 2px; }
.orders { display: flex; flex-wrap: wrap; gap: 18px; margin-top: 18px; }
.orders section { background: var(--card); border: 1px solid var(--line); border-radius: 10px;
  padding: 14px 18px; min-width: 420px; }
ol { margin: 0; padding: 0; list-style: none; counter-reset: place; }
li { padding: 3px 0; display: flex; align-items: baseline; gap: 10px; }
li::before { counter-increment: place; content: counter(place); color: var(--soft); font-size: 13px; width: 22px;
  text-align: right; }
li.stop::before { content: "✗"; color: var(--bad); }
li .by, li .state { color: var(--soft); font-size: 13px; }
li .state { margin-left: auto; padding-left: 28px; }
li.stop .state { color: var(--bad); font-weight: 700; }
.chip { border-radius: 4px; padding: 1px 7px;
  font: 12.5px ui-monospace, Menlo, Consolas, "DejaVu Sans Mono", monospace; }
.chip.put { background: var(--put); } .chip.get { background: var(--get); }
.chip.delete { background: var(--delete); } .chip.cas { background: var(--cas); }
#card { position: fixed; display: none; z-index: 2; background: var(--card); color: var(--ink);
  border: 1px solid var(--line); border-radius: 8px; padding: 9px 13px; font-size: 13px;
  box-shadow: 0 6px 22px rgba(0, 0, 0, .22); pointer-events: none; max-width: 460px; }
#card dl { margin: 0; display: grid; grid-template-columns: auto 1fr; gap: 1px 12px; }
#card dt { color: var(--soft); } #card dd { margin: 0; overflow-wrap: anywhere; }
</style>
</head>
<body>
<main>
<h1>@@TITLE@@ @@BADGE@@</h1>
<p class="sentence">@@SENTENCE@@</p>
<div class="card"><div class="legend">@@LEGEND@@</div><div class="scroll">@@SVG@@</div></div>
<p class="note">Milliseconds from the start of the history. Order on the axis is exact; lengths are not to scale.</p>
@@NOTES@@
<div class="orders">@@ORDERS@@</div>
</main>
<div id="card" role="status"></div>
<script>
(() => {
  const card = document.getElementById("card");
  const show = (bar, x, y) => {
    const list = document.createElement("dl");
    for (const [name, value] of JSON.parse(bar.dataset.details)) {
      const dt = document.createElement("dt"), dd = document.createElement("dd");
      dt.textContent = name; dd.textContent = value; list.append(dt, dd);
    }
    card.replaceChildren(list);
    card.style.display = "block";
    card.style.left = Math.max(8, Math.min(x + 14, innerWidth - card.offsetWidth - 8)) + "px";
    card.style.top = Math.max(8, Math.min(y + 16, innerHeight - card.offsetHeight - 8)) + "px";
  };
  const hide = () => { card.style.display = "none"; };
  for (const bar of document.querySelectorAll("g.op")) {
    bar.querySelector("title").remove();
    bar.addEventListener("mousemove", (event) => show(bar, event.clientX, event.clientY));
    bar.addEventListener("mouseleave", hide);
    bar.addEventListener("focus", () => { const box = bar.getBoundingClientRect(); show(bar, box.left, box.bottom); });
    bar.addEventListener("blur", hide);
  }
})();
</script>
</body>
</html>
"""
