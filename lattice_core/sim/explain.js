// The drawing of the page: data, words and the canvas with the lanes. explain_ui.js follows it in the same
// closure (see explain_template.html) and has the rest: overview, logs, side panel, mouse and keys.

const D = JSON.parse(document.getElementById("data").textContent);
const $ = (id) => document.getElementById(id);
const [FROM, TO] = D.window, N = D.servers.length, S = D.strings;
const named = (place) => "n" + D.servers[place - 1]; // a node is its place among the page's servers; this is its name
const LABEL = 78, AXIS = 46, ROLE = { pre: 1, candidate: 2, leader: 3, down: 4, refuses: 5, absent: 6 };
const HALF = [4, 7, 9, 13]; // half the thickness of a band, by role
const FONT = 'system-ui, "Segoe UI", Roboto, "DejaVu Sans", sans-serif';
const GROUPS = [ // name, colour, kinds, width, dash, on
  ["pre-vote: question, yes, no", "pre-vote", [0, 1], 1.6, [6, 3], true],
  ["vote: question, yes, no", "vote", [2, 3], 2.3, [], true],
  ["entries", "append", [4], 1.9, [], true],
  ["probe: do our logs agree?", "probe", [5], 1.4, [3, 3], true],
  ["entries are on disk", "ok", [6], 1.2, [], true],
  ["our logs differ", "conflict", [7], 3, [], true],
  ["heartbeat and answer", "heartbeat", [8, 9], 1, [], false],
  ["snapshot", "snapshot", [10], 3.5, [], true],
  ["TimeoutNow: lead instead of me", "timeout", [11], 3, [], true],
  ["read index and answer", "read", [12, 13], 1.2, [1, 2], false],
];
const ANSWER = new Set([1, 3, 6, 7, 9, 13]);
const groupOf = [];
GROUPS.forEach((group, place) => group[2].forEach((kind) => { groupOf[kind] = place; }));
const shown = GROUPS.map((group) => group[5]);

// ---- the data, unpacked ----------------------------------------------------------------------------
const M = [];
{ let sent = 0;
  D.messages.code.forEach((code, i) => {
    sent += D.messages.sent[i];
    const took = D.messages.took[i];
    M.push({ kind: code & 15, from: code >> 4 & 255, to: code >> 12 & 255, fate: code >> 20 & 3, again: code >> 22 & 1,
      sent, at: took < 0 ? null : sent + took, term: D.messages.term[i], more: D.messages.more[i] });
  }); }
const reach = []; // the latest arrival among the first i messages: where drawing has to begin
M.reduce((latest, one, i) => (reach[i] = Math.max(latest, one.at ?? one.sent)), 0);
const commits = Array.from({ length: N + 1 }, () => []);
{ let at = 0;
  D.commits.at.forEach((delta, i) => {
    at += delta;
    commits[D.commits.node[i]].push({ at, index: D.commits.index[i], term: D.commits.term[i] });
  }); }
const firstAfter = (list, time, key) => { // the place of the first item later than time
  let low = 0, high = list.length;
  while (low < high) { const mid = low + high >> 1; if (key(list[mid]) <= time) low = mid + 1; else high = mid; }
  return low;
};
const laneAt = (node, time) => { // [time, role, term, leader, reason]
  const lane = D.lanes[node - 1], place = firstAfter(lane, time, (one) => one[0]);
  return lane[Math.max(0, place - 1)] || [FROM, ROLE.down, 0, 0, 0];
};
const isDown = (one) => one[1] >= ROLE.down;
const isAbsent = (one) => one[1] === ROLE.absent;
const othersAt = (node, time) => D.lanes.filter((_, i) => i !== node - 1 && !isAbsent(laneAt(i + 1, time))).length;

// Logs: replayed from the nearest checkpoint. A log is { offset, runs: [term, last index], commit }.
const lastOf = (log) => log.runs.length ? log.runs[log.runs.length - 1][1] : log.offset;
const change = (log, [, , cut, first, flat]) => {
  if (cut === 0) { log.offset = first - 1; log.runs = []; log.since = true; }
  while (cut > 0 && log.runs.length && lastOf(log) >= cut) {
    const [term] = log.runs.pop();
    if (lastOf(log) < cut - 1) { log.runs.push([term, cut - 1]); }
  }
  for (let i = 0; i < flat.length; i += 2) {
    const last = lastOf(log) + flat[i + 1], end = log.runs[log.runs.length - 1];
    if (end && end[0] === flat[i]) end[1] = last; else log.runs.push([flat[i], last]);
  }
};
const copy = (logs) => logs.map((log) => ({ ...log, runs: log.runs.map((run) => [...run]) }));
const STEP = 200, checkpoints = [];
{ const logs = D.logs.map(([offset, runs, commit]) => ({ offset, runs, commit }));
  D.changes.forEach((one, i) => { if (i % STEP === 0) checkpoints.push(copy(logs)); change(logs[one[1] - 1], one); });
  checkpoints.push(copy(logs)); }
const starts = D.lanes.map((lane) => lane.filter((one, i) => !isDown(one) && (i === 0 || isDown(lane[i - 1]))));
const logsAt = (time) => {
  const count = firstAfter(D.changes, time, (one) => one[0]), from = Math.floor(count / STEP);
  const logs = copy(checkpoints[from]);
  for (let i = from * STEP; i < count; i++) change(logs[D.changes[i][1] - 1], D.changes[i]);
  logs.forEach((log, i) => { // a node that was restarted has to learn the commit index again
    const known = commits[i + 1][firstAfter(commits[i + 1], time, (one) => one.at) - 1];
    const up = starts[i][firstAfter(starts[i], time, (one) => one[0]) - 1];
    if (up && up[0] > FROM) log.commit = log.offset;
    if (known && !(up && up[0] > known.at)) log.commit = known.index;
  });
  return logs;
};
const termIn = (log, index) => {
  if (index <= log.offset) return 0;
  const run = log.runs[firstAfter(log.runs, index - 1, (one) => one[1])];
  return run ? run[0] : 0;
};

// ---- colours ---------------------------------------------------------------------------------------
const HUES = [212, 36, 155, 276, 72, 188, 18]; // no red and no pink: those mean trouble
let C = {};
const readColours = () => {
  const style = getComputedStyle(document.documentElement), get = (name) => style.getPropertyValue("--" + name).trim();
  C = { hatch: {}, get };
  for (const name of ["page", "card", "ink", "soft", "line", "grid", "down", "down-ink", "pause", "cut", "bad", "good",
    "fault", "halo", "focus", "shade", "tint-s", "tint-l", "band-s", "band-l", "deep-l", "vivid-l"]) C[name] = get(name);
  C.kinds = GROUPS.map((group) => get(group[1]));
};
const hue = (term) => HUES[(term + HUES.length - 1) % HUES.length];
const grey = (term, light) => term ? null : `hsl(215 8% ${light})`;
const tint = (term) => grey(term, C["tint-l"]) || `hsl(${hue(term)} ${C["tint-s"]} ${C["tint-l"]})`;
const band = (term) => grey(term, C["band-l"]) || `hsl(${hue(term)} ${C["band-s"]} ${C["band-l"]})`;
const deep = (term) => grey(term, C["deep-l"]) || `hsl(${hue(term)} ${C["band-s"]} ${C["deep-l"]})`;
const vivid = (term) => grey(term, C["vivid-l"]) || `hsl(${hue(term)} ${C["band-s"]} ${C["vivid-l"]})`;
const hatch = (ctx, fore, back, gap) => {
  const key = [fore, back, gap].join();
  if (!C.hatch[key]) {
    const tile = document.createElement("canvas"), pen = tile.getContext("2d");
    tile.width = tile.height = gap;
    pen.fillStyle = back; pen.fillRect(0, 0, gap, gap);
    pen.strokeStyle = fore; pen.lineWidth = gap / 3; pen.beginPath();
    for (const shift of [-gap, 0, gap]) { pen.moveTo(shift - 1, gap + 1); pen.lineTo(shift + gap + 1, -1); }
    pen.stroke();
    C.hatch[key] = ctx.createPattern(tile, "repeat");
  }
  return C.hatch[key];
};

// ---- words -----------------------------------------------------------------------------------------
const thin = (digits) => digits.replace(/(\d{3})(?=\d)/g, "$1\u2009");
const seconds = (us, places = 6) => {
  const text = (us / 1e6).toFixed(places), dot = text.indexOf(".");
  return dot < 0 ? text + " s" : text.slice(0, dot + 1) + thin(text.slice(dot + 1)) + " s";
};
const span = (us) => us < 1000 ? `${us} µs` : us < 1e6 ? `${+(us / 1000).toPrecision(3)} ms` : `${+(us / 1e6).toPrecision(3)} s`;
const places = (step) => Math.min(6, Math.max(0, Math.ceil(-Math.log10(step / 1e6) - 1e-9)));
const ofTerm = (term) => term > 0 ? ` (term ${term})` : "";
const range = (first, last) => first === last ? `${first}` : `${first}–${last}`;
const list = (nodes) => nodes.map(named).join(", ");
const carried = (one) => range(one.more[0] + 1, one.more[0] + one.more[3]);
const brief = (one) => {
  const x = one.more;
  switch (one.kind) {
    case 0: return `would you? T${one.term}`;
    case 1: case 3: return x[0] ? "yes" : "no";
    case 2: return `vote? T${one.term}`;
    case 4: return carried(one);
    case 5: return `agree at ${x[0]}?`;
    case 6: return `have ${x[0]}`;
    case 7: return `differ at ${x[0]}!`;
    case 8: return "I lead";
    case 10: return `snapshot ${x[0]}`;
    case 11: return "lead now";
    case 12: return "read?";
    case 13: return x[0] < 0 ? "cannot say" : `read at ${x[0]}`;
    default: return "";
  }
};
const words = (one) => {
  const a = named(one.from), b = named(one.to), t = one.term, x = one.more;
  switch (one.kind) {
    case 0: return [`${a} asks ${b}: would you vote for me in term ${t}?`, `A pre-vote: nothing changes yet. Its log ends at ${x[0]}${ofTerm(x[1])}.`];
    case 1: return x[0] ? [`${a} answers ${b}: yes, I would vote for you in term ${t}`, "A pre-vote promises nothing."]
      : [`${a} answers ${b}: no, I would not`, `It hears a leader, or has more in its log, or knows a newer term: its own is ${t}.`];
    case 2: return [`${a} asks ${b} for its vote in term ${t}`, `Its log ends at ${x[0]}${ofTerm(x[1])}; who has more must refuse.`
      + (x[2] ? " The leader itself has asked for this election." : "")];
    case 3: return x[0] ? [`${a} gives ${b} its vote in term ${t}`, "That is on its disk now: it votes for nobody else in this term."]
      : [`${a} refuses ${b} its vote in term ${t}`, "It has voted for another, or has more in its log."];
    case 4: return [`${a} sends ${b} ${x[3] > 1 ? "entries" : "entry"} ${carried(one)} of term ${range(x[4], x[5])}`,
      `To go after entry ${x[0]}${ofTerm(x[1])}, if ${b} has that one. ${a} leads term ${t} and has committed up to ${x[2]}.`];
    case 5: return [`${a} asks ${b}: do you have entry ${x[0]}${ofTerm(x[1])}?`, `A probe, without entries. ${a} leads term ${t} and has committed up to ${x[2]}.`];
    case 6: return [`${a} tells ${b}: my log agrees with yours up to ${x[0]}`, `And it is on my disk. Term ${t}.`];
    case 7: return [`${a} tells ${b}: our logs differ at ${x[0]}`, (x[1] < 0 ? `It has no entry ${x[0]}; go on from ${x[2]}.`
      : `Its own entry there is of term ${x[1]}, which begins at ${x[2]}.`) + ` Term ${t}.`];
    case 8: return [`${a} tells ${b}: I lead term ${t}`, `A heartbeat. Committed up to ${x[0]}, of what ${b} has.`];
    case 9: return [`${a} answers the heartbeat of ${b}`, `Term ${t}. With a majority of these the leader knows that it still leads.`];
    case 10: return [`${a} sends ${b} a snapshot up to ${x[0]}${ofTerm(x[1])}`, `${b} lacks entries that ${a} no longer has. Term ${t}.`];
    case 11: return [`${a} tells ${b}: start an election at once`, `TimeoutNow: leadership of term ${t} is handed over.`];
    case 12: return [`${a} asks ${b}: up to where must I have applied, for this read?`, `A linearizable read at a follower. Term ${t}.`];
    default: return [`${a} answers ${b}: ${x[0] < 0 ? "I cannot say; ask the leader" : "up to " + x[0]}`, `For a linearizable read. Term ${t}.`];
  }
};
const fateOf = (one) => {
  const twice = one.again ? " A duplicate: the network delivers it twice." : "";
  if (one.fate === 1) {
    const cut = D.cuts.some((c) => c[2] === one.from && c[0] <= one.sent && one.sent < c[1] && c[3].includes(one.to));
    return cut ? "Lost: the link is cut." : "Lost on the way.";
  }
  if (one.at > D.end) return "Still on its way when the run ended.";
  if (one.fate === 2) return `Lost: ${named(one.to)} is not there when it arrives.`;
  return `Arrives ${span(one.at - one.sent)} later, at ${seconds(one.at)}.${twice}`;
};

// ---- the view --------------------------------------------------------------------------------------
const WHOLE = Math.max(1000, TO - FROM), view = { from: FROM, width: WHOLE };
let cursor = null, pointer = null, pinned = null, hits = [], story = null, picked = null, queued = false;
const main = $("lanes"), over = $("overview"), logsCanvas = $("logs");
const size = {};
const prepare = (canvas) => {
  const box = canvas.parentElement.getBoundingClientRect(), ratio = window.devicePixelRatio || 1;
  const width = Math.round(box.width), height = Math.round(box.height);
  if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(height * ratio)) {
    canvas.width = Math.round(width * ratio); canvas.height = Math.round(height * ratio);
  }
  const ctx = canvas.getContext("2d");
  ctx.setTransform(ratio, 0, 0, ratio, 0, 0); ctx.clearRect(0, 0, width, height); ctx.textBaseline = "middle";
  size[canvas.id] = { width, height };
  return [ctx, width, height];
};
const xOf = (time) => LABEL + (time - view.from) / view.width * (size.lanes.width - LABEL);
const timeOf = (x) => view.from + (x - LABEL) / (size.lanes.width - LABEL) * view.width;
const pitch = () => (size.lanes.height - AXIS - 4) / N;
const yOf = (node) => AXIS + pitch() * (node - 0.5);
const rowHalf = () => Math.min(44, pitch() * 0.37);
const look = (from, width, keep = false) => {
  view.width = Math.min(Math.max(width, 60), WHOLE * 1.04);
  const slack = view.width * 0.3;
  view.from = Math.min(Math.max(from, FROM - slack), TO + slack - view.width * 0.4);
  if (view.width >= WHOLE) view.from = FROM - (view.width - WHOLE) / 2;
  if (!keep) saveHash();
  redraw();
};
const zoom = (factor, at = view.from + view.width / 2) => {
  const width = Math.min(Math.max(view.width * factor, 60), WHOLE * 1.04);
  look(at - (at - view.from) / view.width * width, width);
};
const redraw = () => { if (!queued) { queued = true; requestAnimationFrame(() => { queued = false; draw(); }); } };
const now = () => cursor ?? view.from + view.width / 2;
const draw = () => { drawLanes(); drawOverview(); drawLogs(); };

const text = (ctx, what, x, y, colour, font, halo) => {
  ctx.font = font;
  if (halo) { ctx.strokeStyle = halo; ctx.lineWidth = 4; ctx.lineJoin = "round"; ctx.strokeText(what, x, y); }
  ctx.fillStyle = colour; ctx.fillText(what, x, y);
};
const crown = (ctx, x, y, s, colour) => {
  ctx.fillStyle = colour; ctx.beginPath();
  [[-6, 5], [-7, -4], [-3, 0], [0, -6], [3, 0], [7, -4], [6, 5]].forEach(([a, b]) => ctx.lineTo(x + a * s, y + b * s));
  ctx.closePath(); ctx.fill();
};
const cross = (ctx, x, y, r, colour, width = 2) => {
  ctx.strokeStyle = colour; ctx.lineWidth = width; ctx.setLineDash([]); ctx.beginPath();
  ctx.moveTo(x - r, y - r); ctx.lineTo(x + r, y + r); ctx.moveTo(x + r, y - r); ctx.lineTo(x - r, y + r); ctx.stroke();
};

const drawLanes = () => {
  const [ctx, W, H] = prepare(main), half = rowHalf(), end = view.from + view.width;
  hits = [];
  const clip = (time) => Math.min(Math.max(xOf(time), LABEL - 3), W + 3);
  const hit = (x, y, w, h, show, go) => hits.push({ x, y, w, h, show, go });
  ctx.font = `12px ${FONT}`;
  // The axis.
  const per = view.width / (W - LABEL), rough = per * 120, ten = 10 ** Math.floor(Math.log10(rough));
  const tick = [1, 2, 5, 10].map((k) => k * ten).find((step) => step >= rough);
  for (let t = Math.ceil(Math.max(view.from, FROM) / tick) * tick; t <= Math.min(end, TO); t += tick) {
    const x = xOf(t);
    if (x < LABEL) continue;
    ctx.fillStyle = C.grid; ctx.fillRect(x, 22, 1, H - 22);
    ctx.textAlign = "center"; text(ctx, seconds(t, places(tick)), x, 12, C.soft, `12px ${FONT}`);
  }
  ctx.textAlign = "left";
  // Lanes: the row in the tint of its term, the band in its colour, as thick as the role is strong.
  for (let node = 1; node <= N; node++) {
    const lane = D.lanes[node - 1], y = yOf(node), words = [];
    const first = Math.max(0, firstAfter(lane, view.from, (one) => one[0]) - 1);
    for (let i = first; i < lane.length && lane[i][0] <= end; i++) {
      const one = lane[i], [at, role, term] = one, until = i + 1 < lane.length ? lane[i + 1][0] : TO;
      const a = clip(at), b = clip(until), w = Math.max(b - a, 0.7);
      if (b < LABEL || isAbsent(one)) continue;
      const same = i > first && lane[i - 1][1] === role && lane[i - 1][2] === term;
      if (isDown(one)) {
        ctx.fillStyle = hatch(ctx, C.soft, C.down, 10); ctx.fillRect(a, y - half, w, half * 2);
        ctx.fillStyle = C.down; ctx.fillRect(a, y - half + 4, w, half * 2 - 8);
        const label = role === ROLE.refuses ? "refuses to start: its log is damaged" : "down";
        if (w > 46) text(ctx, label, Math.max(a, LABEL) + 24, y, C["down-ink"], `12px ${FONT}`);
        if (at >= view.from && role === ROLE.down) cross(ctx, a + (w > 22 ? 12 : 0), y, 6, C.cut, 3);
      } else {
        ctx.fillStyle = tint(term); ctx.fillRect(a, y - half, w, half * 2);
        const thick = HALF[role];
        ctx.fillStyle = role === ROLE.pre ? hatch(ctx, band(term), tint(term), 12)
          : role === ROLE.candidate ? hatch(ctx, deep(term), band(term), 9) : band(term);
        ctx.fillRect(a, y - thick, w, thick * 2);
        if (role === ROLE.leader) {
          ctx.fillStyle = deep(term); ctx.fillRect(a, y - thick, w, 3); ctx.fillRect(a, y + thick - 3, w, 3);
        }
        if (!same && at > view.from && i > 0 && lane[i - 1][2] !== term) { ctx.fillStyle = deep(term); ctx.fillRect(a, y - half, 1.5, half * 2); }
        const before = words[words.length - 1];
        if (same && before) before.to = b; else words.push({ from: Math.max(a, LABEL + 2), to: b, role, term });
      }
      hit(a, y - half, w, half * 2, () => laneTip(node, one, until));
    }
    for (const { from, to, role, term } of words) {
      const room = to - from, leader = role === ROLE.leader, y0 = leader ? y : y - HALF[role] - 9;
      if (leader && room > 22) crown(ctx, from + 14, y, 1.15, "#fff");
      const names = leader ? [`leader, term ${term}`, `T${term}`]
        : [`${["follower", "asks around (pre-vote)", "candidate"][role]}, term ${term}`, `term ${term}`, `T${term}`];
      ctx.font = `600 12px ${FONT}`;
      const x = from + (leader ? 27 : 6), name = names.find((one) => ctx.measureText(one).width + (x - from) + 4 < room);
      if (name) text(ctx, name, x, y0, leader ? "#fff" : C.ink, `${leader || role ? 600 : 400} 12px ${FONT}`, leader ? null : tint(term));
    }
  }
  for (const [a, b, node] of D.pauses) {
    if (b < view.from || a > end) continue;
    const x = clip(a), w = Math.max(clip(Math.min(b, TO)) - x, 2), y = yOf(node);
    ctx.fillStyle = C.pause; ctx.fillRect(x, y - half, w, half * 2);
    if (w > 90) text(ctx, "❚❚ stands still", Math.max(x, LABEL) + 8, y + half - 22, C.ink, `600 12px ${FONT}`, C.halo);
    hit(x, y - half, w, half * 2, () => [`${named(node)} stands still for ${span(b - a)}`, "It is not dead: it will go on as if no time had passed."]);
  }
  for (const [a, b, node, out, into] of D.cuts) {
    if (b < view.from || a > end) continue;
    const x = clip(a), w = Math.max(clip(Math.min(b, TO)) - x, 2), y = yOf(node) + half - 7, rest = othersAt(node, a), whole = out.length === rest && into.length === rest;
    ctx.fillStyle = whole ? C.cut : hatch(ctx, C.cut, tint(0), 7); ctx.fillRect(x, y, w, 7);
    ctx.font = `600 11px ${FONT}`;
    const label = cutWords(node, out, into, a, true);
    if (w > ctx.measureText(label).width + 20) text(ctx, label, Math.max(x, LABEL) + 6, y + 14, C.cut, `600 11px ${FONT}`, C.halo);
    hit(x, y - 2, w, 11, () => [cutWords(node, out, into, a), `For ${span(b - a)}, until ${seconds(b, 3)}.`]);
  }
  drawMessages(ctx, W, H, end);
  // Marks above the messages: commits, truncations, faults.
  for (let node = 1; node <= N; node++) {
    let room = -1e9, drawn = -1e9;
    const all = commits[node], y = yOf(node) + half - 20;
    for (let i = firstAfter(all, view.from - 1, (one) => one.at); i < all.length && all[i].at <= end; i++) {
      const one = all[i], x = xOf(one.at), next = i + 1 < all.length ? xOf(all[i + 1].at) : 1e9;
      if (x - drawn < 0.7 || x < LABEL) continue;
      drawn = x;
      ctx.fillStyle = C.good; ctx.fillRect(x - 1, y, 2, 11);
      const label = String(one.index);
      if (x > room && next > x + 8 * label.length + 4) {
        text(ctx, label, x + 3, y + 5, C.good, `600 11px ${FONT}`, C.halo);
        room = x + ctx.measureText(label).width + 12;
      }
      hit(x - 4, y - 2, 8, 15, () => [`${named(node)} knows that all up to ${one.index}${ofTerm(one.term)} is committed`, "And applies it: a majority has it on disk."]);
    }
  }
  for (const [at, node, first, last, terms, lost] of D.truncations) {
    if (at < view.from || at > end) continue;
    const x = xOf(at), y = yOf(node), label = `✂ drops ${range(first, last)}`, colour = C.kinds[5];
    if (x < LABEL) continue;
    ctx.fillStyle = colour; ctx.fillRect(x - 1.5, y - half - 4, 3, half * 2 + 8);
    ctx.beginPath(); ctx.moveTo(x, y - 10); ctx.lineTo(x + 10, y); ctx.lineTo(x, y + 10); ctx.lineTo(x - 10, y); ctx.fill();
    text(ctx, per < 2000 ? label : "✂", x + 6, y - half + 7, colour, `700 12px ${FONT}`, C.halo);
    hit(x - 10, y - half, 20, half * 2, () => [`${named(node)} drops its ${first === last ? "entry" : "entries"} ${range(first, last)} of term ${terms.join(", ")}`,
      lost ? `Entry ${lost} was committed already! This must never happen.`
        : "Its leader has others there. These were never committed, so no client was told that they are safe."]);
  }
  for (const [at, node, kind, what] of D.struck) {
    if (at < view.from || at > end) continue;
    const x = xOf(at), y = node ? yOf(node) - half : AXIS + 9;
    if (x < LABEL) continue;
    ctx.fillStyle = C.fault; ctx.beginPath(); ctx.moveTo(x, y + 2); ctx.lineTo(x - 6, y - 8); ctx.lineTo(x + 6, y - 8); ctx.fill();
    hit(x - 7, y - 10, 14, 13, () => [`Fault: ${S[kind]}`, S[what] + "."]);
  }
  for (const [at, node, what] of D.notes) {
    if (at < view.from || at > end || !node || xOf(at) < LABEL) continue;
    const x = xOf(at), y = yOf(node) - half + 5;
    ctx.fillStyle = C.kinds[7]; ctx.fillRect(x - 5, y - 4, 10, 9);
    hit(x - 6, y - 5, 12, 11, () => [`${named(node)} ${S[what]}`, "What is in a snapshot need not stay in the log (section 7)."]);
  }
  for (const [at, node, what, joint] of D.configurations) {
    if (at < view.from || at > end || xOf(at) < LABEL) continue;
    const x = xOf(at), y = yOf(node) - half + 5;
    ctx.fillStyle = C.kinds[8]; ctx.beginPath(); ctx.moveTo(x, y - 6); ctx.lineTo(x + 6, y); ctx.lineTo(x, y + 6); ctx.lineTo(x - 6, y); ctx.fill();
    hit(x - 6, y - 6, 12, 12, () => [`${named(node)} uses the ${S[what]}`, joint ? "A joint configuration: both majorities are needed (section 6)."
      : "From now on, whether it is committed or not (section 6)."]);
  }
  drawRibbon(ctx, W, H, end, hit);
  if (pinned || pointer?.message) outline(ctx, pinned?.message || pointer?.message);
  // The column of names, and the line of the moment.
  if (cursor !== null && xOf(cursor) >= LABEL) {
    ctx.fillStyle = C.focus; ctx.globalAlpha = 0.7; ctx.fillRect(xOf(cursor) - 0.5, 22, 1, H); ctx.globalAlpha = 1;
  }
  ctx.fillStyle = C.card; ctx.fillRect(0, 0, LABEL - 2, H);
  ctx.fillStyle = C.line; ctx.fillRect(LABEL - 3, 0, 1, H);
  for (let node = 1; node <= N; node++) {
    const one = laneAt(node, now()), y = yOf(node);
    text(ctx, named(node), 14, y - 9, isAbsent(one) ? C.soft : C.ink, `700 17px ${FONT}`);
    if (one[1] === ROLE.leader) crown(ctx, 56, y - 10, 1, vivid(one[2]));
    text(ctx, isAbsent(one) ? "not there" : isDown(one) ? "down" : D.roles[one[1]].replace("pre-candidate", "pre-cand."), 14, y + 8, C.soft, `11px ${FONT}`);
    if (!isAbsent(one)) text(ctx, `term ${one[2]}`, 14, y + 22, C.soft, `11px ${FONT}`);
  }
  text(ctx, "time", 14, 12, C.soft, `11px ${FONT}`);
};
const cutWords = (node, out, into, at, short) => {
  const rest = othersAt(node, at);
  if (out.length === rest && into.length === rest) return short ? "cut off" : `${named(node)} hears nobody, and nobody hears it`;
  const parts = [];
  if (out.length && out.join() === into.join()) parts.push(short ? `no link to ${list(out)}` : `${named(node)} and ${list(out)} do not hear each other`);
  else {
    if (out.length) parts.push(out.length === rest ? "is heard by nobody" : `is not heard by ${list(out)}`);
    if (into.length) parts.push(into.length === rest ? "hears nobody" : `does not hear ${list(into)}`);
    if (!short) parts[0] = `${named(node)} ` + parts[0];
  }
  return parts.join(", ");
};

// The ends of a message's arrow on the screen. What was lost on the way ends between the lanes.
const ends = (one) => {
  const y1 = yOf(one.from), y2 = yOf(one.to), sign = y2 > y1 ? 1 : -1, x1 = xOf(one.sent);
  if (one.fate === 1) {
    const lean = Math.min(xOf(one.sent + D.settings.delay[0] + D.settings.delay[1]) - x1, 60) * 0.5;
    return [x1, y1 + sign * 7, x1 + lean, y1 + (y2 - y1) * 0.42];
  }
  return [x1, y1 + sign * 7, xOf(one.at), y2 - sign * 7];
};
let visible = [];
const drawMessages = (ctx, W, H, end) => {
  visible = [];
  let total = 0;
  const start = firstAfter(reach, view.from - 1, (at) => at), stop = firstAfter(M, end, (one) => one.sent);
  for (let i = start; i < stop; i++) {
    const one = M[i];
    if (!shown[groupOf[one.kind]] || (one.at ?? one.sent + view.width * 0.05) < view.from) continue;
    total += 1; visible.push(one);
  }
  const every = Math.ceil(visible.length / 4000);
  if (every > 1) visible = visible.filter((one, i) => i % every === 0 || one.kind === 7 || one.kind === 11);
  const dense = visible.length > 700, paths = new Map();
  ctx.save(); ctx.beginPath(); ctx.rect(LABEL - 2, 22, W, H); ctx.clip();
  for (const one of visible) {
    const group = groupOf[one.kind], no = (one.kind === 1 || one.kind === 3) && !one.more[0];
    const key = group * 4 + (ANSWER.has(one.kind) ? 1 : 0) + (no ? 2 : 0);
    if (!paths.has(key)) paths.set(key, []);
    paths.get(key).push(one);
  }
  const order = [...paths.keys()].sort((a, b) => rank(a >> 2) - rank(b >> 2));
  for (const key of order) {
    const group = key >> 2, [, , , width, dash] = GROUPS[group], answer = key & 1;
    ctx.strokeStyle = ctx.fillStyle = C.kinds[group];
    ctx.lineWidth = (dense ? 0.6 : 1) * (answer && group !== 5 ? Math.max(1, width * 0.65) : width);
    ctx.globalAlpha = group === 6 ? (dense ? 0.18 : 0.5) : dense && group !== 5 && group !== 1 ? 0.45 : 0.95;
    ctx.setLineDash(key & 2 ? [2, 4] : dense ? [] : dash);
    ctx.beginPath();
    for (const one of paths.get(key)) { const [a, b, c, d] = ends(one); ctx.moveTo(a, b); ctx.lineTo(c, d); }
    ctx.stroke(); ctx.setLineDash([]);
    if (dense && group !== 5 && group !== 1) continue;
    ctx.beginPath();
    for (const one of paths.get(key)) {
      if (one.fate) continue;
      const [a, b, c, d] = ends(one), angle = Math.atan2(d - b, c - a), s = 5 + width * 1.4;
      ctx.moveTo(c, d);
      ctx.lineTo(c - s * Math.cos(angle - 0.36), d - s * Math.sin(angle - 0.36));
      ctx.lineTo(c - s * Math.cos(angle + 0.36), d - s * Math.sin(angle + 0.36));
    }
    ctx.fill();
    for (const one of paths.get(key)) if (one.fate) { const [, , c, d] = ends(one); cross(ctx, c, d, 4.5, C.kinds[group], 2.2); }
  }
  ctx.globalAlpha = 1;
  if (visible.length <= 140) labelMessages(ctx, W);
  ctx.restore();
  if (every > 1) {
    ctx.textAlign = "right"; text(ctx, `one of ${every} messages drawn (of ${total}): zoom in`, W - 10, H - 10, C.soft, `12px ${FONT}`, C.halo); ctx.textAlign = "left";
  }
};
const rank = (group) => [6, 9, 4, 2, 3, 4, 0, 5, 7, 1][group];
const labelMessages = (ctx, W) => {
  const taken = [], order = [...visible].sort((a, b) => rank(groupOf[b.kind]) - rank(groupOf[a.kind]));
  ctx.font = `600 11px ${FONT}`;
  for (const one of order) {
    const what = brief(one), [a, b, c, d] = ends(one);
    if (!what || Math.hypot(c - a, d - b) < 34) continue;
    const w = ctx.measureText(what).width + 6;
    for (const part of one.fate === 1 ? [0.5] : [0.5, 0.34, 0.66, 0.22, 0.78]) {
      const x = a + (c - a) * part + 5, y = b + (d - b) * part;
      const rows = Array.from({ length: N }, (_, i) => yOf(i + 1));
      if (x < LABEL || x + w > W || rows.some((row) => Math.abs(row - y) < 26)) continue;
      if (taken.some((box) => x < box[0] + box[2] && box[0] < x + w && Math.abs(y - box[1]) < 14)) continue;
      taken.push([x, y, w]);
      text(ctx, what, x, y, C.kinds[groupOf[one.kind]], `600 11px ${FONT}`, C.halo);
      break;
    }
  }
};
const outline = (ctx, one) => {
  if (!one) return;
  const [a, b, c, d] = ends(one);
  ctx.strokeStyle = C.focus; ctx.globalAlpha = 0.35; ctx.lineWidth = 9; ctx.lineCap = "round";
  ctx.beginPath(); ctx.moveTo(a, b); ctx.lineTo(c, d); ctx.stroke(); ctx.globalAlpha = 1; ctx.lineCap = "butt";
};

// Under the axis, a sign for each thing to jump to.
const EVENTS = [];
for (const [kind, all] of Object.entries(D.stories)) all.forEach((one, i) => EVENTS.push({ kind, at: one[0], i, title: one[3] }));
D.lanes.forEach((lane, i) => lane.forEach((one) => {
  if (isDown(one) && !isAbsent(one) && one[0] >= FROM) EVENTS.push({ kind: "crash", at: one[0], node: i + 1, title: `${named(i + 1)} is down: ${S[one[4]]}` });
}));
D.violations.forEach((one, i) => EVENTS.push({ kind: "violation", at: one[2], i, title: `${one[0]}: ${one[1]}` }));
EVENTS.sort((a, b) => a.at - b.at);
const drawRibbon = (ctx, W, H, end, hit) => {
  const y = 33, importance = ["catch-up", "crash", "membership", "election", "repair", "violation"], taken = [];
  for (const kind of importance.reverse()) {
    for (const one of EVENTS) {
      const x = xOf(one.at);
      if (one.kind !== kind || x < LABEL || x > W) continue;
      if (kind === "violation") {
        ctx.fillStyle = C.bad; ctx.fillRect(x - 1.5, 22, 3, H);
        const what = `⚑ ${D.violations[one.i][0]}`, font = `700 13px ${FONT}`;
        ctx.font = font;
        const w = ctx.measureText(what).width + 16, left = x + w > W ? x - w : x;
        ctx.fillRect(left, 22, w, 22); text(ctx, what, left + 8, y, C.card, font);
        hit(left, 22, w, 22, () => [`Violation: ${D.violations[one.i][0]}`, D.violations[one.i][1]], () => go(one));
        taken.push([left, left + w]);
        continue;
      }
      if (taken.some(([a, b]) => x + 8 > a && x - 8 < b)) continue;
      taken.push([x - 8, x + 8]);
      if (kind === "election") crown(ctx, x, y, 1, vivid(D.lanes[D.stories.election[one.i][4][0] - 1].find((l) => l[0] === one.at)?.[2] || 1));
      if (kind === "crash") cross(ctx, x, y, 4, C.ink, 2);
      ctx.textAlign = "center";
      if (kind === "repair") text(ctx, "✂", x, y, C.kinds[5], `700 15px ${FONT}`);
      if (kind === "membership") text(ctx, "◆", x, y, C.kinds[8], `14px ${FONT}`);
      if (kind === "catch-up") text(ctx, "≠", x, y, C.kinds[5], `14px ${FONT}`);
      ctx.textAlign = "left";
      hit(x - 8, y - 9, 16, 18, () => [one.title, `At ${seconds(one.at)}. Click to look at it.`], () => go(one));
    }
  }
};
