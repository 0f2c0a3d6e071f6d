// Draws the plots, keeps pages up to date while a run goes on, switches the theme. Nothing is fetched from elsewhere.
"use strict";

const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

function themed(layout) {
  const grid = css("--line"), text = css("--text"), quiet = css("--quiet");
  const axis = (given) => ({ gridcolor: grid, zerolinecolor: grid, linecolor: grid, tickcolor: grid, ...given,
    title: given && given.title ? { ...given.title, font: { size: 12, color: quiet } } : undefined });
  const out = {
    margin: { l: 60, r: 16, t: 36, b: 40 }, ...layout,
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", autosize: true, uirevision: "kept",
    font: { family: css("--font"), size: 12, color: text },
    modebar: { bgcolor: "rgba(0,0,0,0)", color: css("--quiet"), activecolor: css("--accent") },
    hoverlabel: { bgcolor: css("--card"), bordercolor: grid, font: { color: text, size: 12 }, align: "left" },
  };
  for (const name of ["xaxis", "yaxis", "yaxis2"]) if (layout[name] || name !== "yaxis2") out[name] = axis(layout[name]);
  return out;
}

const CONFIG = { responsive: true, displaylogo: false, displayModeBar: "hover",
  modeBarButtons: [["toImage"], ["zoom2d", "pan2d", "zoomIn2d", "zoomOut2d", "resetScale2d"]] };

function isEmpty(figure) {
  return !figure.data.some((trace) => (trace.x || []).length > 0);
}

// Colours that pages have, not plots: "@text" is that of the text, on light and on dark ground.
function themedTrace(trace) {
  const own = (color) => Array.isArray(color) ? color.map(own) : color === "@text" ? css("--text") : color;
  const out = { ...trace };
  if (trace.line && trace.line.color) out.line = { ...trace.line, color: own(trace.line.color) };
  if (trace.marker && trace.marker.line && trace.marker.line.color)
    out.marker = { ...trace.marker, line: { ...trace.marker.line, color: own(trace.marker.line.color) } };
  return out;
}

async function draw(place, address) {
  let figure;
  try {
    const answer = await fetch(address || place.dataset.figure, { headers: { Accept: "application/json" } });
    figure = await answer.json();
    if (!answer.ok) throw new Error(figure.error || answer.statusText);
  } catch (error) {
    if (!place.figure) place.replaceChildren(line("loading bad", "Cannot be drawn: " + error.message));
    return;
  }
  place.figure = figure;
  if (isEmpty(figure)) {
    if (place.drawn) { Plotly.purge(place); place.drawn = false; }
    place.replaceChildren(line("loading", "Nothing to draw yet."));
    return;
  }
  await show(place);
}

async function show(place) {
  const first = !place.drawn;
  if (first) place.replaceChildren();
  const graph = place.dataset.figure.includes("graph.json");  // elsewhere the wheel scrolls the page
  await Plotly.react(place, place.figure.data.map(themedTrace), themed(place.figure.layout), { ...CONFIG, scrollZoom: graph });
  place.drawn = true;
  note(place, place.figure.note);
  if (!first) return;
  place.on("plotly_click", (event) => {
    const link = event.points.length && event.points[0].customdata;
    if (typeof link === "string" && link.startsWith("/")) location.href = link;
  });
  if (place.dataset.figure.includes("timeline.json")) place.on("plotly_relayout", (change) => zoomed(place, change));
}

// The timeline asks for the tries of the time it shows.
function zoomed(place, change) {
  const from = change["xaxis.range[0]"], to = change["xaxis.range[1]"];
  const milliseconds = (value) => typeof value === "number" ? value : Date.parse(String(value).replace(" ", "T") + "Z");
  clearTimeout(place.timer);
  if (change["xaxis.autorange"]) place.window = "";
  else if (from !== undefined && to !== undefined) place.window = `?since=${milliseconds(from)}&until=${milliseconds(to)}`;
  else return;
  if (place.figure.note || place.windowed) {
    place.windowed = place.window !== "";
    place.timer = setTimeout(() => draw(place, place.dataset.figure + place.window), 250);
  }
}

function line(kind, text) {
  const made = document.createElement("p");
  made.className = kind;
  made.textContent = text;
  return made;
}

// Above the plot: a selection must not be taken for the whole.
function note(place, text) {
  let shown = place.previousElementSibling;
  if (!shown || !shown.classList.contains("plot-note")) {
    if (!text) return;
    shown = line("plot-note quiet", "");
    place.before(shown);
  }
  shown.textContent = text || "";
}

const plots = () => [...document.querySelectorAll(".plot[data-figure]")];

// Takes the marked parts of the page from a fresh copy of it; what is open, focused or scrolled stays.
async function refresh() {
  const answer = await fetch(location.href, { headers: { Accept: "text/html" } });
  if (document.getElementById("message")) { if (answer.ok) location.reload(); return; }
  if (!answer.ok) throw new Error(answer.statusText);
  const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
  for (const old of document.querySelectorAll("[data-part]")) {
    const now = fresh.getElementById(old.id);
    if (now && now.innerHTML !== old.innerHTML && !old.contains(document.activeElement) && !old.querySelector("details[open]"))
      old.innerHTML = now.innerHTML;
  }
  document.body.dataset.live = fresh.body.dataset.live || "";
  document.body.dataset.follow = fresh.body.dataset.follow || "";
  await Promise.all(plots().map((place) => draw(place, place.dataset.figure + (place.window || ""))));
}

function pulse(text, kind) {
  const shown = document.getElementById("pulse");
  shown.hidden = !text;
  shown.textContent = text;
  shown.className = "pulse " + kind;
}

async function look() {
  const body = document.body;
  if (!body.dataset.pulse) { await refresh(); return; }
  const answer = await fetch(body.dataset.pulse);
  if (!answer.ok) throw new Error(answer.statusText);
  const found = await answer.json();
  if (String(found.revision) !== body.dataset.revision) {
    body.dataset.revision = found.revision;
    await refresh();
  }
  body.dataset.live = found.live ? "1" : "";
  body.dataset.follow = found.follow ? "1" : "";
}

// A live run is looked at every few seconds; where more may come though nothing is live, seldom.
async function follow() {
  const body = document.body;
  const pause = () => body.dataset.live ? Number(body.dataset.reload || 2) : 15;
  let wait = pause();
  while (body.dataset.live || body.dataset.follow) {
    if (!document.getElementById("message")) pulse(body.dataset.live ? "live" : "", "on");
    await new Promise((done) => setTimeout(done, wait * 1000));
    if (document.hidden) continue;
    try { await look(); wait = pause(); }
    catch { pulse("not reached, trying again", "off"); wait = Math.min(wait * 2, 30); }
  }
  pulse("", "");
}

document.getElementById("theme").addEventListener("click", () => {
  const root = document.documentElement;
  root.dataset.theme = root.dataset.theme === "dark" ? "light" : "dark";
  try { localStorage.setItem("flow-theme", root.dataset.theme); } catch { /* storage is off */ }
  for (const place of plots()) if (place.drawn) show(place);
});

for (const place of plots()) {
  place.style.minHeight = place.dataset.height + "px";
  draw(place);
}
follow();
