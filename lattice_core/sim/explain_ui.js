
// ---- the overview: all of it, with the view as a window ------------------------------------------------
let overviewImage = null, overviewKey = "";
const overX = (time) => LABEL + (time - FROM) / WHOLE * (size.overview.width - LABEL - 8);
const drawOverview = () => {
  const [ctx, W, H] = prepare(over), row = (H - 22) / N, key = [W, H, document.documentElement.className].join();
  if (key !== overviewKey) { overviewKey = key; overviewImage = null; }
  if (!overviewImage) {
    for (let node = 1; node <= N; node++) {
      const lane = D.lanes[node - 1], y = 4 + row * (node - 1);
      lane.forEach((one, i) => {
        const a = overX(Math.max(one[0], FROM)), b = overX(i + 1 < lane.length ? lane[i + 1][0] : TO), leader = one[1] === ROLE.leader;
        if (isAbsent(one)) return;
        ctx.fillStyle = isDown(one) ? C.down : leader ? deep(one[2]) : tint(one[2]);
        ctx.fillRect(a, y + 1, Math.max(b - a, 0.6), row - 2);
        if (!isDown(one) && !leader) { ctx.fillStyle = band(one[2]); ctx.fillRect(a, y + row / 2 - 1, Math.max(b - a, 0.6), 2); }
      });
      ctx.fillStyle = C.cut;
      for (const [a, b, who] of D.cuts) if (who === node) ctx.fillRect(overX(Math.max(a, FROM)), y + row - 3, Math.max(overX(Math.min(b, TO)) - overX(Math.max(a, FROM)), 1), 2);
      text(ctx, named(node), 46, y + row / 2, C.soft, `${Math.min(11, row)}px ${FONT}`);
    }
    text(ctx, "all", 14, (H - 16) / 2, C.soft, `11px ${FONT}`);
    for (const [at] of D.truncations) { ctx.fillStyle = C.kinds[5]; ctx.fillRect(overX(at) - 1, 2, 2, H - 20); }
    for (const one of D.violations) { ctx.fillStyle = C.bad; ctx.fillRect(overX(one[2]) - 2, 0, 4, H - 16); }
    const rough = WHOLE / 10, ten = 10 ** Math.floor(Math.log10(rough)), step = [1, 2, 5, 10].map((k) => k * ten).find((s) => s >= rough);
    ctx.textAlign = "center";
    for (let t = Math.ceil(FROM / step) * step; t <= TO; t += step) text(ctx, seconds(t, places(step)), Math.min(Math.max(overX(t), LABEL + 8), W - 24), H - 9, C.soft, `11px ${FONT}`);
    ctx.textAlign = "left";
    overviewImage = document.createElement("canvas");
    overviewImage.width = over.width; overviewImage.height = over.height;
    overviewImage.getContext("2d").drawImage(over, 0, 0);
  } else ctx.drawImage(overviewImage, 0, 0, W, H);
  const a = Math.max(LABEL, overX(view.from)), b = Math.min(W - 4, overX(view.from + view.width)), w = Math.max(b - a, 3);
  ctx.fillStyle = C.shade; ctx.fillRect(a, 0, w, H - 17);
  ctx.strokeStyle = C.focus; ctx.lineWidth = 2; ctx.strokeRect(a, 1, w, H - 19);
};

// ---- the logs at one moment ----------------------------------------------------------------------------
const drawLogs = () => {
  const [ctx, W, H] = prepare(logsCanvas), time = now(), logs = logsAt(time), row = (H - 26) / N, cell = 27;
  $("logs-time").textContent = seconds(Math.min(Math.max(time, FROM), TO));
  const states = logs.map((_, i) => laneAt(i + 1, time));
  let leader = -1;
  states.forEach((one, i) => { if (one[1] === ROLE.leader && (leader < 0 || one[2] > states[leader][2])) leader = i; });
  const right = Math.max(...logs.map((log, i) => isAbsent(states[i]) ? 0 : lastOf(log))), columns = Math.floor((W - LABEL - 106) / cell), first = Math.max(1, right - columns + 1);
  ctx.textAlign = "center";
  const label = right > 999 ? 4 : right > 99 ? 2 : 1;
  for (let index = first; index <= right; index++) {
    if ((right - index) % label === 0) text(ctx, String(index), LABEL + (index - first + 0.5) * cell, 13, C.soft, `10.5px ${FONT}`);
  }
  logs.forEach((log, i) => {
    if (isAbsent(states[i])) return;
    const y = 24 + row * i, down = isDown(states[i]), last = lastOf(log), high = Math.min(row - 4, 24);
    ctx.textAlign = "left"; ctx.globalAlpha = down ? 0.4 : 1;
    text(ctx, named(i + 1), 14, y + row / 2, C.ink, `700 13px ${FONT}`);
    if (i === leader) crown(ctx, 48, y + row / 2, 0.85, vivid(states[i][2]));
    const top = y + (row - high) / 2;
    for (let index = Math.max(first, log.offset + 1); index <= last; index++) {
      const term = termIn(log, index), x = LABEL + (index - first) * cell, sure = index <= log.commit;
      const other = leader >= 0 && leader !== i && !down && index > logs[leader].offset ? termIn(logs[leader], index) : term;
      ctx.fillStyle = sure ? band(term) : tint(term); ctx.fillRect(x + 1, top, cell - 2, high);
      if (sure) { ctx.fillStyle = C.good; ctx.fillRect(x + 1, top + high - 3, cell - 2, 3); } else {
        ctx.strokeStyle = band(term); ctx.lineWidth = 1.3; ctx.setLineDash([4, 3]); ctx.strokeRect(x + 1.6, top + 0.6, cell - 3.2, high - 1.2); ctx.setLineDash([]);
      }
      if (other !== term) { ctx.strokeStyle = C.kinds[5]; ctx.lineWidth = 3; ctx.strokeRect(x + 1.5, top + 1, cell - 3, high - 2); }
      ctx.textAlign = "center";
      text(ctx, String(term), x + cell / 2, top + high / 2 - (sure ? 1 : 0), sure ? "#fff" : C.ink, `600 11px ${FONT}`);
    }
    ctx.textAlign = "left";
    const x = LABEL + Math.max(last - first + 1, 0) * cell + 8, end = down ? "down" : last < first ? `ends at ${last}` : `committed ${log.commit}`;
    text(ctx, end, x, y + row / 2, C.soft, `11px ${FONT}`);
    ctx.globalAlpha = 1;
  });
  ctx.textAlign = "left";
};

// ---- what is under the pointer -------------------------------------------------------------------------
const laneTip = (node, one, until) => {
  const [at, role, term, leader, reason] = one, length = `From ${seconds(at)} to ${seconds(until)}: ${span(until - at)}.`;
  if (isDown(one)) return [`${named(node)} ${role === ROLE.refuses ? "refuses to start" : "is down"}`, S[reason] + ".", length];
  const what = ["is a follower", "asks whether it would be elected", "is a candidate", "leads"][role];
  const whom = role === 0 ? (leader ? ` Its leader is n${leader}.` : " It knows no leader yet.") : "";
  return [`${named(node)} ${what} in term ${term}`, `Why: ${S[reason]}.${whom}`, length];
};
const near = (x, y, [a, b, c, d]) => {
  const length = (c - a) ** 2 + (d - b) ** 2, part = length ? Math.min(1, Math.max(0, ((x - a) * (c - a) + (y - b) * (d - b)) / length)) : 0;
  return Math.hypot(x - a - part * (c - a), y - b - part * (d - b));
};
const under = (x, y) => {
  if (x < LABEL) return null;
  const marks = hits.filter((one) => x >= one.x && x <= one.x + one.w && y >= one.y && y <= one.y + one.h);
  const mark = marks.reverse().find((one) => one.h < rowHalf() * 2 || one.w <= 20);
  if (mark && y < AXIS) return { lines: mark.show(), go: mark.go };
  let best = null, distance = 7;
  for (const one of visible) {
    const far = near(x, y, ends(one));
    if (far < distance) { distance = far; best = one; }
  }
  if (mark && distance > 2.5) return { lines: mark.show(), go: mark.go };
  if (best) return { lines: messageTip(best), message: best };
  const lane = marks[0];
  return lane ? { lines: lane.show() } : null;
};
const messageTip = (one) => [...words(one), `Sent at ${seconds(one.sent)}. ${fateOf(one)}`];
const tip = $("tip");
const showTip = (lines, x, y) => {
  tip.replaceChildren(...lines.map((line, i) => {
    const part = document.createElement(i === 0 ? "b" : i < 2 || i < lines.length - 1 ? "span" : "small");
    part.textContent = line;
    return part;
  }));
  if (pinned) { const small = document.createElement("small"); small.textContent = "Kept. Click elsewhere or press Esc to let go."; tip.append(small); }
  tip.className = pinned ? "pinned" : "";
  tip.style.display = "block";
  const beyond = x + 18 + tip.offsetWidth > innerWidth - 8;
  tip.style.left = Math.max(8, beyond ? x - 18 - tip.offsetWidth : x + 18) + "px";
  tip.style.top = Math.max(8, Math.min(y + 16, innerHeight - tip.offsetHeight - 8)) + "px";
};
const hideTip = () => { pinned = null; pointer = null; tip.style.display = "none"; redraw(); };
const place = (event) => { const box = main.getBoundingClientRect(); return [event.clientX - box.left, event.clientY - box.top]; };
let drag = null;
main.addEventListener("pointerdown", (event) => {
  drag = { x: event.clientX, from: view.from, moved: false };
  main.setPointerCapture(event.pointerId);
});
main.addEventListener("pointermove", (event) => {
  if (drag && Math.abs(event.clientX - drag.x) > 3) drag.moved = true;
  if (drag?.moved) {
    $("lanes-box").classList.add("dragging");
    if (!pinned) tip.style.display = "none";
    look(drag.from - (event.clientX - drag.x) / (size.lanes.width - LABEL) * view.width, view.width);
    return;
  }
  if (pinned) return;
  const [x, y] = place(event);
  cursor = x >= LABEL ? Math.min(Math.max(timeOf(x), FROM), TO) : null;
  pointer = under(x, y);
  $("lanes-box").classList.toggle("over", Boolean(pointer?.go || pointer?.message));
  if (pointer) showTip(pointer.lines, event.clientX, event.clientY); else tip.style.display = "none";
  redraw();
});
main.addEventListener("pointerup", (event) => {
  const moved = drag?.moved;
  drag = null; $("lanes-box").classList.remove("dragging");
  if (moved) return;
  const [x, y] = place(event), found = under(x, y);
  hideTip();
  if (found?.go) found.go();
  else if (found) { pinned = found; cursor = Math.min(Math.max(timeOf(x), FROM), TO); showTip(found.lines, event.clientX, event.clientY); redraw(); }
});
main.addEventListener("pointercancel", () => { drag = null; });
main.addEventListener("pointerleave", () => { if (!pinned && !drag) { pointer = null; cursor = picked; tip.style.display = "none"; redraw(); } });
main.addEventListener("wheel", (event) => {
  event.preventDefault();
  const [x] = place(event), unit = event.deltaMode === 1 ? 30 : 1;
  if (event.shiftKey || Math.abs(event.deltaX) > Math.abs(event.deltaY)) look(view.from + (event.deltaX || event.deltaY) * unit / size.lanes.width * view.width, view.width);
  else zoom(Math.exp(Math.max(-120, Math.min(120, event.deltaY * unit)) * 0.0035), timeOf(Math.max(x, LABEL)));
}, { passive: false });
main.addEventListener("dblclick", (event) => zoom(0.4, timeOf(place(event)[0])));
const goOver = (event) => {
  const box = over.getBoundingClientRect(), time = FROM + (event.clientX - box.left - LABEL) / (box.width - LABEL - 8) * WHOLE;
  look(time - view.width / 2, view.width);
};
over.addEventListener("pointerdown", (event) => { over.setPointerCapture(event.pointerId); goOver(event); });
over.addEventListener("pointermove", (event) => { if (event.buttons) goOver(event); });
addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.tagName === "INPUT" && event.key === " ") return;
  const step = view.width * (event.shiftKey ? 0.6 : 0.15), kinds = { e: "election", r: "repair", c: "crash", m: "membership", v: "violation" };
  const keys = {
    ArrowLeft: () => look(view.from - step, view.width), ArrowRight: () => look(view.from + step, view.width),
    ArrowUp: () => zoom(0.7), ArrowDown: () => zoom(1 / 0.7), "+": () => zoom(0.7), "=": () => zoom(0.7), "-": () => zoom(1 / 0.7),
    0: () => look(FROM, WHOLE), Home: () => look(FROM, view.width), End: () => look(TO - view.width, view.width),
    h: () => toggle(6), Escape: () => { cursor = picked = null; hideTip(); },
  };
  if (kinds[event.key]) jump(kinds[event.key], event.shiftKey ? -1 : 1); else if (keys[event.key]) keys[event.key](); else return;
  event.preventDefault();
});

// ---- the side panel ------------------------------------------------------------------------------------
const make = (tag, what, parent, more = {}) => {
  const one = document.createElement(tag);
  if (what !== null) one.textContent = what;
  Object.assign(one, more);
  parent?.append(one);
  return one;
};
const go = (event) => {
  hideTip();
  const found = D.stories[event.kind]?.[event.i];
  story = event;
  if (found) {
    // What comes much later than the rest is told, but would make the rest too small to see.
    const [at, first] = found, last = Math.min(found[2], at + Math.max(1.2 * (at - first), 1000)), width = Math.max((last - first) * 1.35, 400);
    cursor = picked = event.kind === "repair" ? at - 1 : at;
    look(first - (width - (last - first)) * 0.42, width);
  } else {
    const width = event.kind === "violation" ? 400_000 : 1_500_000;
    cursor = picked = event.at;
    look(event.at - width * (event.kind === "violation" ? 0.75 : 0.35), width);
  }
  tellStory(event, found);
};
const tellStory = (event, found) => {
  const panel = $("story"), of = EVENTS.filter((one) => one.kind === event.kind);
  panel.replaceChildren(); panel.hidden = false;
  const head = make("h2", null, panel), name = { election: "Election", repair: "Log repair", "catch-up": "Catching up", membership: "Membership change", crash: "Crash", violation: "Violation" };
  make("span", `${name[event.kind]} ${of.indexOf(event) + 1} of ${of.length}`, head);
  const ways = make("span", null, head);
  make("button", "‹", ways, { onclick: () => jump(event.kind, -1), title: "The one before", disabled: of[0] === event });
  make("button", "›", ways, { onclick: () => jump(event.kind, 1), title: "The next", disabled: of[of.length - 1] === event });
  make("p", event.title.replace(/\.$/, "") + ".", panel);
  if (!found) return;
  const steps = make("ol", null, panel);
  for (const [at, node, what] of found[5]) {
    const item = make("li", null, steps), offset = at - found[1];
    make("time", offset ? `+${span(offset)}` : seconds(at, 3), item);
    make("span", what, item);
    item.onclick = () => {
      steps.querySelectorAll(".now").forEach((one) => one.classList.remove("now"));
      item.classList.add("now");
      hideTip();
      cursor = picked = at;
      if (at < view.from || at > view.from + view.width) look(at - view.width / 2, view.width);
      redraw();
    };
  }
};
const jump = (kind, way) => {
  const all = EVENTS.filter((one) => one.kind === kind), at = story?.kind === kind ? story.at : now(), here = all.indexOf(story);
  let next;
  if (here >= 0) next = all[here + way];
  else next = way > 0 ? all.find((one) => one.at >= at) || all[0] : [...all].reverse().find((one) => one.at < at);
  if (next) go(next);
};
const JUMPS = [["First election", "election", true], ["Next election", "election"], ["Next log repair", "repair"], ["Next catching up", "catch-up"], ["Next crash", "crash"], ["Next membership change", "membership"], ["Violation", "violation", true]];
const buildPanel = () => {
  for (const [name, kind, first] of JUMPS) {
    const all = EVENTS.filter((one) => one.kind === kind);
    make("button", all.length > 1 && !first ? `${name} (${all.length})` : name, $("jumps"), { disabled: !all.length, onclick: () => first ? go(all[0]) : jump(kind, 1) });
  }
  const badge = $("badge");
  badge.textContent = D.violations.length ? (D.violations.length > 1 ? `${D.violations.length} violations` : `violation: ${D.violations[0][0]}`) : "no violation";
  badge.classList.add(D.violations.length ? "bad" : "good");
  if (D.violations.length) {
    const panel = $("violations");
    panel.hidden = false;
    make("h2", D.violations.length > 1 ? "Violations" : "Violation", panel);
    D.violations.forEach(([check, message, at], i) => {
      const part = make("p", null, panel);
      make("b", check + ": ", part); part.append(message);
      make("button", `Look at it, at ${seconds(at, 3)}`, panel, { onclick: () => go(EVENTS.find((one) => one.kind === "violation" && one.i === i)) });
    });
  }
  if (FROM > 0 || TO < D.end) {
    $("notice").hidden = false;
    $("notice").textContent = `This run is too long for one page. Here are ${seconds(FROM, 1)} to ${seconds(TO, 1)} of its ${seconds(D.end, 1)}.`;
  }
  const rows = [["Seed", String(D.seed)], ["Nodes", D.nodes === N ? String(N) : `${D.nodes} at first; ${N} servers on this page`], ["Simulated", seconds(D.end, 1) + (D.healed === null ? "" : `, healed from ${seconds(D.healed, 1)} on`)],
    ["Trace hash", D.hash], ["Elections", String(D.elections)], ["Writes", `${D.writes} acknowledged, of ${D.operations} operations`],
    ["Network", `${D.settings.delay[0] + D.settings.delay[1]} µs on average` + (D.settings.drop ? `, ${+(D.settings.drop * 100).toPrecision(2)} % lost` : "") + (D.settings.duplicate ? `, ${+(D.settings.duplicate * 100).toPrecision(2)} % doubled` : "")],
    ["Timeouts", `election ${D.settings.election.join("–")} ms, heartbeat ${D.settings.heartbeat} ms`]];
  if (D.plant) rows.push(["Planted bug", D.plant]);
  if (D.membership.length) rows.push(["Membership", D.membership.map(([what, count]) => `${what} ${count}`).join(", ")]);
  rows.push(["Faults", D.faults.length ? D.faults.map(([kind, count]) => `${kind} ${count}`).join(", ") : "none"]);
  for (const [name, what] of rows) { make("dt", name, $("run")); make("dd", what, $("run")); }
  GROUPS.forEach((group, i) => {
    if (!M.some((one) => groupOf[one.kind] === i)) return;
    const label = make("label", null, $("kinds")), box = make("input", null, label, { type: "checkbox", checked: shown[i], id: "kind" + i });
    box.onchange = () => { shown[i] = box.checked; redraw(); };
    const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg"), line = document.createElementNS(svg.namespaceURI, "path");
    svg.setAttribute("viewBox", "0 0 44 16");
    line.setAttribute("d", "M2 8H41M34 3.5L41 8L34 12.5"); line.setAttribute("fill", "none");
    line.style.stroke = `var(--${group[1]})`; line.style.strokeWidth = group[3];
    svg.append(line); label.append(svg); make("span", group[0], label);
  });
  const sign = (css, inner, what) => {
    const row = make("div", null, $("signs")), icon = make("i", inner, row);
    icon.style.cssText = css; make("span", what, row);
  };
  const stripes = (a, b) => `repeating-linear-gradient(-45deg, ${a} 0 4px, ${b} 4px 8px)`;
  sign(`background:${band(1)};height:16px;color:#fff`, "♛", "leader: thick, with a crown");
  sign(`background:${stripes(deep(2), band(2))};height:12px`, "", "candidate");
  sign(`background:${stripes(band(2), tint(2))};height:10px`, "", "asks around: pre-vote");
  sign(`background:${band(3)};height:6px`, "", "follower: thin");
  sign(`background:linear-gradient(90deg, ${[1, 2, 3, 4, 5].map((t, i) => `${tint(t)} ${i * 20}% ${i * 20 + 20}%`).join()})`, "", "one colour for each term");
  sign("background:var(--down);color:var(--cut)", "✕", "down: crashed or killed");
  sign("background:var(--pause);", "❚❚", "stands still");
  sign("background:var(--cut);height:6px", "", "cut off (hatched: some links)");
  sign("color:var(--good);font-weight:600", "▏17", "knows that all up to 17 is committed");
  sign("color:var(--conflict);font-weight:700", "◆ ✂", "drops entries: log repair");
  if (D.notes.length) sign("color:var(--snapshot)", "■", "takes or installs a snapshot");
  if (D.configurations.length) sign("color:var(--timeout)", "◆", "uses another configuration");
  sign("color:var(--fault)", "▼", "a fault strikes");
  sign("color:var(--ink)", "→ ×", "this message is lost");
};
const toggle = (group) => { const box = $("kind" + group); shown[group] = !shown[group]; if (box) box.checked = shown[group]; redraw(); };

// ---- the address: #t=12.5&w=2&c=12.4&theme=dark&hb=1&jump=repair:2 -------------------------------------
let hashTimer = 0, written = "";
const saveHash = () => {
  clearTimeout(hashTimer);
  hashTimer = setTimeout(() => {
    const theme = /theme=(\w+)/.exec(location.hash), middle = (view.from + view.width / 2) / 1e6;
    written = `#t=${+middle.toFixed(6)}&w=${+(view.width / 1e6).toFixed(6)}` + (theme ? `&theme=${theme[1]}` : "");
    try { history.replaceState(null, "", written); } catch { /* some browsers forbid it for files */ }
  }, 400);
};
const readHash = () => {
  const wish = new URLSearchParams(location.hash.slice(1)), number = (name) => wish.has(name) && isFinite(+wish.get(name)) ? +wish.get(name) * 1e6 : null;
  setTheme(wish.get("theme"));
  if (wish.get("hb") === "1" && !shown[6]) toggle(6);
  const [kind, place] = (wish.get("jump") || "").split(":"), event = EVENTS.filter((one) => one.kind === kind)[(+place || 1) - 1];
  if (event) go(event);
  const t = number("t"), w = number("w"), c = number("c");
  if (t !== null) { const width = w ?? view.width; cursor = picked = null; look(t - width / 2, width, true); }
  if (c !== null) { cursor = picked = c; redraw(); }
  return Boolean(event) || t !== null;
};
const setTheme = (name) => {
  const dark = name ? name === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  document.documentElement.classList.toggle("dark", dark);
  readColours(); redraw();
};
addEventListener("hashchange", () => { if (location.hash !== written) readHash(); });
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => setTheme(null));
$("theme").onclick = () => setTheme(document.documentElement.classList.contains("dark") ? "light" : "dark");
$("in").onclick = () => zoom(0.5); $("out").onclick = () => zoom(2); $("fit").onclick = () => look(FROM, WHOLE);
const observer = new ResizeObserver(redraw);
for (const box of ["overview-box", "lanes-box", "logs-frame"]) observer.observe($(box));
$("logs-frame").style.height = `${30 + N * 25}px`;
setTheme(null);
for (const canvas of [over, main, logsCanvas]) prepare(canvas);
buildPanel();
if (!readHash()) {
  const first = (kind) => EVENTS.find((one) => one.kind === kind);
  if (D.open !== null) { cursor = picked = D.open; look(D.open - 1e6, 2e6, true); }
  else if (first("violation")) go(first("violation"));
  else if (first("election")) go(first("election"));
  else redraw();
}
