// Looks at one Guard: signs in, asks again every few seconds, shows what it is told. It sends nothing but that.

import { colour, figure, lines } from "./charts.js";

const EVERY_MS = 3000, WRITTEN_MS = 1500, LONGEST_MS = 30000, PATIENCE_MS = 12000, PICTURES = 4;
const KEPT = "guard-session";
const MARKS = [
  { at: 1 / 3, name: "watch", kind: "watch" },
  { at: 2 / 3, name: "suspect", kind: "suspect" },
  { at: 1, name: "hostile", kind: "hostile" },
];

const $ = (id) => document.getElementById(id);
const seen = { latest: null, former: null };
const shownDecisions = new Map();
let waitMs = EVERY_MS, timer = 0, lastSeen = 0, resizing = 0;

// --- words

/** What strangers wrote, without what would steer a reader's eye: controls and marks of direction are spelt out. */
function plain(text) {
  return String(text).replace(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/gu, (c) => `\\u{${c.codePointAt(0).toString(16)}}`);
}

/** Every text of the page passes here; it becomes a text node, never markup. */
function element(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name === "class") made.className = value;
    else if (name === "label") made.dataset.label = value;
    else made[name] = value;
  }
  made.append(...children.map((child) => (typeof child === "string" ? plain(child) : child)));
  return made;
}

function ago(seconds, now) {
  const past = Math.max(0, Math.round(now - seconds));
  if (past < 90) return `${past} s ago`;
  if (past < 5400) return `${Math.round(past / 60)} min ago`;
  return past < 172800 ? `${Math.round(past / 3600)} h ago` : `${Math.round(past / 86400)} d ago`;
}

function moment(seconds) {
  const at = new Date(seconds * 1000);
  return element("time", { dateTime: at.toISOString(), title: at.toISOString() }, at.toLocaleTimeString([], { hour12: false }));
}

const sum = (counts) => Object.values(counts).reduce((a, b) => a + b, 0);
const percent = (share) => `${(100 * share).toFixed(share < 0.1 ? 2 : 1)} %`;

// --- the door

const session = () => sessionStorage.getItem(KEPT) ?? "";

function ask(path, method = "GET", secret = session()) {
  return fetch(path, {
    method,
    headers: { Authorization: `Bearer ${secret}` },
    cache: "no-store",
    credentials: "omit",
    signal: AbortSignal.timeout(PATIENCE_MS),
  });
}

function openDoor(told = "") {
  clearTimeout(timer);
  sessionStorage.removeItem(KEPT);
  Object.assign(seen, { latest: null, former: null });
  $("shown").hidden = $("leave").hidden = true;
  $("notice").hidden = true;
  $("state").replaceChildren();
  $("door").hidden = false;
  $("told").textContent = told;
  $("bare").hidden = globalThis.isSecureContext; // so is plain HTTP to this machine
  $("token").focus();
}

async function signIn(event) {
  event.preventDefault();
  const token = $("token").value.trim();
  $("told").textContent = "";
  try {
    // A header takes ASCII alone; a token has nothing else.
    const answer = await ask("/session", "POST", /^[\x21-\x7e]+$/.test(token) ? token : "?");
    if (!answer.ok) {
      $("told").textContent = answer.status === 401 ? "That is not the token." : plain((await answer.text()).trim());
      $("token").select();
      return;
    }
    sessionStorage.setItem(KEPT, (await answer.json()).session);
  } catch {
    $("told").textContent = "Guard does not answer.";
    return;
  }
  $("token").value = "";
  begin();
}

async function leave() {
  const answer = ask("/session", "DELETE").catch(() => null);
  openDoor();
  await answer;
}

// --- asking

function begin() {
  $("door").hidden = true;
  $("leave").hidden = false;
  waitMs = EVERY_MS;
  look();
}

async function look() {
  clearTimeout(timer);
  if (document.hidden) return; // asked again once it is seen
  try {
    const answer = await ask("/overview");
    if (!session()) return;
    if (answer.status === 401) return openDoor("The session has ended.");
    if (!answer.ok) throw new Error((await answer.text()).trim());
    show(await answer.json());
    waitMs = EVERY_MS;
  } catch (error) {
    if (!session()) return;
    waitMs = Math.min(LONGEST_MS, 2 * waitMs);
    unreachable(error);
  }
  timer = setTimeout(look, waitMs);
}

function unreachable(error) {
  const since = lastSeen ? `What is shown is from ${new Date(lastSeen * 1000).toLocaleTimeString([], { hour12: false })}.` : "";
  const why = error instanceof TypeError || error.name === "TimeoutError" ? "Guard does not answer." : `Guard says: ${plain(error.message)}.`;
  $("notice").textContent = `${why} ${since} Asking again in ${Math.round(waitMs / 1000)} s.`;
  $("notice").hidden = false;
  $("state").className = "bad";
  $("state").replaceChildren(element("strong", {}, "unreachable"));
}

// --- showing

function show(told) {
  lastSeen = told.time;
  // Guard makes one document for all who ask within a second.
  if (told.time > (seen.latest?.time ?? 0)) Object.assign(seen, { former: seen.latest, latest: told });
  $("notice").hidden = true;
  $("shown").hidden = false;
  const up = ago(told.started, told.time).replace(" ago", "");
  $("state").className = told.ready ? "" : "bad";
  $("state").replaceChildren(
    element("strong", {}, told.ready ? "ready" : "not ready"),
    ` · version ${plain(told.version)} · up ${up} · settings ${plain(told.config_digest.slice(0, 12))}`,
  );
  showTiles(told);
  showCallers(told);
  showDecisions(told);
  showTraffic(told);
  showDrift(told);
  showHealth(told);
}

function showTiles(told) {
  const { counts, limits, levels } = told;
  const calls = perSecond(told, (c) => sum(c.calls));
  const would = perSecond(told, (c) => noPlain(c, "would_be"));
  const acted = perSecond(told, (c) => noPlain(c, "action"));
  const inspected = counts.inspected ? `${((1000 * counts.inspection_s) / counts.inspected).toFixed(1)} ms` : "–";
  tiles([
    ["Calls a second", calls, `${figure(sum(counts.calls))} in all`],
    ["Suspicious a second", would, `${figure(noPlain(counts, "would_be"))} in all`],
    ["Acted upon a second", acted, `${figure(noPlain(counts, "action"))} in all`],
    ["Callers alarming", figure(levels.hostile), `hostile; ${figure(levels.suspect)} suspect, ${figure(levels.watch)} on watch, of ${figure(told.followed)} followed`],
    ["Calls in flight", figure(counts.in_flight), `of ${figure(limits.in_flight)}; ${figure(counts.queued)} waiting`],
    ["An inspection takes", inspected, "mean since the start"],
  ]);
}

const noPlain = (counts, key) => counts.decisions.filter((d) => d[key] !== "allow").reduce((n, d) => n + d.count, 0);

function perSecond(told, of) {
  const { former } = seen;
  if (!former) return "–";
  return figure(Math.max(0, (of(told.counts) - of(former.counts)) / (told.time - former.time)));
}

function tiles(wanted) {
  $("tiles").replaceChildren(
    ...wanted.map(([name, value, note]) =>
      element("div", {}, element("dt", {}, name), element("dd", {}, value, element("small", {}, note))),
    ),
  );
}

/** The rows of a table: cells are [text or node, class]. Labels are repeated in cells for narrow screens. */
function fill(id, rows, none) {
  const labels = [...$(id).tHead.rows[0].cells].map((cell) => cell.textContent);
  const made = rows.map((cells) => row(labels, cells));
  if (!rows.length) made.push(element("tr", {}, element("td", { class: "empty", colSpan: labels.length }, none)));
  $(id).tBodies[0].replaceChildren(...made);
}

function row(labels, cells) {
  return element(
    "tr",
    {},
    ...cells.map((cell, i) => {
      const [content, kind] = Array.isArray(cell) ? cell : [cell, ""];
      return element("td", { class: kind, label: labels[i] }, element("div", {}, content));
    }),
  );
}

const name = (text) => [element("bdi", {}, plain(text)), "name"];
const number = (value) => [figure(value), "number"];

function showCallers(told) {
  const drawn = told.callers.slice(0, 6).filter((one) => one.points.length);
  const series = drawn.map((one) => {
    // Evidence that nothing was added to is what it was.
    const last = one.points.at(-1)[1];
    return { name: plain(one.caller), points: [...one.points, [told.time, last]] };
  });
  if (series.length) {
    const legend = drawn.map((one, i) => element("li", {}, element("span", { class: `key ${colour(i)}` }), element("bdi", {}, short(one.caller))));
    $("evidence").replaceChildren(
      lines("Evidence against callers over time; 1 is an alarm", series, { marks: MARKS, top: 1.05, cap: 3, step: true, width: room("evidence") }),
      element("ul", { class: "legend" }, ...legend),
    );
  } else $("evidence").replaceChildren(element("p", { class: "empty" }, "There is no evidence against anybody."));
  fill("callers", told.callers.slice(0, 20).map((one) => caller(one, told.time)), "Nobody.");
  const hidden = told.followed - Math.min(20, told.callers.length);
  const more = [hidden > 0 ? `${figure(hidden)} more are followed.` : "", told.left_out ? `${figure(told.left_out)} were left out for want of room.` : ""];
  $("callers-more").textContent = more.join(" ").trim();
}

const room = (id) => Math.max(300, $(id).clientWidth || 900);
const short = (text) => (plain(text).length > 40 ? `${plain(text).slice(0, 39)}…` : plain(text));

function caller(one, now) {
  const [way, strongest] = Object.entries(one.monitors).reduce((most, [monitor, w]) => (w > most[0] ? [w, monitor] : most), [0, "–"]);
  const meter = element("meter", { min: 0, max: 1, low: 1 / 3, high: 2 / 3, optimum: 0, value: Math.min(1, way) });
  meter.setAttribute("aria-label", "evidence");
  const evidence = element("span", {}, meter, way.toFixed(2));
  return [
    name(one.caller),
    name(one.model),
    [one.level, `level ${one.level}`],
    [evidence, "number"],
    [plain(strongest), ""],
    number(one.rows),
    [ago(one.heard, now), "number"],
  ];
}

function showDecisions(told) {
  const body = $("decisions").tBodies[0];
  const labels = [...$("decisions").tHead.rows[0].cells].map((cell) => cell.textContent);
  const wanted = new Set(told.decisions.map((one) => one.decision_id));
  for (const known of shownDecisions.keys()) if (!wanted.has(known)) shownDecisions.delete(known);
  const rows = told.decisions.map((one) => {
    const known = shownDecisions.get(one.decision_id);
    if (known && (known.drawn || !one.pictures.length)) return known.row;
    const made = { row: row(labels, decision(one)), drawn: one.pictures.length > 0 };
    shownDecisions.set(one.decision_id, made);
    return made.row;
  });
  if (!rows.length) rows.push(element("tr", {}, element("td", { class: "empty", colSpan: labels.length }, "None yet.")));
  body.replaceChildren(...rows);
  $("decisions-more").textContent = told.decisions.length ? `The latest ${told.decisions.length}; the audit log has all.` : "";
}

function decision(one) {
  const acted = element("span", {}, element("span", { class: one.action === "allow" ? "soft" : "bad-word" }, one.action));
  if (one.would_be !== one.action) acted.append(element("div", { class: "suspect" }, `would be ${one.would_be}`));
  if (one.level !== one.former_level) acted.append(element("div", { class: `level ${one.level}` }, `now ${one.level}`));
  return [
    [moment(one.time), "number"],
    name(one.caller),
    name(one.model),
    [acted, "action"],
    [findings(one), ""],
    [inputs(one), ""],
  ];
}

function findings(one) {
  const told = one.findings.map((found) => {
    const what = found.error !== null ? `failed: ${plain(found.error)}` : found.p_value === null ? "" : `p ${Number(found.p_value).toExponential(1)}`;
    return element("li", { title: `${found.kind}, ${found.mode}` }, plain(found.stage), element("span", { class: "soft" }, what && ` ${what}`));
  });
  if (one.atlas_techniques.length) told.push(element("li", { class: "soft" }, one.atlas_techniques.map(plain).join(" ")));
  return element("ul", { class: "plain" }, ...told);
}

function inputs(one) {
  const held = element("div", { class: "pictures" });
  for (const at of one.pictures.slice(0, PICTURES)) held.append(picture(one, at));
  const left = one.rows - Math.min(one.pictures.length, PICTURES);
  if (left > 0) held.append(element("span", { class: "soft" }, one.pictures.length ? `and ${left} more rows` : `${left} ${left === 1 ? "row" : "rows"}`));
  return held;
}

/** Drawn on a canvas: the answer needs the session's header, which an image's address cannot carry. */
function picture(one, at) {
  const canvas = element("canvas", { width: 1, height: 1, hidden: true });
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", `flagged input, row ${at}`);
  draw(canvas, `/pictures/${encodeURIComponent(one.decision_id)}/${Number(at)}`);
  return canvas;
}

/** The quarantine is written a moment after the decision: a picture that is not there yet is asked for again. */
async function draw(canvas, path, tries = 4) {
  if (!session()) return;
  try {
    const answer = await ask(path);
    if (answer.status !== 200) {
      if (answer.status === 204 && tries > 1 && session()) setTimeout(() => draw(canvas, path, tries - 1), WRITTEN_MS);
      return;
    }
    const bitmap = await createImageBitmap(await answer.blob());
    canvas.width = bitmap.width;
    canvas.height = bitmap.height;
    canvas.getContext("2d").drawImage(bitmap, 0, 0);
    canvas.hidden = false;
  } catch {
    // Guard is away: the page says so elsewhere
  }
}

function showTraffic(told) {
  const points = told.traffic.points;
  const curve = (at) =>
    points.slice(1).map((point, i) => [point[0], Math.max(0, point[at] - points[i][at]) / Math.max(0.001, point[0] - points[i][0])]);
  const names = ["calls", "would be no plain allow", "no plain allow"];
  const series = names.map((one, i) => ({ name: one, points: steady(curve(i + 1), points) }));
  const legend = names.map((one, i) => element("li", {}, element("span", { class: `key ${colour(i)}` }), one));
  $("traffic").replaceChildren(lines("Calls and decisions a second over time", series, { height: 160, width: room("traffic") }), element("ul", { class: "legend" }, ...legend));
  const fired = told.counts.findings.filter((one) => one.count > 0).sort((a, b) => b.count - a.count);
  const rows = fired.slice(0, 30).map((one) => [name(one.stage), one.kind, name(one.model), one.mode, number(one.count)]);
  fill("findings", rows, "None has fired.");
}

/** The last stretch is short: its rate says little until a second has passed. */
function steady(curve, points) {
  const hasty = points.length > 1 && points.at(-1)[0] - points.at(-2)[0] < 1;
  return hasty ? curve.slice(0, -1) : curve;
}

function showDrift(told) {
  const rows = told.models.flatMap((model) =>
    model.stages.filter((stage) => stage.kind === "detector").map((stage) => drift(model, stage)),
  );
  fill("drift", rows, "There are no detectors.");
}

function drift(model, stage) {
  const seen = stage.drift;
  const unseen = ["–", "–", "–", "–", ["not enough inputs yet", "soft"]];
  const told = seen && [
    [percent(seen.expected_rate), "number"],
    [percent(seen.observed_rate), "number"],
    [seen.distance.toFixed(3), "number"],
    number(seen.rows),
    seen.alarm ? ["alarm", "bad-word"] : ["none seen", "good-word"],
  ];
  return [name(stage.name), name(model.name), ...(told ?? unseen)];
}

function showHealth(told) {
  const { counts, limits } = told;
  const calls = counts.upstream_calls;
  const failed = sum(calls) - (calls.OK ?? 0) - (calls.CANCELLED ?? 0); // whoever called ended those
  const lost = (counts.audit_events.dropped ?? 0) + (counts.audit_events.failed ?? 0);
  const evicted = sum(counts.evicted);
  const uninspected = sum(counts.uninspected), rejected = sum(counts.rejected);
  const errors = counts.stage_errors.reduce((n, one) => n + one.count, 0);
  const state = (good, yes, no) => (good ? [yes, "good-word"] : [no, "bad-word"]);
  const rows = told.models.map((model) => [
    name(`model ${model.name}`),
    state(model.ready, "ready", "not ready"),
    [element("bdi", {}, plain([model.mode, model.upstream, model.reason].filter(Boolean).join(" · "))), ""],
  ]);
  rows.push(
    ["upstream calls", state(!failed, "answered", `${figure(failed)} failed`), `${figure(sum(calls))} in all`],
    ["store", state(!counts.store_away, "there", "away"), `${limits.store}: ${figure(counts.store_entries)} of ${figure(limits.store_entries)} rows; ${figure(evicted)} forgotten for want of room`],
    ["stages", state(!errors, "working", `${figure(errors)} failures`), `${figure(uninspected)} queries were forwarded uninspected`],
    ["calls turned away", state(!rejected, "none", figure(rejected)), Object.keys(counts.rejected).map((why) => why.replaceAll("_", " ")).join(", ")],
    ["audit log", state(!lost, "written", `${figure(lost)} events lost`), `${figure(counts.audit_events.written ?? 0)} events`],
  );
  if (limits.workers > 1) {
    const ready = counts.workers.ready ?? 0;
    rows.push(["workers", state(ready === limits.workers, "ready", "not all ready"), `${figure(ready)} of ${limits.workers}`]);
  }
  fill("health", rows, "");
}

// --- the start

$("sign-in").addEventListener("submit", signIn);
$("leave").addEventListener("click", leave);
document.addEventListener("visibilitychange", () => {
  if (!document.hidden && session()) look();
});
addEventListener("resize", () => {
  clearTimeout(resizing);
  resizing = setTimeout(() => {
    if (!seen.latest || $("shown").hidden) return;
    showCallers(seen.latest);
    showTraffic(seen.latest);
  }, 150);
});
if (session()) begin();
else openDoor();
