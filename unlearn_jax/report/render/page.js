"use strict";

// One box for all that is shown of what is pointed at.
const tip = document.getElementById("tip");

function showTip(left, top) {
  const edge = document.documentElement.clientWidth - tip.offsetWidth - 8;
  const x = Math.max(8, Math.min(left + 12, edge));
  const above = top - tip.offsetHeight - 12;
  tip.style.left = (x + window.scrollX) + "px";
  tip.style.top = ((above > 4 ? above : top + 16) + window.scrollY) + "px";
}

function hideTip() { tip.textContent = ""; }

// Light or dark: as the system has it, until the button is pressed.
const theme = document.getElementById("theme");
const systemDark = matchMedia("(prefers-color-scheme: dark)");
let chosen = null;

function applyTheme() {
  const dark = chosen === null ? systemDark.matches : chosen === "dark";
  document.documentElement.style.colorScheme = chosen || "";
  document.documentElement.dataset.theme = dark ? "dark" : "light";
  theme.textContent = dark ? "Light" : "Dark";
  theme.setAttribute("aria-label", dark ? "Switch to light" : "Switch to dark");
}

theme.addEventListener("click", function () {
  const dark = chosen === null ? systemDark.matches : chosen === "dark";
  chosen = dark ? "light" : "dark";
  applyTheme();
});
systemDark.addEventListener("change", applyTheme);
applyTheme();

// Sections are folded. What a link leads to is unfolded, and all is for printing.
const folds = Array.from(document.querySelectorAll("details.fold"));
const foldButton = document.getElementById("fold");

function setAll(open) {
  folds.forEach(function (fold) { fold.open = open; });
  foldButton.textContent = open ? "Fold all" : "Unfold all";
}

function unfold(target) {
  for (let node = target; node; node = node.parentElement) {
    if (node.matches("details.fold")) { node.open = true; }
  }
  const own = target.querySelector(":scope > details.fold");
  if (own) { own.open = true; }
}

function targetOf(hash) {
  return hash.length > 1 ? document.getElementById(decodeURIComponent(hash.slice(1))) : null;
}

function follow() {
  const target = targetOf(location.hash);
  if (target) { unfold(target); target.scrollIntoView(); }
}

foldButton.addEventListener("click", function () {
  setAll(folds.some(function (fold) { return !fold.open; })); });
document.addEventListener("click", function (event) { // before the browser goes there
  const link = event.target.closest("a[href^='#']");
  const target = link && targetOf(link.getAttribute("href"));
  if (target) { unfold(target); }
});
window.addEventListener("hashchange", follow);
follow();

let before = null; // printing
window.addEventListener("beforeprint", function () {
  before = folds.map(function (fold) { return fold.open; });
  setAll(true);
});
window.addEventListener("afterprint", function () {
  if (before) { folds.forEach(function (fold, i) { fold.open = before[i]; }); }
  before = null;
});

// A browser that does not search in folded parts by itself gets them unfolded for its search.
document.addEventListener("keydown", function (event) {
  if ((event.ctrlKey || event.metaKey) && event.key.toLowerCase() === "f" &&
      !("onbeforematch" in HTMLElement.prototype)) { setAll(true); }
});

// A table is sorted by the column whose title is pressed; what is no number stays last.
document.querySelectorAll("th button").forEach(function (button) {
  button.addEventListener("click", function () {
    const th = button.parentNode, body = th.closest("table").tBodies[0];
    const at = th.cellIndex, down = th.getAttribute("aria-sort") === "ascending" ? -1 : 1;
    th.parentNode.querySelectorAll("th").forEach(function (other) {
      other.removeAttribute("aria-sort"); });
    th.setAttribute("aria-sort", down === 1 ? "ascending" : "descending");
    Array.from(body.rows).map(function (row) {
      const cell = row.cells[at], key = cell.dataset.sort;
      return { row: row, text: cell.textContent,
               value: key === undefined ? null : parseFloat(key) };
    }).sort(function (a, b) {
      if (a.value === null || b.value === null) {
        return down * a.text.localeCompare(b.text, undefined, { numeric: true }); }
      if (isNaN(a.value) || isNaN(b.value)) { return isNaN(a.value) - isNaN(b.value); }
      return down * (a.value - b.value);
    }).forEach(function (item) { body.appendChild(item.row); });
  });
});

// A number says where it comes from, and a column's title what it means, as in the glossary.
const tails = JSON.parse(document.getElementById("tails").textContent);
document.querySelectorAll("[data-tip], th button").forEach(function (item) {
  function show() {
    const box = item.getBoundingClientRect();
    const entry = document.getElementById(item.getAttribute("aria-describedby"));
    if (entry) { tip.innerHTML = entry.innerHTML; } // escaped where it was written
    else { tip.textContent = [item.dataset.tip, tails[item.dataset.tail]].filter(Boolean)
      .join("\n"); }
    showTip(box.left, box.top);
  }
  item.addEventListener("mouseenter", show);
  item.addEventListener("focus", show);
  item.addEventListener("mouseleave", hideTip);
  item.addEventListener("blur", hideTip);
});

// A picture as wide as a phone can be enlarged until its text is easily read.
document.querySelectorAll(".enlarge").forEach(function (button) {
  button.addEventListener("click", function () {
    const large = button.closest("figure").querySelector(".picture").classList.toggle("large");
    button.textContent = large ? "Fit" : "Enlarge";
  });
});

// Pictures. Most are packed: deflated, in base64.
document.querySelectorAll(".picture").forEach(function (picture) {
  const figure = picture.closest("figure");
  const packed = picture.dataset.packed;
  if (!packed) { makeLive(figure); return; }
  const bytes = Uint8Array.from(atob(packed), function (c) { return c.charCodeAt(0); });
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  new Response(stream).text().then(function (text) {
    picture.innerHTML = text;
    delete picture.dataset.packed;
    makeLive(figure);
  });
});

// Each picture has its values beside it, as JSON:
// panels of [title, x label, y label, [[name, colour, [[across, down, x, y, text], ...]], ...]].
function makeLive(figure) {
  if (!figure.matches(".plotted")) { return; }
  const svg = figure.querySelector("svg.plot");
  const panels = JSON.parse(figure.querySelector("script").textContent);
  const series = [];
  panels.forEach(function (panel) {
    panel[3].forEach(function (one) {
      series.push({ panel: panel, name: one[0], color: one[1], points: one[2] }); });
  });
  const spot = document.createElementNS(svg.namespaceURI, "circle");
  spot.setAttribute("class", "spot");
  spot.setAttribute("r", "5");
  let current = null; // [series, point]

  function describe(s, p) {
    const lines = [];
    if (s.panel[0] && s.panel[0] !== s.name) { lines.push(s.panel[0]); }
    lines.push((s.panel[1] || "x") + ": " + p[2]);
    if (p[3] !== s.name) { lines.push((s.panel[2] || "y") + ": " + p[3]); }
    if (p[4]) { lines.push(p[4]); }
    return "<b>" + s.name + "</b>\n" + lines.join("\n"); // escaped where it was written
  }

  function show(i, j) {
    const s = series[i], p = s.points[j];
    current = [i, j];
    spot.setAttribute("cx", p[0]);
    spot.setAttribute("cy", p[1]);
    svg.appendChild(spot);
    tip.innerHTML = describe(s, p);
    const box = spot.getBoundingClientRect();
    showTip(box.right, box.top);
  }

  function hide() {
    current = null;
    spot.remove();
    hideTip();
  }

  function nearest(event, reach) {
    const at = new DOMPoint(event.clientX, event.clientY).matrixTransform(
      svg.getScreenCTM().inverse());
    let best = null, least = reach * reach;
    series.forEach(function (s, i) {
      s.points.forEach(function (p, j) {
        const dx = p[0] - at.x, dy = p[1] - at.y, d = dx * dx + dy * dy;
        if (d < least) { least = d; best = [i, j]; }
      });
    });
    return best;
  }

  svg.addEventListener("pointermove", function (event) {
    if (event.pointerType === "touch") { return; }
    const found = nearest(event, 24);
    if (found) { show(found[0], found[1]); } else if (current) { hide(); }
  });
  svg.addEventListener("pointerleave", function (event) {
    if (event.pointerType !== "touch") { hide(); }
  });
  // a tap shows the nearest value and leaves it there; a tap elsewhere takes it away
  svg.addEventListener("click", function (event) {
    const found = nearest(event, 60);
    if (found) { show(found[0], found[1]); } else { hide(); }
    event.stopPropagation();
  });
  document.addEventListener("click", function () { if (current) { hide(); } });
  svg.addEventListener("blur", hide);
  svg.addEventListener("keydown", function (event) {
    const steps = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] };
    const step = steps[event.key];
    if (event.key === "Escape") { hide(); return; }
    if (!step || !series.length) { return; }
    event.preventDefault();
    if (!current) { show(0, 0); return; }
    const i = (current[0] + step[0] + series.length) % series.length;
    let j = current[1];
    if (step[0]) {
      const from = series[current[0]].points[j];
      j = series[i].points.reduce(function (best, p, k, all) {
        return Math.abs(p[0] - from[0]) < Math.abs(all[best][0] - from[0]) ? k : best; }, 0);
    }
    const n = series[i].points.length;
    show(i, Math.max(0, Math.min(n - 1, j + step[1])));
  });

  // the same values as a table, made when it is first opened
  const values = figure.querySelector("details.values");
  values.addEventListener("toggle", function () {
    if (!values.open || values.querySelector("table")) { return; }
    const rows = [];
    series.forEach(function (s) {
      s.points.forEach(function (p) {
        rows.push([s.panel[0], s.name, s.panel[1], p[2], s.panel[2], p[3], p[4]]); });
    });
    const same = [0, 2, 4, 6].filter(function (k) { // a column that says one thing is left out
      return rows.every(function (row) { return row[k] === rows[0][k]; }); });
    const one = [2, 4].map(function (k) { return same.includes(k) ? rows[0][k] : ""; });
    const heads = ["panel", "name", "", one[0] || "x", "", one[1] || "y", "more"];
    const shown = heads.map(function (_, k) { return k; }).filter(function (k) {
      return !same.includes(k); });
    function row(tag, cells) {
      return "<tr>" + shown.map(function (k) {
        return "<" + tag + (k < 3 || k === 4 ? " class=text>" : ">") + cells[k] + "</" + tag + ">";
      }).join("") + "</tr>";
    }
    const holder = document.createElement("div");
    holder.className = "scroll";
    holder.tabIndex = 0;
    holder.setAttribute("role", "region");
    holder.setAttribute("aria-label", "Values: " + svg.getAttribute("aria-label"));
    holder.innerHTML = "<table><thead>" + row("th", heads) + "</thead><tbody>" +
      rows.map(function (cells) { return row("td", cells); }).join("") + "</tbody></table>";
    values.appendChild(holder);
  });
}

document.addEventListener("keydown", function (event) {
  if (event.key === "Escape") { hideTip(); }
});
