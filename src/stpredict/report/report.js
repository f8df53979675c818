"use strict";
// Sorts and searches the table of genes, and draws the chosen gene on the tissue. All text that
// comes from data goes through textContent, never through markup.
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const table = document.getElementById("gene-table");
  const body = table.tBodies[0];
  const heads = [...table.tHead.rows[0].cells];
  const search = document.getElementById("search");
  const article = document.getElementById("gene");
  const MISSING = 255;

  const bytes = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const packed = bytes(data.colours);
  const colours = Array.from(
    { length: packed.length / 3 },
    (_, n) => `rgb(${packed[3 * n]} ${packed[3 * n + 1]} ${packed[3 * n + 2]})`,
  );
  const text = (value) => (value === null ? "–" : value.toFixed(3));
  const brief = (value) => String(Number(value.toPrecision(3)));
  const mean = (values) => {
    const known = values.filter((value) => value !== null);
    return known.length ? known.reduce((sum, value) => sum + value, 0) / known.length : null;
  };
  const shade = (value) =>
    value === null ? "" : `s${Math.min(10, Math.max(0, Math.round(10 * value)))}`;

  // -- table ------------------------------------------------------------------------------------

  const keyOf = (row, column) => {
    const shown = row.cells[column].textContent.trim();
    const number = Number(shown);
    return shown !== "" && Number.isFinite(number) ? number : shown;
  };

  function sort(column, direction) {
    const sign = direction === "descending" ? -1 : 1;
    const numbers = column > 0;
    const keyed = [...body.rows].map((row) => [numbers ? keyOf(row, column) : keyText(row), row]);
    const missing = (key) => key === "–";
    keyed.sort(([a], [b]) => {
      if (missing(a) || missing(b)) return missing(a) - missing(b); // last, either way
      if (typeof a === "number" && typeof b === "number") return sign * (a - b);
      return sign * String(a).localeCompare(String(b), "en", { numeric: true });
    });
    body.append(...keyed.map(([, row]) => row));
    heads.forEach((head, n) => {
      head.setAttribute("aria-sort", n === column ? direction : "none");
    });
  }

  const keyText = (row) => row.cells[0].textContent;

  heads.forEach((head, column) => {
    head.firstElementChild.addEventListener("click", () => {
      const first = column === 0 ? "ascending" : "descending";
      const second = column === 0 ? "descending" : "ascending";
      sort(column, head.getAttribute("aria-sort") === first ? second : first);
    });
  });

  const names = data.genes.map((gene) => gene.toLowerCase());
  const shown = () => [...body.rows].filter((row) => !row.hidden);

  function filter() {
    const wanted = search.value.trim().toLowerCase();
    for (const row of body.rows) {
      const button = row.cells[0].firstElementChild;
      row.hidden = !names[button.dataset.gene].includes(wanted);
    }
    const found = shown().length;
    const all = names.length;
    document.getElementById("found").textContent =
      wanted === "" ? `${all} genes` : `${found} of ${all} genes`;
  }

  search.addEventListener("input", filter);
  search.addEventListener("keydown", (event) => {
    if (event.key !== "Enter") return;
    const wanted = search.value.trim().toLowerCase();
    const exact = names.indexOf(wanted);
    const first = shown()[0];
    if (exact >= 0) choose(exact);
    else if (first) choose(Number(first.cells[0].firstElementChild.dataset.gene));
  });

  body.addEventListener("click", (event) => {
    const row = event.target.closest("tr");
    if (row) choose(Number(row.cells[0].firstElementChild.dataset.gene));
  });
  body.addEventListener("keydown", (event) => {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (!step) return;
    const rows = shown();
    const next = rows[rows.indexOf(event.target.closest("tr")) + step];
    if (!next) return;
    event.preventDefault();
    next.cells[0].firstElementChild.focus();
  });

  // -- one gene ---------------------------------------------------------------------------------

  function choose(gene) {
    for (const button of body.querySelectorAll("button.gene")) {
      const chosen = Number(button.dataset.gene) === gene;
      button.setAttribute("aria-pressed", String(chosen));
      button.closest("tr").classList.toggle("chosen", chosen);
    }
    article.hidden = false;
    document.getElementById("gene-name").textContent = data.genes[gene];
    tabulate(gene);
    const there = Object.hasOwn(data.maps, data.genes[gene]);
    document.getElementById("not-drawn").hidden = there;
    document.getElementById("maps").hidden = !there;
    if (there) draw(gene, ...data.maps[data.genes[gene]]);
  }

  function cell(row, tag, content, className) {
    const made = document.createElement(tag);
    made.textContent = content;
    if (className) made.className = className;
    if (tag === "th") made.scope = row.parentElement.tagName === "THEAD" ? "col" : "row";
    row.append(made);
  }

  const ofGene = (scores, gene) =>
    scores.slice(gene * data.sections.length, (gene + 1) * data.sections.length);

  function tabulate(gene) {
    const target = document.getElementById("gene-scores");
    const caption = document.createElement("caption");
    caption.textContent = "PCC by section ";
    const leaky = article.querySelector("h3 .leaky");
    if (leaky) caption.append(leaky.cloneNode(true));
    target.replaceChildren(caption);
    const nulls = Object.entries(data.nulls).filter(([, scores]) => Object.keys(scores).length);
    const top = target.createTHead().insertRow();
    const known = Object.keys(data.reliable).length ? ["reliable"] : [];
    for (const name of ["", ...data.sections, "mean", ...nulls.map(([label]) => label), ...known]) {
      cell(top, "th", name);
    }
    const rows = target.createTBody();
    for (const { name, label, kind } of data.rows) {
      const row = rows.insertRow();
      row.className = kind;
      cell(row, "th", label);
      const scores = ofGene(data.pcc[name], gene);
      for (const value of [...scores, mean(scores)]) cell(row, "td", text(value), shade(value));
      for (const [, of] of nulls) {
        cell(row, "td", of[name] ? text(mean(ofGene(of[name], gene))) : "");
      }
      const trusted = data.reliable[name]?.[gene];
      if (known.length) cell(row, "td", { 0: "no", 1: "yes" }[trusted] ?? "");
    }
  }

  // -- maps -------------------------------------------------------------------------------------

  const places = [...document.querySelectorAll(".tissue")];
  let drawn = []; // of each section its scale, and the bytes of each panel

  function draw(gene, scales, encoded) {
    const values = bytes(encoded);
    let start = 0;
    drawn = places.map((place, section) => {
      const tissue = data.tissues[section];
      const [low, high] = scales[section];
      const panels = [];
      place.querySelector(".low").textContent = brief(low);
      place.querySelector(".high").textContent = brief(high);
      const picture = place.querySelector("img");
      place.querySelectorAll("canvas[data-series]").forEach((canvas) => {
        const levels = values.subarray(start, start + tissue.x.length);
        start += tissue.x.length;
        panels.push(levels);
        paint(canvas, picture, tissue, levels);
        describe(canvas, gene, section, levels);
      });
      return { low, high, panels };
    });
  }

  function paint(canvas, picture, tissue, levels) {
    const context = canvas.getContext("2d");
    context.globalAlpha = 1;
    context.fillStyle = "white";
    context.fillRect(0, 0, canvas.width, canvas.height);
    context.globalAlpha = 0.4; // the tissue is the background
    context.drawImage(picture, 0, 0, canvas.width, canvas.height);
    context.globalAlpha = 1;
    context.strokeStyle = "rgb(110 110 110)";
    for (let n = 0; n < levels.length; n += 1) {
      context.beginPath();
      context.arc(tissue.x[n], tissue.y[n], Math.max(tissue.radius[n], 1), 0, 2 * Math.PI);
      if (levels[n] === MISSING) {
        context.stroke();
      } else {
        context.fillStyle = colours[levels[n]];
        context.fill();
      }
    }
  }

  function describe(canvas, gene, section, levels) {
    const series = Number(canvas.dataset.series);
    const row = data.rows.find(({ map }) => map === series);
    const predicted = series === 0 || levels.some((level) => level !== MISSING);
    const score = row ? ofGene(data.pcc[row.name], gene)[section] : null;
    const caption = canvas.parentElement.querySelector(".pcc");
    if (series === 0) caption.textContent = "";
    else caption.textContent = predicted ? `PCC ${text(score)}` : "not predicted";
    caption.dataset.resting = caption.textContent;
    const label = canvas.parentElement.querySelector("figcaption").textContent;
    canvas.setAttribute(
      "aria-label",
      `${data.genes[gene]} in section ${data.sections[section]}, ${label}`,
    );
  }

  // the values of the spot under the pointer, in every panel of the section
  function point(event, section) {
    const canvas = event.target.closest("canvas[data-series]");
    const spot = canvas && drawn[section] ? nearest(event, canvas, data.tissues[section]) : -1;
    places[section].querySelectorAll(".pcc").forEach((caption, series) => {
      if (spot < 0) {
        caption.textContent = caption.dataset.resting ?? "";
      } else {
        const { low, high, panels } = drawn[section];
        const level = panels[series][spot];
        const value = low + (level / (MISSING - 1)) * (high - low);
        const beyond = { 0: "≤ ", [MISSING - 1]: "≥ " }[level] ?? "";
        caption.textContent = level === MISSING ? "–" : beyond + brief(value);
      }
    });
  }

  function nearest(event, canvas, tissue) {
    const box = canvas.getBoundingClientRect();
    const x = ((event.clientX - box.left) / box.width) * canvas.width;
    const y = ((event.clientY - box.top) / box.height) * canvas.height;
    let [best, within] = [-1, Infinity];
    for (let n = 0; n < tissue.x.length; n += 1) {
      const far = Math.hypot(tissue.x[n] - x, tissue.y[n] - y);
      if (far < within && far < 1.3 * tissue.radius[n] + 1) [best, within] = [n, far];
    }
    return best;
  }

  places.forEach((place, section) => {
    for (const kind of ["pointermove", "pointerdown", "pointerleave"]) {
      place.addEventListener(kind, (event) => point(event, section));
    }
  });

  for (const bar of document.querySelectorAll("canvas.bar")) {
    const context = bar.getContext("2d");
    colours.forEach((colour, n) => {
      context.fillStyle = colour;
      context.fillRect(n, 0, 1, 1);
    });
  }

  sort(1, "descending");
  const pictures = [...document.querySelectorAll(".tissue img")];
  Promise.allSettled(pictures.map((picture) => picture.decode())).then(() => {
    if (article.hidden) choose(Number(body.rows[0].cells[0].firstElementChild.dataset.gene));
    else choose(Number(body.querySelector("[aria-pressed=true]").dataset.gene));
  });
})();
