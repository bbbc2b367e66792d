"use strict";
(() => {
  const byId = (id) => document.getElementById(id);
  const FIRST = 12; // images shown before "show all": the page stays short, and the browser quick

  // Tables that can be sorted, and configs that can be searched.
  for (const table of document.querySelectorAll("table.sortable")) {
    table.querySelectorAll("thead th").forEach((head, column) => head.firstElementChild.addEventListener("click", () => {
      const up = head.getAttribute("aria-sort") !== "ascending";
      for (const other of table.querySelectorAll("thead th")) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
      const value = (row) => {
        const cell = row.cells[column];
        return cell.classList.contains("n") ? Number(cell.dataset.value ?? -Infinity) : cell.textContent;
      };
      const rows = [...table.tBodies[0].rows].sort((a, b) => {
        const [x, y] = [value(a), value(b)];
        return (x < y ? -1 : x > y ? 1 : 0) * (up ? 1 : -1);
      });
      table.tBodies[0].append(...rows);
    }));
  }
  for (const search of document.querySelectorAll("input.search")) {
    search.addEventListener("input", () => {
      const words = search.value.toLowerCase().split(/\s+/);
      for (const row of search.closest("details").querySelectorAll("tbody tr")) {
        const text = row.textContent.toLowerCase();
        row.hidden = !words.every((word) => text.includes(word));
      }
    });
  }

  const gallery = byId("gallery");
  if (!gallery) return;
  const cards = [...gallery.querySelectorAll(".card")];
  const large = byId("large");
  const LAYERS = { hit: "p", truth: "t", missed: "m", false: "f" };
  const layers = [...large.querySelectorAll(".layer")];
  let all = false;

  // Layers and runs: classes of the gallery and of the dialog, which style sheets turn into what is seen.
  const boxes = Object.fromEntries([...gallery.querySelectorAll("input[type=checkbox]")].map((box) => [box.name, box]));
  const views = [...gallery.querySelectorAll("input[name=view]")];
  const show = () => {
    const view = views.find((radio) => radio.checked)?.value ?? "0";
    for (const place of [gallery, large]) {
      for (const name of Object.keys(LAYERS)) place.classList.toggle(`show-${name}`, boxes[name]?.checked ?? false);
      place.dataset.view = view;
    }
    for (const button of layers) {
      button.setAttribute("aria-pressed", String(button.dataset.layer ? boxes[button.dataset.layer].checked : button.dataset.run === view));
    }
  };
  for (const input of [...Object.values(boxes), ...views]) input.addEventListener("change", show);
  for (const button of layers) {
    button.addEventListener("click", () => (boxes[button.dataset.layer] ?? views[Number(button.dataset.run)]).click());
  }
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches("input[type=search],select")) return;
    const name = Object.keys(LAYERS).find((key) => LAYERS[key] === event.key);
    if (name && boxes[name]) boxes[name].click();
    else if (views[Number(event.key) - 1]) views[Number(event.key) - 1].click();
    else if (large.open && event.key === "ArrowRight") step(1);
    else if (large.open && event.key === "ArrowLeft") step(-1);
    else if (large.open && (event.key === "+" || event.key === "-")) zoom(event.key === "+" ? 1.5 : 1 / 1.5);
    else return;
    event.preventDefault();
  });

  // Order, cell type, and how many are shown.
  const order = byId("order"), type = byId("type"), more = byId("more");
  const number = (card, key) => Number(card.dataset[key] ?? 0);
  const by = (key, sign) => (a, b) => sign * (number(a, key) - number(b, key));
  const ORDERS = {
    worst: by("score", 1),
    best: by("score", -1),
    gap: (a, b) => Math.abs(number(b, "gap")) - Math.abs(number(a, "gap")),
    cells: by("cells", -1),
    fewest: by("cells", 1),
    confluent: by("confluence", -1),
    sparse: by("confluence", 1),
    sure: by("mean", -1),
    unsure: by("mean", 1),
    marked: by("marked", -1),
    name: () => 0,
    type: (a, b) => (a.dataset.type < b.dataset.type ? -1 : a.dataset.type > b.dataset.type ? 1 : 0),
  };
  const byName = (a, b) => (a.dataset.name < b.dataset.name ? -1 : 1);
  const arrange = () => {
    cards.sort((a, b) => ORDERS[order.value](a, b) || byName(a, b));
    byId("cards").append(...cards);
    const wanted = cards.filter((card) => !type?.value || card.dataset.type === type.value);
    const seen = new Set(all ? wanted : wanted.slice(0, FIRST));
    for (const card of cards) card.hidden = !seen.has(card);
    more.hidden = wanted.length <= seen.size;
    more.textContent = `Show all ${wanted.length} images`;
    byId("none").hidden = wanted.length > 0;
  };
  order.addEventListener("change", arrange);
  type?.addEventListener("change", arrange);
  more.addEventListener("click", () => { all = true; arrange(); });

  // One image, enlarged: its grouped outlines are taken apart into cells, which say what they are.
  let current = null, scale = 1;
  const frame = byId("large-frame"), pane = byId("large-view"), hint = byId("large-cell").textContent;
  const percent = (text) => (text === "" ? "?" : (Number(text) / 100).toFixed(2));
  const words = (classes, text) => {
    const index = Number(large.dataset.view);
    if (classes.contains("truth")) {
      const [iou, reason] = text.split("/")[index].split("|");
      if (iou === "") return "annotated";
      if (!classes.contains(`m${index}`)) return `found, IoU ${percent(iou)}`;
      return `missed, best IoU ${percent(iou)}` + (reason ? `; ${reason}` : "");
    }
    const [score, iou, kind] = text.split(",");
    const what = classes.contains("open") ? "predicted where nobody has labelled" : iou === "" ? "predicted" : classes.contains("false") ? "false alarm" : "hit";
    return [what, iou === "" ? "" : `IoU ${percent(iou)}`, score === "" ? "" : `score ${percent(score)}`, kind]
      .filter(Boolean).join(", ");
  };
  const open = (card) => {
    current = card;
    const copy = card.querySelector(".frame").cloneNode(true);
    for (const group of copy.querySelectorAll("path")) {
      const texts = group.dataset.c.split(";");
      group.getAttribute("d").split("M").slice(1).forEach((data, k) => {
        const cell = group.cloneNode();
        cell.setAttribute("d", `M${data}`);
        cell.dataset.c = texts[k];
        group.before(cell);
      });
      group.remove();
    }
    frame.replaceChildren(copy);
    byId("large-name").textContent = card.dataset.name;
    byId("large-facts").replaceChildren(...[...card.querySelectorAll("figcaption > :not(b)")].map((part) => part.cloneNode(true)).flatMap((part) => [part, " "]));
    byId("large-cell").textContent = hint;
    if (!large.open) large.showModal();
    fit();
  };
  const fit = () => {
    const image = frame.querySelector("img");
    const whole = Math.min(pane.clientWidth, pane.clientHeight * image.getAttribute("width") / image.getAttribute("height"));
    scale = 1;
    frame.dataset.whole = whole;
    frame.style.width = `${whole}px`;
  };
  const zoom = (factor) => {
    const before = scale;
    scale = Math.min(8, Math.max(1, scale * factor));
    const x = pane.scrollLeft + pane.clientWidth / 2, y = pane.scrollTop + pane.clientHeight / 2;
    frame.style.width = `${frame.dataset.whole * scale}px`;
    pane.scrollTo(x * scale / before - pane.clientWidth / 2, y * scale / before - pane.clientHeight / 2);
  };
  const step = (by) => {
    const seen = cards.filter((card) => !card.hidden);
    open(seen[(seen.indexOf(current) + by + seen.length) % seen.length]);
  };
  frame.addEventListener("pointerover", (event) => {
    if (event.target.matches("path")) byId("large-cell").textContent = words(event.target.classList, event.target.dataset.c);
  });
  for (const card of cards) card.querySelector(".open").addEventListener("click", () => open(card));
  const CLICKS = { previous: () => step(-1), next: () => step(1), larger: () => zoom(1.5), smaller: () => zoom(1 / 1.5), close: () => large.close() };
  for (const [id, act] of Object.entries(CLICKS)) byId(id).addEventListener("click", act);

  show();
  arrange();
})();
