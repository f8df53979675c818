"use strict";
// Sorts and searches the table of genes, and draws the selected gene on the tissue. All text from
// the data is set with textContent, so that names are never interpreted as markup.
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const table = document.getElementById("gene-table");
  const body = table.tBodies[0];
  const heads = [...table.tHead.rows[0].cells];
  const search = document.getElementById("search");
  const article = document.getElementById("gene");
  const NO_VALUE = 255;

  const bytes = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const channels = bytes(data.colors);
  const colors = Array.from(
    { length: channels.length / 3 },
    (_, n) => `rgb(${channels[3 * n]} ${channels[3 * n + 1]} ${channels[3 * n + 2]})`,
  );
  const text = (value) => (value === null ? "–" : value.toFixed(3));
  const brief = (value) => String(Number(value.toPrecision(3)));
  const mean = (values) => {
    const numbers = values.filter((value) => value !== null);
    return numbers.length ? numbers.reduce((sum, value) => sum + value, 0) / numbers.length : null;
  };
  const shade = (value) =>
    value === null ? "" : `s${Math.min(10, Math.max(0, Math.round(10 * value)))}`;

  // -- table ------------------------------------------------------------------------------------

  const keyOf = (row, column) => {
    const content = row.cells[column].textContent.trim();
    const number = Number(content);
    return content !== "" && Number.isFinite(number) ? number : content;
  };

  function sort(column, direction) {
    const sign = direction === "descending" ? -1 : 1;
    const numbers = column > 0;
    const keyed = [...body.rows].map((row) => [numbers ? keyOf(row, column) : keyText(row), row]);
    const missing = (key) => key === "–";
    keyed.sort(([a], [b]) => {
      if (missing(a) || missing(b)) return missing(a) - missing(b); // last, in both directions
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
  const visibleRows = () => [...body.rows].filter((row) => !row.hidden);

  function filter() {
    const query = search.value.trim().toLowerCase();
    for (const row of body.rows) {
      const button = row.cells[0].firstElementChild;
      row.hidden = !names[button.dataset.gene].includes(query);
    }
    const all = names.length;
    document.getElementById("n-matching").textContent =
      query === "" ? `${all} genes` : `${visibleRows().length} of ${all} genes`;
  }

  search.addEventListener("input", filter);
  search.addEventListener("keydown", (event) => {
    if (event.key !== "Enter") return;
    const exact = names.indexOf(search.value.trim().toLowerCase());
    const first = visibleRows()[0];
    if (exact >= 0) select(exact);
    else if (first) select(Number(first.cells[0].firstElementChild.dataset.gene));
  });

  body.addEventListener("click", (event) => {
    const row = event.target.closest("tr");
    if (row) select(Number(row.cells[0].firstElementChild.dataset.gene));
  });
  body.addEventListener("keydown", (event) => {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (!step) return;
    const rows = visibleRows();
    const next = rows[rows.indexOf(event.target.closest("tr")) + step];
    if (!next) return;
    event.preventDefault();
    next.cells[0].firstElementChild.focus();
  });

  // -- one gene ---------------------------------------------------------------------------------

  function select(gene) {
    for (const button of body.querySelectorAll("button.gene")) {
      const selected = Number(button.dataset.gene) === gene;
      button.setAttribute("aria-pressed", String(selected));
      button.closest("tr").classList.toggle("selected", selected);
    }
    article.hidden = false;
    document.getElementById("gene-name").textContent = data.genes[gene];
    tabulate(gene);
    const hasMap = Object.hasOwn(data.maps, data.genes[gene]);
    document.getElementById("not-drawn").hidden = hasMap;
    document.getElementById("maps").hidden = !hasMap;
    if (hasMap) draw(gene, ...data.maps[data.genes[gene]]);
  }

  function cell(row, tag, content, className) {
    const element = document.createElement(tag);
    element.textContent = content;
    if (className) element.className = className;
    if (tag === "th") element.scope = row.parentElement.tagName === "THEAD" ? "col" : "row";
    row.append(element);
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
    const reliable = Object.keys(data.reliable).length ? ["reliable"] : [];
    for (const name of ["", ...data.sections, "mean", ...nulls.map(([label]) => label), ...reliable]) {
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
      const answer = { 0: "no", 1: "yes" }[data.reliable[name]?.[gene]] ?? "";
      if (reliable.length) cell(row, "td", answer);
    }
  }

  // -- maps -------------------------------------------------------------------------------------

  const places = [...document.querySelectorAll(".tissue")];
  let maps = []; // scale and bytes of the panels, by section

  function draw(gene, scales, encoded) {
    const values = bytes(encoded);
    let start = 0;
    maps = places.map((place, section) => {
      const spots = data.spots[section];
      const [low, high] = scales[section];
      const panels = [];
      place.querySelector(".low").textContent = brief(low);
      place.querySelector(".high").textContent = brief(high);
      const picture = place.querySelector("img");
      place.querySelectorAll("canvas[data-series]").forEach((canvas) => {
        const levels = values.subarray(start, start + spots.x.length);
        start += spots.x.length;
        panels.push(levels);
        paint(canvas, picture, spots, levels);
        describe(canvas, gene, section, levels);
      });
      return { low, high, panels };
    });
  }

  function paint(canvas, picture, spots, levels) {
    const context = canvas.getContext("2d");
    context.globalAlpha = 1;
    context.fillStyle = "white";
    context.fillRect(0, 0, canvas.width, canvas.height);
    context.globalAlpha = 0.4; // the tissue is a pale background
    context.drawImage(picture, 0, 0, canvas.width, canvas.height);
    context.globalAlpha = 1;
    context.strokeStyle = "rgb(110 110 110)";
    for (let n = 0; n < levels.length; n += 1) {
      context.beginPath();
      context.arc(spots.x[n], spots.y[n], Math.max(spots.radius[n], 1), 0, 2 * Math.PI);
      if (levels[n] === NO_VALUE) {
        context.stroke();
      } else {
        context.fillStyle = colors[levels[n]];
        context.fill();
      }
    }
  }

  function describe(canvas, gene, section, levels) {
    const series = Number(canvas.dataset.series);
    const row = data.rows.find(({ map }) => map === series);
    const predicted = series === 0 || levels.some((level) => level !== NO_VALUE);
    const score = row ? ofGene(data.pcc[row.name], gene)[section] : null;
    const caption = canvas.parentElement.querySelector(".pcc");
    if (series === 0) caption.textContent = "";
    else caption.textContent = predicted ? `PCC ${text(score)}` : "not predicted";
    caption.dataset.score = caption.textContent;
    const label = canvas.parentElement.querySelector("figcaption").textContent;
    canvas.setAttribute(
      "aria-label",
      `${data.genes[gene]} in section ${data.sections[section]}, ${label}`,
    );
  }

  // shows the values of the spot under the pointer, in every panel of the section
  function point(event, section) {
    const canvas = event.target.closest("canvas[data-series]");
    const spot = canvas && maps[section] ? nearest(event, canvas, data.spots[section]) : -1;
    places[section].querySelectorAll(".pcc").forEach((caption, series) => {
      if (spot < 0) {
        caption.textContent = caption.dataset.score ?? "";
      } else {
        const { low, high, panels } = maps[section];
        const level = panels[series][spot];
        const value = low + (level / (NO_VALUE - 1)) * (high - low);
        const beyond = { 0: "≤ ", [NO_VALUE - 1]: "≥ " }[level] ?? "";
        caption.textContent = level === NO_VALUE ? "–" : beyond + brief(value);
      }
    });
  }

  function nearest(event, canvas, spots) {
    const box = canvas.getBoundingClientRect();
    const x = ((event.clientX - box.left) / box.width) * canvas.width;
    const y = ((event.clientY - box.top) / box.height) * canvas.height;
    let [best, shortest] = [-1, Infinity];
    for (let n = 0; n < spots.x.length; n += 1) {
      const distance = Math.hypot(spots.x[n] - x, spots.y[n] - y);
      if (distance < shortest && distance < 1.3 * spots.radius[n] + 1) {
        [best, shortest] = [n, distance];
      }
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
    colors.forEach((color, n) => {
      context.fillStyle = color;
      context.fillRect(n, 0, 1, 1);
    });
  }

  sort(1, "descending");
  const pictures = [...document.querySelectorAll(".tissue img")];
  Promise.allSettled(pictures.map((picture) => picture.decode())).then(() => {
    if (article.hidden) select(Number(body.rows[0].cells[0].firstElementChild.dataset.gene));
    else select(Number(body.querySelector("[aria-pressed=true]").dataset.gene));
  });
})();
